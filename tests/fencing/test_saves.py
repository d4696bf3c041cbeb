"""A row has the token of its last writer, and refuses the save of an earlier holder."""

from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from django.db import connections, transaction
from django.test.utils import CaptureQueriesContext

from django_distlock import LockLost
from tests.app.models import DunnedInvoice, Invoice, InvoiceOnScreen, Parcel
from tests.support.databases import committed, isolated, on_each_database, paused_before_writing
from tests.support.fenced_rows import LATE, create, lock_of, stored, taken_over
from tests.support.holders import holding
from tests.support.leases import internals

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = committed


@on_each_database
def test_save_sets_the_fence_in_the_one_statement_that_asks_for_it(alias: str) -> None:
    """No other write can interleave."""
    invoice = create(alias)
    with lock_of(invoice) as lease, CaptureQueriesContext(connections[alias]) as queries:
        invoice.amount = 13
        invoice.save(lease=lease)
    (update,) = [query["sql"] for query in queries if "app_invoice" in query["sql"]]
    assert update.startswith("UPDATE")
    assert f"<= {lease.token}" in update
    assert invoice.fence == lease.token
    assert (stored(invoice).amount, stored(invoice).fence) == (13, lease.token)


@on_each_database
def test_one_lease_writes_as_often_as_it_likes(alias: str) -> None:
    """The next lease can write after it."""
    invoice = create(alias)
    for amount in (1, 2):
        with lock_of(invoice) as lease:
            for _ in range(2):
                invoice.amount += amount
                invoice.save(lease=lease)
    assert (stored(invoice).amount, stored(invoice).fence) == (6, lease.token)


@on_each_database
@pytest.mark.parametrize("update_fields", [None, ["amount"]])
@pytest.mark.parametrize("model", [Invoice, DunnedInvoice, InvoiceOnScreen])
def test_outdated_save_changes_nothing(
    alias: str, model: type[Any], update_fields: list[str] | None
) -> None:
    """The error names the object and has the lease, which counts as lost from then on."""
    row = create(alias, model)
    model.objects.using(alias).update(fence=LATE)
    row.amount = 13
    with lock_of(row) as lease:
        with pytest.raises(LockLost, match=rf"{row._meta.label} with pk {row.pk} .*{LATE}") as lost:
            row.save(lease=lease, update_fields=update_fields)
    assert lost.value.lease is lease
    assert internals(lease).lost
    assert row.fence == 0
    assert (stored(row).amount, stored(row).fence) == (0, LATE)


@on_each_database
def test_taken_over_holder_is_refused_by_the_row(alias: str) -> None:
    """Even though its own check of the lease passes."""
    invoice = create(alias)
    stale = stored(invoice)
    lease = taken_over(invoice)
    with lock_of(invoice) as later:
        invoice.amount = 13
        invoice.save(lease=later)
    lease.check()
    stale.amount = 14
    with pytest.raises(LockLost, match="a later holder of"):
        stale.save(lease=lease)
    assert (stored(invoice).amount, stored(invoice).fence) == (13, later.token)


@on_each_database
def test_model_whose_fence_is_in_its_second_table_is_saved_as_a_whole_or_not(alias: str) -> None:
    """The write to the first table is rolled back."""
    parcel = Parcel.objects.using(alias).create()
    parcel.value = parcel.weight = 13
    with lock_of(parcel) as lease:
        parcel.save(lease=lease)
    Parcel.objects.using(alias).update(fence=LATE)
    parcel.value = parcel.weight = 14
    with lock_of(parcel) as lease, pytest.raises(LockLost, match=r"app\.Parcel"):
        parcel.save(lease=lease)
    row = stored(parcel)
    assert (row.value, row.weight, row.fence) == (13, 13, LATE)


@on_each_database
def test_only_the_row_that_was_written_is_fenced(alias: str) -> None:
    """Each object has its own fence."""
    first = create(alias)
    second = Invoice.objects.using(alias).create(customer_id=first.customer_id)
    Invoice.objects.using(alias).filter(pk=second.pk).update(fence=LATE)
    with lock_of(first) as lease:
        first.save(lease=lease)
        with pytest.raises(LockLost, match=f"pk {second.pk} "):
            second.save(lease=lease)
    assert (stored(first).fence, stored(second).fence) == (lease.token, LATE)


@pytest.mark.needs("mariadb")
@pytest.mark.parametrize("select_on_save", [False, True])
@pytest.mark.parametrize("write", ["save", "delete", "update"])
def test_later_write_is_seen_beyond_a_snapshot(write: str, select_on_save: bool) -> None:
    """At REPEATABLE READ a SELECT still shows the row as it was before the later holder's write."""
    invoice = create("mariadb")
    rows = Invoice.objects.using("mariadb")
    with (
        isolated("mariadb", "repeatable read"),
        lock_of(invoice) as lease,
        mock.patch.object(Invoice._meta, "select_on_save", select_on_save),
    ):
        writes: dict[str, Callable[[], object]] = {
            "save": lambda: invoice.save(lease=lease),
            "delete": lambda: invoice.delete(lease=lease),
            "update": lambda: rows.fenced(lease).update(amount=13),
        }
        with pytest.raises(LockLost, match=str(LATE)), transaction.atomic(using="mariadb"):
            assert stored(invoice).fence == 0
            with paused_before_writing("mariadb", lambda: rows.update(fence=LATE)):
                writes[write]()
    assert stored(invoice).fence == LATE


@on_each_database
@pytest.mark.parametrize("late", [False, True])
def test_select_on_save_asks_for_the_fence_as_well(alias: str, late: bool) -> None:
    """Whether the later write comes before or after the SELECT."""
    invoice = create(alias)
    rows = Invoice.objects.using(alias)
    if not late:
        rows.update(fence=LATE)
    with mock.patch.object(Invoice._meta, "select_on_save", True), lock_of(invoice) as lease:
        with pytest.raises(LockLost):
            if late:
                with paused_before_writing(alias, lambda: rows.update(fence=LATE)):
                    invoice.save(lease=lease)
            else:
                invoice.save(lease=lease)
    with lock_of(invoice) as lease, mock.patch.object(Invoice._meta, "select_on_save", True):
        rows.update(fence=0)
        invoice.save(lease=lease)
    assert stored(invoice).fence == lease.token


@on_each_database
def test_lost_lease_writes_nothing(alias: str) -> None:
    """No statement is sent."""
    invoice = create(alias)
    with lock_of(invoice) as lease:
        pass
    rows = Invoice.objects.using(alias).all()
    for write in (
        lambda: invoice.save(lease=lease),
        lambda: invoice.delete(lease=lease),
        lambda: rows.fenced(lease).update(amount=13),
        lambda: rows.fenced(lease).delete(),
    ):
        with CaptureQueriesContext(connections[alias]) as queries:
            with pytest.raises(LockLost, match=r"app.Invoice.* was not written.*was released") as e:
                write()
        assert e.value.lease is lease
        assert len(queries) == 0
    assert stored(invoice).fence == 0


@on_each_database
def test_lease_on_another_semaphore_is_refused(alias: str) -> None:
    """Tokens of different locks can't be compared."""
    invoice = create(alias)
    with holding(alias, "another") as lease, CaptureQueriesContext(connections[alias]) as queries:
        for write in (invoice.save, invoice.delete):
            with pytest.raises(
                ValueError, match=r"belongs to '.*collectPayment'.* is on 'another'"
            ):
                write(lease=lease)
        assert len(queries) == 0
        assert lease.held
    assert stored(invoice).fence == 0


def test_lease_without_a_token_is_refused() -> None:
    """Not every store gives tokens."""
    invoice = create("default")
    with lock_of(invoice) as lease:
        with mock.patch.object(lease, "token", None):
            for write in (invoice.save, invoice.delete):
                with pytest.raises(ValueError, match="no token"):
                    write(lease=lease)
            with pytest.raises(ValueError, match="no token"):
                Invoice.objects.fenced(lease)


@pytest.mark.parametrize("lease", ["1collectPayment", True, 5])
def test_argument_other_than_a_lease_is_refused(lease: Any) -> None:
    """A semaphore's name is not enough; nothing is written."""
    invoice = create("default")
    rows = Invoice.objects.filter(pk=invoice.pk)
    for write in (
        lambda: invoice.save(lease=lease),
        lambda: invoice.delete(lease=lease),
        lambda: rows.fenced(lease),
    ):
        with pytest.raises(TypeError, match=r"^lease is a Lease, as acquire_lock.* gives, not "):
            write()
    assert rows.exists()
