"""Many rows are written under one lease, or none of them."""

from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.db import connections, transaction
from django.db.models import Count, F
from django.test.utils import CaptureQueriesContext

from django_distlock import LockLost
from tests.app.models import Counter, DunnedInvoice, Invoice, InvoiceOnScreen, Parcel, Payment
from tests.support.databases import committed, on_each_database
from tests.support.fenced_rows import LATE, create, create_two, have_lost, lock_of, stored, written
from tests.support.leases import internals

pytestmark = committed
each_model = pytest.mark.parametrize("model", [Invoice, InvoiceOnScreen, DunnedInvoice])


@on_each_database
def test_update_is_one_statement(alias: str) -> None:
    """It has the caller's filter, the semaphore's values and the fence."""
    first, _ = create_two(alias)
    with lock_of(first) as lease, CaptureQueriesContext(connections[alias]) as queries:
        rows = Invoice.objects.using(alias).fenced(lease).filter(amount__lt=2)
        assert rows.update(amount=13) == 1
    (update,) = [query["sql"] for query in queries if query["sql"].startswith("UPDATE")][:1]
    for condition in ("amount", "customer_id", f"<= {lease.token}"):
        assert condition in update.partition("WHERE")[2]
    assert written(alias) == [(13, lease.token), (2, 0)]


@on_each_database
@pytest.mark.parametrize("twin", ["aupdate", "adelete"])
def test_async_twins_are_fenced(alias: str, twin: str) -> None:
    """They change the lease's rows, and nothing under an outdated lease."""
    first, _ = create_two(alias)
    values = {"amount": 13} if twin == "aupdate" else {}
    rows = Invoice.objects.using(alias).filter(pk=first.pk)
    with lock_of(first) as lease:
        rows.update(fence=LATE)
        with pytest.raises(LockLost):
            async_to_sync(getattr(rows.fenced(lease), twin))(**values)
        assert written(alias) == [(1, LATE), (2, 0)]
    with lock_of(first) as lease:
        rows.update(fence=0)
        async_to_sync(getattr(rows.fenced(lease), twin))(**values)
    assert written(alias) == ([(13, lease.token), (2, 0)] if values else [(2, 0)])


@on_each_database
@each_model
def test_update_of_several_rows(alias: str, model: type[Any]) -> None:
    """With expressions and inherited fields."""
    first, _ = create_two(alias, model)
    with lock_of(first) as lease:
        rows = model.objects.using(alias).filter(amount__gt=0).fenced(lease)
        assert len(rows) == 2
        assert rows.update(amount=F("amount") + 1) == 2
    assert written(alias) == [(2, lease.token), (3, lease.token)]


@on_each_database
def test_update_of_two_tables(alias: str) -> None:
    """The first statement compares the fence, whichever table has it."""
    parcel = Parcel.objects.using(alias).create()
    dunned = create(alias, DunnedInvoice)
    with lock_of(parcel) as lease:
        Parcel.objects.using(alias).fenced(lease).update(value=13, weight=14)
    assert (stored(parcel).value, stored(parcel).weight) == (13, 14)
    assert stored(parcel).fence == lease.token
    with lock_of(dunned) as lease:
        DunnedInvoice.objects.using(alias).fenced(lease).update(amount=13, reminders=14)
    assert (stored(dunned).amount, stored(dunned).reminders) == (13, 14)
    assert stored(dunned).fence == lease.token


@on_each_database
@pytest.mark.parametrize("distinct", [False, True])
def test_filter_on_other_tables(alias: str, distinct: bool) -> None:
    """Even one that counts or joins."""
    first, second = create_two(alias)
    for _ in range(2):
        Payment.objects.using(alias).create(invoice=first)
    rows: Any = Invoice.objects.using(alias)
    rows = rows.filter(customer__name="Ada", payment__isnull=False)
    rows = rows.distinct() if distinct else rows.annotate(n=Count("payment")).filter(n=2)
    with lock_of(first) as lease:
        assert rows.fenced(lease).update(amount=13) == 1
    assert written(alias) == [(13, lease.token), (2, 0)]
    Invoice.objects.using(alias).filter(pk=first.pk).update(fence=LATE)
    with lock_of(first) as lease, pytest.raises(LockLost):
        rows.fenced(lease).update(amount=14)
    assert written(alias) == [(13, LATE), (2, 0)]
    assert stored(second).amount == 2


def writes_of(rows: Any, alias: str) -> dict[str, Callable[[], object]]:
    """Return a function for each way to write a queryset's rows."""
    objects = list(rows)
    for each in objects:
        each.amount = 13
    return {
        "update": lambda: rows.update(amount=13),
        "update by a join": lambda: rows.filter(customer__name="Ada").update(amount=13),
        "bulk_update": lambda: rows.bulk_update(objects, ["amount"]),
        "delete": rows.delete,
    }


each_write = pytest.mark.parametrize(
    "write", ["update", "update by a join", "bulk_update", "delete"]
)


@on_each_database
@each_model
@each_write
def test_one_row_that_was_written_later_refuses_all(
    alias: str, model: type[Any], write: str
) -> None:
    """The error names the row and has the lease, which counts as lost from then on."""
    first, second = create_two(alias, model)
    model.objects.using(alias).filter(pk=second.pk).update(fence=LATE)
    with lock_of(first) as lease:
        rows = model.objects.using(alias).fenced(lease)
        with pytest.raises(LockLost, match=rf"{model._meta.label} with pk {second.pk} ") as lost:
            writes_of(rows, alias)[write]()
    assert lost.value.lease is lease
    assert internals(lease).lost
    assert written(alias) == [(1, 0), (2, LATE)]


@on_each_database
@each_model
@each_write
@pytest.mark.parametrize("token", [0, LATE])
def test_one_row_of_another_semaphore_refuses_all(
    alias: str, model: type[Any], write: str, token: int
) -> None:
    """Whatever its fence: the row belongs to another lock."""
    first = create(alias, model)
    other = create(alias, model, amount=1)
    model.objects.using(alias).filter(pk=other.pk).update(fence=token)
    with lock_of(first) as lease:
        rows = model.objects.using(alias).fenced(lease)
        with pytest.raises(ValueError, match=rf"pk {other.pk} belongs to .* lease is on"):
            writes_of(rows, alias)[write]()
        assert lease.held
    assert written(alias) == [(0, 0), (1, token)]


@on_each_database
def test_row_of_no_semaphore_refuses_all(alias: str) -> None:
    """Such as a row without a customer."""
    first = create(alias)
    Invoice.objects.using(alias).create()
    with lock_of(first) as lease, pytest.raises(ValueError, match="belongs to None"):
        Invoice.objects.using(alias).fenced(lease).update(amount=13)
    assert written(alias) == [(0, 0), (0, 0)]


@on_each_database
@each_write
def test_all_rows_are_written(alias: str, write: str) -> None:
    """In each of these ways."""
    first, _ = create_two(alias)
    with lock_of(first) as lease:
        writes_of(Invoice.objects.using(alias).fenced(lease), alias)[write]()
    assert written(alias) == ([] if write == "delete" else [(13, lease.token)] * 2)


@on_each_database
@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("write", ["update", "delete", "delete of an object"])
def test_refusal_leaves_the_transaction_around_it_usable(
    alias: str, write: str, known: bool
) -> None:
    """The refused write is rolled back to a savepoint."""
    invoice = create(alias)
    if not known:
        Invoice.objects.using(alias).update(fence=LATE)
    with lock_of(invoice) as lease:
        if known:
            have_lost(lease)
        rows = Invoice.objects.using(alias).fenced(lease)
        writes = writes_of(rows, alias)
        writes["delete of an object"] = lambda: invoice.delete(lease=lease)
        with transaction.atomic(using=alias):
            Counter.objects.using(alias).create()
            with pytest.raises(LockLost):
                writes[write]()
            Counter.objects.using(alias).create()
    assert Counter.objects.using(alias).count() == 2


@on_each_database
def test_delete_of_a_queryset_cascades_to_dependent_rows(alias: str) -> None:
    """As without a fence."""
    first, _ = create_two(alias)
    Payment.objects.using(alias).create(invoice=first)
    with lock_of(first) as lease:
        deleted, _ = Invoice.objects.using(alias).fenced(lease).delete()
    assert deleted == 3


@on_each_database
@pytest.mark.parametrize("known", [False, True])
def test_refused_bulk_update_rolls_its_transaction_back(alias: str, known: bool) -> None:
    """As Django's bulk_update() does, whether or not the loss was known."""
    invoice = create(alias)
    if not known:
        Invoice.objects.using(alias).update(fence=LATE)
    with lock_of(invoice) as lease:
        if known:
            have_lost(lease)
        rows = Invoice.objects.using(alias).fenced(lease)
        with transaction.atomic(using=alias):
            Counter.objects.using(alias).create()
            with pytest.raises(LockLost):
                rows.bulk_update([invoice], ["amount"])
    assert not Counter.objects.using(alias).exists()
