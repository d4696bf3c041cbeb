"""Many rows are written under one lease, or none of them."""

import operator
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
from asgiref.sync import async_to_sync
from django.core.exceptions import FieldDoesNotExist
from django.db import connections, transaction
from django.db.models import Count, F
from django.test.utils import CaptureQueriesContext

from django_distlock import LockLost
from tests.app.models import (
    Counter,
    Customer,
    DunnedInvoice,
    Greeting,
    Invoice,
    InvoiceOnScreen,
    Parcel,
    Payment,
)
from tests.support.databases import committed, on_each_database, paused_before_writing
from tests.support.fenced_rows import LATE, another_template, create, have_lost, lock_of, stored
from tests.support.holders import holding

pytestmark = committed
each_model = pytest.mark.parametrize("model", [Invoice, InvoiceOnScreen, DunnedInvoice])


def sisters(alias: str, model: type[Any] = Invoice) -> tuple[Any, Any]:
    """Create two rows of one customer."""
    first = create(alias, model, amount=1)
    return first, model.objects.using(alias).create(customer_id=first.customer_id, amount=2)


def written(alias: str) -> list[tuple[int, int]]:
    """Return what the invoices say, in the order of their making."""
    return list(Invoice.objects.using(alias).order_by("pk").values_list("amount", "fence"))


@on_each_database
def test_update_is_one_statement(alias: str) -> None:
    """It has the caller's filter, the semaphore's values and the fence."""
    first, _ = sisters(alias)
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
    """They change what the lease may write, and nothing for an outdated one."""
    first, _ = sisters(alias)
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
    """With whatever else a queryset can do: expressions, inherited fields."""
    first, _ = sisters(alias, model)
    with lock_of(first) as lease:
        rows = model.objects.using(alias).filter(amount__gt=0).fenced(lease)
        assert len(rows) == 2
        assert rows.update(amount=F("amount") + 1) == 2
    assert written(alias) == [(2, lease.token), (3, lease.token)]


@on_each_database
def test_update_of_two_tables(alias: str) -> None:
    """The fence is looked at in the first statement, whichever table it is in."""
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
    first, second = sisters(alias)
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
    """Return every way to write a queryset's rows."""
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
    """The error names it and has the lease, which is known to be lost from then on."""
    first, second = sisters(alias, model)
    model.objects.using(alias).filter(pk=second.pk).update(fence=LATE)
    with lock_of(first) as lease:
        rows = model.objects.using(alias).fenced(lease)
        with pytest.raises(LockLost, match=rf"{model._meta.label} with pk {second.pk} ") as lost:
            writes_of(rows, alias)[write]()
    assert lost.value.lease is lease
    assert lease.lost
    assert written(alias) == [(1, 0), (2, LATE)]


@on_each_database
@each_model
@each_write
@pytest.mark.parametrize("token", [0, LATE])
def test_one_row_of_another_semaphore_refuses_all(
    alias: str, model: type[Any], write: str, token: int
) -> None:
    """Whatever its fence says: it is not of this lock."""
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
    """As one that has no customer."""
    first = create(alias)
    Invoice.objects.using(alias).create()
    with lock_of(first) as lease, pytest.raises(ValueError, match="belongs to None"):
        Invoice.objects.using(alias).fenced(lease).update(amount=13)
    assert written(alias) == [(0, 0), (0, 0)]


@on_each_database
@each_write
def test_all_rows_are_written(alias: str, write: str) -> None:
    """In all those ways."""
    first, _ = sisters(alias)
    with lock_of(first) as lease:
        writes_of(Invoice.objects.using(alias).fenced(lease), alias)[write]()
    assert written(alias) == ([] if write == "delete" else [(13, lease.token)] * 2)


@on_each_database
@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("write", ["update", "delete", "delete of an object"])
def test_refusal_leaves_the_transaction_around_it_usable(
    alias: str, write: str, known: bool
) -> None:
    """It is rolled back that far."""
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
def test_delete_takes_along_what_depends_on_the_rows(alias: str) -> None:
    """As ever."""
    first, _ = sisters(alias)
    Payment.objects.using(alias).create(invoice=first)
    with lock_of(first) as lease:
        deleted, _ = Invoice.objects.using(alias).fenced(lease).delete()
    assert deleted == 3


@on_each_database
@pytest.mark.parametrize("number", ["0{}", "{}x", "", "%34"])
def test_semaphore_that_no_row_has(alias: str, number: str) -> None:
    """Though its text may be that of a row's number, written otherwise."""
    invoice = create(alias)
    with holding(alias, f"{number.format(invoice.customer_id)}collectPayment") as lease:
        with pytest.raises(ValueError, match=r"belongs to"):
            Invoice.objects.using(alias).fenced(lease).update(amount=13)
    with holding(alias, "nothing of the kind") as lease:
        with pytest.raises(ValueError, match=r"No app\.Invoice belongs to 'nothing of the kind'"):
            Invoice.objects.fenced(lease)


@on_each_database
def test_texts_are_compared_byte_by_byte(alias: str) -> None:
    """MariaDB's `=` isn't so particular, but locks are."""
    names = ["Ada", "ada", "Ada ", "Adá", "", "a/b%"]
    greetings = [create(alias, Greeting, name=name) for name in names]
    for each in greetings:
        with lock_of(each) as lease:
            rows = Greeting.objects.using(alias)
            assert rows.filter(pk=each.pk).fenced(lease).update(sent=F("sent") + 1) == 1
            for other in greetings:
                if other is not each:
                    with pytest.raises(ValueError, match=f"pk {other.pk} belongs to"):
                        rows.filter(pk=other.pk).fenced(lease).update(sent=13)
    assert [stored(each).sent for each in greetings] == [1] * len(names)
    Greeting.objects.using(alias).update(customer=None)
    with holding(alias, "Ada:greet") as lease, pytest.raises(ValueError, match="belongs to None"):
        Greeting.objects.using(alias).fenced(lease).update(sent=13)


@pytest.mark.parametrize("template", ["<owner>:a", "<customer.owner>:a"])
def test_template_that_is_not_made_of_fields_is_for_single_objects(template: str) -> None:
    """Nobody can tell the database what a property is."""
    invoice = create("default")
    with (
        mock.patch.object(Invoice, "owner", "Ada", create=True),
        mock.patch.object(Customer, "owner", "Ada", create=True),
        another_template(template),
        lock_of(invoice) as lease,
    ):
        invoice.save(lease=lease)
        with pytest.raises(ValueError, match="is not a field"):
            Invoice.objects.fenced(lease)


def test_one_lock_may_be_all_rows() -> None:
    """By a template with nothing to be filled in."""
    create("default")
    invoice = create("default")
    with another_template("all"), lock_of(invoice) as lease:
        assert Invoice.objects.fenced(lease).update(amount=13) == 2


@on_each_database
@each_model
@pytest.mark.parametrize("move", ["customer", "customer_id", "bulk_update"])
def test_rows_are_not_moved_to_another_lock(alias: str, model: type[Any], move: str) -> None:
    """They would take a foreign token along."""
    first, _ = sisters(alias, model)
    other = Customer.objects.using(alias).create(name="Bob")
    rows = model.objects.using(alias).filter(customer_id=first.customer_id)
    with lock_of(first) as lease:
        first.customer = other
        moves: dict[str, Callable[[], object]] = {
            "customer": lambda: rows.fenced(lease).update(amount=13, customer=other),
            "customer_id": lambda: rows.fenced(lease).update(customer_id=other.pk),
            "bulk_update": lambda: rows.fenced(lease).bulk_update([first], ["amount", "customer"]),
        }
        with pytest.raises(ValueError, match=r"customer(_id)? tells which lock"):
            moves[move]()
        assert lease.held
    assert rows.count() == 2
    assert written(alias) == [(1, 0), (2, 0)]


@on_each_database
def test_rows_of_other_templates_are_not_moved_either(alias: str) -> None:
    """Neither by a key, nor by what leads to another table; what the template lacks is free."""
    parcel = Parcel.objects.using(alias).create()
    greeting = create(alias, Greeting)
    with lock_of(parcel) as lease, pytest.raises(ValueError, match="counter_ptr tells which lock"):
        Parcel.objects.using(alias).fenced(lease).update(counter_ptr=7)
    with lock_of(greeting) as lease:
        rows: Any = Greeting.objects.using(alias).fenced(lease)
        with pytest.raises(ValueError, match="customer tells which lock"):
            rows.update(customer=None)
        with pytest.raises(FieldDoesNotExist):
            rows.update(nothing=1)
    assert stored(greeting).customer_id == greeting.customer_id


@on_each_database
def test_row_that_is_moved_while_it_is_claimed_keeps_its_fence(alias: str) -> None:
    """The token is of the lock that it belongs to no more."""
    first, second = sisters(alias)
    other = Customer.objects.using(alias).create(name="Bob")
    moved = Invoice.objects.using(alias).filter(pk=second.pk)
    with lock_of(first) as lease:
        rows = Invoice.objects.using(alias).filter(customer_id=first.customer_id)
        with paused_before_writing(alias, lambda: moved.update(customer=other)):
            assert rows.fenced(lease).delete() == (1, {"app.Invoice": 1})
    assert (stored(second).customer_id, stored(second).fence) == (other.pk, 0)


@on_each_database
@pytest.mark.parametrize("known", [False, True])
def test_refused_bulk_update_rolls_its_transaction_back(alias: str, known: bool) -> None:
    """As Django's does when it fails; whether or not the lease was known to be lost."""
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


def test_fence_is_set_by_the_lease_alone() -> None:
    """No update() under a lease has a fence of its own."""
    invoice = create("default")
    with lock_of(invoice) as lease, pytest.raises(ValueError, match="set by the lease"):
        Invoice.objects.fenced(lease).update(fence=1)
    Invoice.objects.update(fence=1)
    assert stored(invoice).fence == 1


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("create", {}),
        ("bulk_create", {"objs": [Invoice()]}),
        ("get_or_create", {"amount": 1}),
        ("update_or_create", {"amount": 1}),
    ],
)
def test_inserts_are_not_fenced(method: str, arguments: dict[str, Any]) -> None:
    """So a fenced queryset has none."""
    invoice = create("default")
    with lock_of(invoice) as lease:
        with pytest.raises(TypeError, match="would not be fenced"):
            getattr(Invoice.objects.fenced(lease), method)(**arguments)
    getattr(Invoice.objects.all(), method)(**arguments)
    assert Invoice.objects.count() == 2


def test_querysets_are_combined_before_they_are_fenced() -> None:
    """Afterwards some of the combinations would forget the lease."""
    invoice = create("default")
    rows = Invoice.objects.all()
    with lock_of(invoice) as lease:
        fenced = rows.fenced(lease)
        for one, other in ((rows, fenced), (fenced, rows), (fenced[:1], rows)):
            for combine in (operator.and_, operator.or_, operator.xor):
                with pytest.raises(TypeError, match="first, then call fenced"):
                    combine(one, other)
        assert (rows | rows).fenced(lease).update(amount=13) == 1


def test_slices_are_not_written() -> None:
    """As ever."""
    invoice = create("default")
    with lock_of(invoice) as lease:
        rows = Invoice.objects.order_by("amount").fenced(lease)
        for write in (lambda: rows[:1].update(amount=13), rows[:1].delete):
            with pytest.raises(TypeError, match="slice"):
                write()
        assert rows.update(amount=13) == 1


def test_manager_has_no_delete() -> None:
    """So nobody deletes all by accident."""
    assert not hasattr(Invoice.objects, "delete")
    invoice = create("default")
    assert Invoice.objects.all().delete() == (1, {"app.Invoice": 1})
    assert not Invoice.objects.filter(pk=invoice.pk).exists()
