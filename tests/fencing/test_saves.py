"""A row knows the token of its last writer, and takes no save of an earlier one."""

import pickle
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
from django.core import serializers
from django.db import DatabaseError, connections, transaction
from django.db.migrations.state import ProjectState
from django.db.models.signals import post_save, pre_save
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory
from django.test.utils import CaptureQueriesContext

from django_distlock import LockLost, distributed_lock
from tests.app.models import Customer, DunnedInvoice, Invoice, InvoiceOnScreen, Parcel, Payment
from tests.support.concurrency import Interrupted
from tests.support.databases import committed, isolated, on_each_database, paused_before_writing
from tests.support.fenced_rows import LATE, create, have_lost, lock_of, stored, taken_over
from tests.support.holders import holding

pytestmark = committed


@on_each_database
def test_save_sets_the_fence_in_the_one_statement_that_asks_for_it(alias: str) -> None:
    """Nothing can come in between."""
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
    """And the next one after it."""
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
    """The error names the object and has the lease, which is known to be lost from then on."""
    row = create(alias, model)
    model.objects.using(alias).update(fence=LATE)
    row.amount = 13
    with lock_of(row) as lease:
        with pytest.raises(LockLost, match=rf"{row._meta.label} with pk {row.pk} .*{LATE}") as lost:
            row.save(lease=lease, update_fields=update_fields)
    assert lost.value.lease is lease
    assert lease.lost
    assert row.fence == 0
    assert (stored(row).amount, stored(row).fence) == (0, LATE)


@on_each_database
def test_taken_over_holder_is_refused_by_the_row(alias: str) -> None:
    """Though nobody told it, and its own check passes."""
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
    """What was written to the first one is taken back."""
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
    """Each object has its own."""
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
    """Whenever the row was written later."""
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
def test_lease_that_is_have_lost_writes_nothing(alias: str) -> None:
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
    """Its token can't be compared with the row's."""
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
    """Not every store gives one."""
    invoice = create("default")
    with lock_of(invoice) as lease:
        with mock.patch.object(lease, "token", None):
            for write in (invoice.save, invoice.delete):
                with pytest.raises(ValueError, match="no token"):
                    write(lease=lease)
            with pytest.raises(ValueError, match="no token"):
                Invoice.objects.fenced(lease)


# Without a lease


@on_each_database
@pytest.mark.parametrize("model", [Invoice, DunnedInvoice])
def test_save_without_a_lease_leaves_the_fence_alone(alias: str, model: type[Any]) -> None:
    """What is in memory may be older than the row."""
    row = create(alias, model)
    model.objects.using(alias).update(fence=LATE)
    row.amount = 13
    row.save()
    assert (stored(row).amount, stored(row).fence, row.fence) == (13, LATE, 0)
    row.save(update_fields=["fence"])
    assert stored(row).fence == LATE


@on_each_database
def test_loaded_fixture_leaves_the_fence_alone(alias: str) -> None:
    """It is older than the row, too; what isn't there it brings along."""
    invoice = create(alias)
    fixture = serializers.serialize("json", [invoice])
    with lock_of(invoice) as lease:
        invoice.save(lease=lease)
    (loaded,) = serializers.deserialize("json", fixture, using=alias)
    loaded.save(using=alias)
    assert stored(invoice).fence == lease.token


@on_each_database
def test_migrations_save_leaves_the_fence_alone(alias: str) -> None:
    """Though its model is not a FencedModel."""
    invoice = create(alias)
    historical = ProjectState.from_apps(Invoice._meta.apps).apps.get_model("app", "Invoice")
    old = historical._default_manager.using(alias).get()
    Invoice.objects.using(alias).update(fence=LATE)
    old.amount = 13
    old.save()
    assert (stored(invoice).amount, stored(invoice).fence) == (13, LATE)
    new = historical(amount=1, fence=5)
    new.save(using=alias)
    assert Invoice.objects.using(alias).get(amount=1).fence == 5


# What Django's save() can do


@on_each_database
def test_deferred_fence_is_set_too(alias: str) -> None:
    """An object needn't have it in memory."""
    pk = create(alias).pk
    rows = Invoice.objects.using(alias)
    invoice = rows.only("customer", "amount").get(pk=pk)
    with lock_of(invoice) as lease:
        invoice.amount = 13
        invoice.save(lease=lease)
    assert (stored(invoice).amount, stored(invoice).fence) == (13, lease.token)
    assert invoice.fence == lease.token
    rows.update(fence=LATE)
    invoice = rows.only("customer", "amount").get(pk=pk)
    with lock_of(invoice) as lease, pytest.raises(LockLost):
        invoice.save(lease=lease)
    assert "fence" in invoice.get_deferred_fields()


@on_each_database
def test_update_fields_gets_the_fence(alias: str, receivers: Callable[..., None]) -> None:
    """Who listens is told; an empty one writes nothing, as ever."""
    invoice = create(alias)
    told = []
    receivers(post_save, lambda update_fields, **kwargs: told.append(update_fields))
    with lock_of(invoice) as lease:
        invoice.save(lease=lease, update_fields=[])
        assert (invoice.fence, stored(invoice).fence) == (0, 0)
        invoice.amount = 13
        invoice.save(lease=lease, update_fields=["customer"])
    assert told == [{"customer", "fence"}]
    assert (stored(invoice).amount, stored(invoice).fence) == (0, lease.token)


@on_each_database
def test_receivers_save_and_pickle_what_is_being_saved(
    alias: str, receivers: Callable[..., None]
) -> None:
    """Their own save is without the lease, and the lease is not in the pickle."""
    invoice, pickled = create(alias), []

    def receive(instance: Invoice, **kwargs: Any) -> None:
        pickled.append(pickle.dumps(instance))
        if instance.amount < 15:
            instance.amount += 1
            Invoice.objects.using(alias).update(fence=LATE)
            instance.save()
            Invoice.objects.using(alias).update(fence=0)

    receivers(pre_save, receive)
    with lock_of(invoice) as lease:
        invoice.amount = 13
        invoice.save(lease=lease)
    assert len(pickled) == 3
    assert (stored(invoice).amount, stored(invoice).fence) == (15, lease.token)


@on_each_database
@pytest.mark.parametrize("fields", [None, "fence"])
@pytest.mark.parametrize("model", [Invoice, DunnedInvoice, Parcel])
def test_row_that_is_gone_is_not_inserted_again(
    alias: str, model: type[Any], fields: str | None
) -> None:
    """Its lease was for what is not there any more."""
    row = Parcel.objects.using(alias).create() if model is Parcel else create(alias, model)
    model.objects.using(alias).all().delete()
    with lock_of(row) as lease:
        with pytest.raises(DatabaseError, match=r"not there any more|did not affect any rows"):
            row.save(lease=lease, update_fields=fields and [fields])
        assert lease.held
    assert row.fence == 0
    assert not model.objects.using(alias).exists()


@on_each_database
def test_insert_under_a_lease_begins_with_its_token(alias: str) -> None:
    """There is no fence yet that could refuse it; of a row that is there, there is."""
    customer = Customer.objects.using(alias).create(name="Ada")
    with holding(alias, f"{customer.pk}collectPayment") as lease:
        invoice = Invoice(customer=customer)
        invoice.save(using=alias, lease=lease)
        assert invoice.fence == stored(invoice).fence == lease.token
        child = DunnedInvoice(customer=customer)
        child.save(using=alias, lease=lease, force_insert=True)
        assert child.fence == stored(child).fence == lease.token
        copy = stored(invoice)
        copy.pk, copy.fence = None, 0
        copy.save(lease=lease)
        assert copy.pk != invoice.pk
        assert stored(copy).fence == lease.token
        Invoice.objects.using(alias).update(fence=LATE)
        with pytest.raises(LockLost):
            Invoice(pk=invoice.pk, customer=customer).save(using=alias, lease=lease)
    with holding(alias, "99:send") as lease:
        parcel = Parcel(pk=99)
        parcel.save(using=alias, lease=lease)
        assert parcel.fence == stored(parcel).fence == lease.token


# What fails


@on_each_database
def test_save_that_fails_leaves_the_object_as_it_was(
    alias: str, receivers: Callable[..., None]
) -> None:
    """Whatever stops it, and after whichever statement."""

    def interrupt(**kwargs: Any) -> None:
        raise Interrupted

    invoice = create(alias)
    receivers(post_save, interrupt)
    with lock_of(invoice) as lease, pytest.raises(Interrupted), transaction.atomic(using=alias):
        invoice.save(lease=lease)
    assert invoice.fence == stored(invoice).fence == 0


@on_each_database
def test_refused_save_rolls_its_transaction_back(alias: str) -> None:
    """And with a savepoint, that far."""
    invoice = create(alias)
    Invoice.objects.using(alias).update(fence=LATE)
    with lock_of(invoice) as lease, pytest.raises(LockLost), transaction.atomic(using=alias):
        Payment.objects.using(alias).create(invoice=invoice)
        invoice.save(lease=lease)
    assert not Payment.objects.using(alias).exists()
    with lock_of(invoice) as lease, transaction.atomic(using=alias):
        Payment.objects.using(alias).create(invoice=invoice)
        with pytest.raises(LockLost), transaction.atomic(using=alias):
            invoice.save(lease=lease)
    assert Payment.objects.using(alias).exists()


@on_each_database
@pytest.mark.parametrize("model", [Invoice, DunnedInvoice])
def test_save_with_a_lost_lease_rolls_its_transaction_back(alias: str, model: type[Any]) -> None:
    """Though nothing was sent, and though the error is caught."""
    invoice = create(alias, model)
    with lock_of(invoice) as lease:
        have_lost(lease)
        with transaction.atomic(using=alias):
            Payment.objects.using(alias).create(invoice_id=invoice.pk)
            with pytest.raises(LockLost):
                invoice.save(lease=lease)
    assert not Payment.objects.using(alias).exists()


@on_each_database
def test_rolled_back_save_leaves_the_rows_fence(alias: str) -> None:
    """It is part of the transaction."""
    invoice = create(alias)
    with lock_of(invoice) as lease:
        with pytest.raises(ZeroDivisionError), transaction.atomic(using=alias):
            invoice.save(lease=lease)
            raise ZeroDivisionError
    assert stored(invoice).fence == 0


@on_each_database
def test_view_whose_write_is_refused_answers_503(alias: str) -> None:
    """Its own lease is what it gets when it acquires the lock once more."""
    invoice = create(alias)
    semaphore = f"{invoice.customer_id}collectPayment"

    @distributed_lock(lambda request: semaphore, backend=alias, http=True)
    def view(request: HttpRequest) -> HttpResponse:
        with distributed_lock(semaphore, backend=alias, reentrant=True) as lease:
            Invoice.objects.using(alias).update(fence=LATE)
            invoice.save(lease=lease)
        pytest.fail("It was written.")

    response = view(RequestFactory().get("/"))
    assert response.status_code == 503


@pytest.mark.parametrize("lease", ["1collectPayment", True, 5])
def test_what_is_no_lease_is_refused(lease: Any) -> None:
    """Its name is not enough; nothing is written."""
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
