"""A row knows the token of its last writer, and takes no write of an earlier one."""

import pickle
import uuid
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import pytest
from django.core import serializers
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, connections, models, transaction
from django.db.migrations.state import ProjectState
from django.db.models.signals import post_save, pre_save
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory
from django.test.utils import CaptureQueriesContext, isolate_apps

from django_distlock import Lease, LockLost, distributed_lock
from django_distlock.fencing import FencedModel, FenceField
from tests.app.models import (
    Customer,
    DunnedInvoice,
    Greeting,
    Invoice,
    InvoiceOnScreen,
    Parcel,
    Payment,
)
from tests.support.concurrency import Interrupted, elsewhere
from tests.support.databases import committed, isolated, on_each_database, paused_before_writing
from tests.support.fenced_rows import (
    LATE,
    another_template,
    create,
    known_to_be_lost,
    lock_of,
    stored,
    taken_over,
)
from tests.support.holders import holding, take_away

pytestmark = committed


@pytest.fixture
def receivers() -> Iterator[Callable[..., None]]:
    """Connect what is called until the test ends."""
    connected: list[tuple[Any, Any]] = []

    def connect(signal: Any, receiver: Any) -> None:
        signal.connect(receiver, weak=False)
        connected.append((signal, receiver))

    yield connect
    for signal, receiver in connected:
        signal.disconnect(receiver)


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
def test_lease_that_is_known_to_be_lost_writes_nothing(alias: str) -> None:
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
def test_rolled_back_save_leaves_the_rows_fence(alias: str) -> None:
    """It is part of the transaction."""
    invoice = create(alias)
    with lock_of(invoice) as lease:
        with pytest.raises(ZeroDivisionError), transaction.atomic(using=alias):
            invoice.save(lease=lease)
            raise ZeroDivisionError
    assert stored(invoice).fence == 0


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
@pytest.mark.parametrize("model", [Invoice, DunnedInvoice])
def test_save_with_a_lost_lease_rolls_its_transaction_back(alias: str, model: type[Any]) -> None:
    """Though nothing was sent, and though the error is caught."""
    invoice = create(alias, model)
    with lock_of(invoice) as lease:
        known_to_be_lost(lease)
        with transaction.atomic(using=alias):
            Payment.objects.using(alias).create(invoice_id=invoice.pk)
            with pytest.raises(LockLost):
                invoice.save(lease=lease)
    assert not Payment.objects.using(alias).exists()


def move(row: Any, customer: Customer, fence: int | None = 0) -> None:
    """Let the row belong to another customer, and so to another lock."""
    rows = Invoice.objects.using(row._state.db).filter(pk=row.pk)
    assert rows.update(customer=customer, fence=fence, amount=100) == 1


@on_each_database
@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("write", ["save", "save of a field", "delete"])
@pytest.mark.parametrize("model", [Invoice, DunnedInvoice, InvoiceOnScreen])
def test_row_that_belongs_to_another_lock_by_now_is_not_written(
    alias: str, model: type[Any], write: str, late: bool
) -> None:
    """Whatever its fence says, and however late it was moved."""
    row = create(alias, model)
    other = Customer.objects.using(alias).create(name="Bob")
    row.amount = 13
    with lock_of(row) as lease:
        writes: dict[str, Callable[[], object]] = {
            "save": lambda: row.save(lease=lease),
            "save of a field": lambda: row.save(lease=lease, update_fields=["amount"]),
            "delete": lambda: row.delete(lease=lease),
        }
        mine, others = f"{row.customer_id}collectPayment", f"{other.pk}collectPayment"
        message = f"The row of {row._meta.label} with pk {row.pk} .*'{others}'.*'{mine}'"
        with pytest.raises(ValueError, match=message):
            if late:
                with paused_before_writing(alias, lambda: move(row, other)):
                    writes[write]()
            else:
                move(row, other)
                writes[write]()
        assert lease.held
    now = stored(row)
    assert (now.customer_id, now.amount, now.fence, row.fence) == (other.pk, 100, 0, 0)


@on_each_database
@pytest.mark.parametrize("token", [0, LATE])
def test_object_that_was_moved_in_memory_is_not_written(alias: str, token: int) -> None:
    """Neither with a lease on the lock that the row belongs to, nor with one on the object's."""
    row = create(alias)
    Invoice.objects.using(alias).update(fence=token)
    other = Customer.objects.using(alias).create(name="Bob")
    with lock_of(row) as old:
        row.customer = other
        with lock_of(row) as new:
            with pytest.raises(ValueError, match=f"'{other.pk}collectPayment', but the lease is"):
                row.save(lease=old)
            for write in (row.save, row.delete):
                with pytest.raises(ValueError, match=f"The row of .* but .*'{other.pk}collectPay"):
                    write(lease=new)
    assert stored(row).customer_id != other.pk
    assert stored(row).fence == token


@on_each_database
def test_receiver_does_not_move_the_row(alias: str, receivers: Callable[..., None]) -> None:
    """The object was another lock's when save() began."""
    row = create(alias)
    other = Customer.objects.using(alias).create(name="Bob")

    def receive(instance: Invoice, **kwargs: Any) -> None:
        instance.customer = other

    receivers(pre_save, receive)
    with lock_of(row) as lease, pytest.raises(ValueError, match="but the lease is on"):
        row.save(lease=lease)
    assert stored(row).customer_id != other.pk
    assert stored(row).fence == 0


@on_each_database
def test_moved_row_refuses_every_lease_but_its_new_holders(alias: str) -> None:
    """As the documentation says how to move it."""
    row = create(alias)
    stale = stored(row)
    other = Customer.objects.using(alias).create(name="Bob")
    outdated = taken_over(row, f"{other.pk}collectPayment")
    with lock_of(row) as old, holding(alias, f"{other.pk}collectPayment") as new:
        rows = Invoice.objects.using(alias).filter(pk=row.pk, customer=row.customer)
        assert rows.filter(fence__lte=old.token).update(customer=other, fence=new.token) == 1
        with pytest.raises(ValueError, match="The row of"):
            stale.save(lease=old)
        moved = stored(row)
        with pytest.raises(LockLost):
            moved.save(lease=outdated)
        moved.amount = 13
        moved.save(lease=new)
    outdated.release()
    with lock_of(moved) as next_one:
        moved.save(lease=next_one)
    assert (stored(row).amount, stored(row).fence) == (13, next_one.token)


@on_each_database
@pytest.mark.parametrize("write", ["save", "save of a field", "delete"])
def test_lock_that_is_made_of_another_table_is_asked_for_as_well(alias: str, write: str) -> None:
    """The row is claimed first; only then is it known whose it is."""
    row = create(alias, Greeting)
    other = Customer.objects.using(alias).create(name="ada")
    row.sent = 13
    writes: dict[str, Callable[[Lease], object]] = {
        "save": lambda lease: row.save(lease=lease),
        "save of a field": lambda lease: row.save(lease=lease, update_fields=["sent"]),
        "delete": lambda lease: row.delete(lease=lease),
    }
    rows = Greeting.objects.using(alias)
    with lock_of(row) as lease:
        for customer, found in ((other, "'ada:greet'"), (None, "None")):
            rows.update(customer=customer)
            with pytest.raises(ValueError, match=f"belongs to {found}.*'Ada:greet'"):
                writes[write](lease)
        assert lease.held
        assert list(rows.values_list("sent", "fence")) == [(0, 0)]
        rows.update(customer=row.customer)
        row.save(lease=lease, update_fields=[])
        assert stored(row).fence == 0
        writes[write](lease)
        assert list(rows.values_list("sent", "fence")) in ([], [(13, lease.token)])
    row = create(alias, Greeting)
    rows.update(fence=LATE)
    with lock_of(row) as lease, pytest.raises(LockLost):
        writes[write](lease)


@on_each_database
def test_insert_under_a_lock_that_is_made_of_another_table(alias: str) -> None:
    """There is nothing to be claimed."""
    customer = Customer.objects.using(alias).create(name="Ada")
    with holding(alias, "Ada:greet") as lease:
        greeting = Greeting(customer=customer)
        greeting.save(using=alias, lease=lease)
        assert greeting.fence == stored(greeting).fence == lease.token
        Greeting.objects.using(alias).all().delete()
        with pytest.raises(DatabaseError, match="not there any more"):
            greeting.save(lease=lease)


@on_each_database
def test_lock_that_is_made_of_the_parents_table_is_asked_for_before_that_is_written(
    alias: str,
) -> None:
    """Or else the row would belong to whatever the object does."""
    with another_template("<value>:send", Parcel):
        parcel = Parcel.objects.using(alias).create(value=1, weight=2)
        with lock_of(parcel) as lease:
            Parcel.objects.using(alias).update(value=3)
            with pytest.raises(ValueError, match=r"belongs to '3:send'.*'1:send'"):
                parcel.save(lease=lease)
            assert (stored(parcel).value, stored(parcel).fence) == (3, 0)
            Parcel.objects.using(alias).update(value=1)
            parcel.save(lease=lease)
    assert stored(parcel).fence == lease.token


@on_each_database
def test_text_of_a_row_is_compared_byte_by_byte(alias: str) -> None:
    """Locks are particular about case and blanks, where a column is not."""
    with another_template("<customer.name>:<sent>", Greeting):
        for name, other in (("Ada", "ada"), ("Ada", "Ada "), ("a%", "a")):
            row = create(alias, Greeting, name=name)
            with lock_of(row) as lease:
                row.save(lease=lease)
                Customer.objects.using(alias).filter(pk=row.customer_id).update(name=other)
                with pytest.raises(ValueError, match="The row of"):
                    row.save(lease=lease)


@on_each_database
def test_property_is_taken_at_the_objects_word(alias: str) -> None:
    """No row can be asked for it; but for the rest of the template it is."""
    row = create(alias)
    other = Customer.objects.using(alias).create(name="Bob")
    with (
        mock.patch.object(Invoice, "owner", "A da", create=True),
        another_template("<owner>:<customer_id>"),
        lock_of(row) as lease,
    ):
        row.save(lease=lease)
        assert stored(row).fence == lease.token
        move(row, other)
        with pytest.raises(ValueError, match=f"belongs to 'A%20da:{other.pk}'"):
            row.save(lease=lease)


def test_number_that_is_written_otherwise_is_another_lock() -> None:
    """The row's own number has one way to be written."""
    row = create("default")
    row.customer_id = f"0{row.customer_id}"
    with lock_of(row) as lease:
        for write in (row.save, row.delete):
            with pytest.raises(ValueError, match=r"No app\.Invoice belongs to '0"):
                write(lease=lease)


@on_each_database
@pytest.mark.parametrize("model", [Invoice, DunnedInvoice, InvoiceOnScreen])
def test_delete_takes_along_what_depends_on_the_row(alias: str, model: type[Any]) -> None:
    """As ever."""
    row = create(alias, model)
    Payment.objects.using(alias).create(invoice_id=row.pk)
    with lock_of(row) as lease:
        deleted, _ = row.delete(lease=lease)
    assert deleted >= 2
    assert not Payment.objects.using(alias).exists()
    assert not Invoice.objects.using(alias).exists()


@on_each_database
@pytest.mark.parametrize("model", [Invoice, DunnedInvoice])
def test_outdated_delete_changes_nothing(alias: str, model: type[Any]) -> None:
    """Neither the row nor what depends on it."""
    row = create(alias, model)
    Payment.objects.using(alias).create(invoice_id=row.pk)
    model.objects.using(alias).update(fence=LATE)
    with lock_of(row) as lease, pytest.raises(LockLost, match=f"with pk {row.pk} ") as lost:
        row.delete(lease=lease)
    assert lost.value.lease is lease
    assert stored(row).fence == LATE
    assert Payment.objects.using(alias).exists()


@on_each_database
def test_delete_of_what_is_gone_is_as_ever(alias: str) -> None:
    """Nothing is deleted, and nobody minds; what was never saved is Django's error."""
    invoice = create(alias)
    with lock_of(invoice) as lease:
        stored(invoice).delete()
        assert invoice.delete(lease=lease) == (0, {})
        with pytest.raises(ValueError, match="can't be deleted"):
            Invoice(customer_id=invoice.customer_id).delete(lease=lease)


@on_each_database
def test_taken_over_holder_is_refused_by_the_row(alias: str) -> None:
    """Though nobody told it, and its own check passes."""
    invoice = create(alias)
    stale = stored(invoice)

    def write_later() -> int | None:
        with lock_of(invoice) as later:
            invoice.amount = 13
            invoice.save(lease=later)
            return later.token

    with lock_of(invoice) as lease:
        take_away(lease)
        token = elsewhere(write_later)
        lease.check()
        stale.amount = 14
        with pytest.raises(LockLost, match="a later holder of"):
            stale.save(lease=lease)
    assert (stored(invoice).amount, stored(invoice).fence) == (13, token)


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


def test_value_none_makes_no_semaphore() -> None:
    """Neither a customer that isn't there nor a key that isn't known yet."""
    with holding("default", "Nonecollect") as lease:
        for row in (Invoice(), Parcel()):
            with pytest.raises(TypeError, match="is None"):
                row.save(lease=lease)


def lease_of_nothing() -> Lease:
    """Return what no check of a model looks at."""
    return mock.Mock(spec=Lease)


@isolate_apps("tests.app")
def test_field_keeps_its_template_in_migrations() -> None:
    """And what can't be otherwise it does not write down."""
    field = FenceField("<pk>a", "fence", db_column="b")
    name, path, args, kwargs = field.deconstruct()
    assert path == "django_distlock.fencing.FenceField"
    assert (name, args) == (None, [])
    assert kwargs == {"semaphore": "<pk>a", "verbose_name": "fence", "db_column": "b"}
    assert field.clone().deconstruct() == field.deconstruct()
    for fixed in ({"default": 1}, {"null": True}, {"editable": True}):
        with pytest.raises(TypeError, match="can't be chosen"):
            FenceField("<pk>a", **fixed)


@pytest.mark.parametrize("template", ["<a><b>", "<a", "<1>"])
def test_malformed_template_raises_where_it_is_written(template: str) -> None:
    """Not at the first write."""
    with pytest.raises(ValueError, match="Template"):
        FenceField(template)


@on_each_database
def test_another_template_alters_no_table(alias: str) -> None:
    """The column is the same."""
    new = FenceField("<pk>another")
    new.set_attributes_from_name("fence")
    new.model = Invoice
    with connections[alias].schema_editor(collect_sql=True) as editor:
        editor.alter_field(Invoice, Invoice._meta.get_field("fence"), new)
    assert editor.collected_sql == []


def problems(model: type[models.Model]) -> list[tuple[str | None, str]]:
    """Return what the system check says of the model."""
    return [(each.id, each.msg) for each in model.check(databases=None)]


@isolate_apps("tests.app")
def test_model_has_one_fence() -> None:
    """Neither none nor two; and only a FencedModel has one."""

    class NoFence(FencedModel):
        class Meta:
            app_label = "app"

    class TwoFences(FencedModel):
        one = FenceField("<pk>one")
        two = FenceField("<pk>two")

        class Meta:
            app_label = "app"

    class Unfenced(models.Model):
        fence = FenceField("<pk>one")

        class Meta:
            app_label = "app"

    assert problems(NoFence) == [
        ("distlock.E002", "app.NoFence has 0 FenceFields, but a fenced model has one.")
    ]
    assert problems(TwoFences)[0][1].startswith("app.TwoFences has 2 FenceFields")
    ((id_, text),) = problems(Unfenced)
    assert (id_, text.partition(",")[0]) == ("distlock.E002", "app.Unfenced has a FenceField")
    with pytest.raises(ImproperlyConfigured, match="0 FenceFields"):
        NoFence(pk=1).save(lease=lease_of_nothing())


@isolate_apps("tests.app")
@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("<pk>", None),
        ("<number>", None),
        ("<customer_id>", None),
        ("<customer.pk>", None),
        ("<customer.name>", None),
        ("<label>", None),
        ("<customer.name.title>", None),
        ("<nobody>", "app.Fenced has no 'nobody'."),
        ("<customer.nobody>", "app.Customer has no 'nobody'."),
        ("<customer>", "<customer> is a whole object; write <customer.pk>."),
        ("<int:pk>", None),
        ("<int:number>", None),
        ("<int:customer_id>", None),
        ("<int:customer.pk>", None),
        ("<int:label>", None),
        ("<slug:customer.name>", None),
        ("<str:customer.name>", None),
        ("<str:number>", None),
        (
            "<int:customer.name>",
            "<int:customer.name> is for another field than a CharField; write <customer.name>.",
        ),
        (
            "<uuid:number>",
            "<uuid:number> is for another field than a IntegerField; write <number>.",
        ),
        (
            "<slug:customer_id>",
            "<slug:customer_id> is for another field than a BigAutoField; write <customer_id>.",
        ),
        ("<int:nobody>", "app.Fenced has no 'nobody'."),
        ("<int:customer>", "<customer> is a whole object; write <customer.pk>."),
    ],
)
def test_template_names_what_the_model_has(template: str, message: str | None) -> None:
    """Fields, properties, and those of related objects."""

    class Customer(models.Model):
        name = models.CharField(max_length=9)

        class Meta:
            app_label = "app"

    class Fenced(FencedModel):
        customer = models.ForeignKey(Customer, models.CASCADE)
        number = models.IntegerField()
        label = property(str)
        fence = FenceField(template)

        class Meta:
            app_label = "app"

    expected = [("distlock.E003", f"Template {template!r}: {message}")] if message else []
    assert problems(Fenced) == expected


def test_example_models_are_clean() -> None:
    """The check has nothing to say of those that the tests use."""
    for model in (Invoice, DunnedInvoice, InvoiceOnScreen, Parcel, Greeting):
        assert problems(model) == []


@isolate_apps("tests.app")
@on_each_database
def test_text_in_the_rows_own_table_is_compared_byte_by_byte(alias: str) -> None:
    """In the one statement."""

    class Named(FencedModel):
        name = models.CharField(max_length=9)
        fence = FenceField("<name>:greet")

        class Meta:
            app_label = "app"

    with connections[alias].schema_editor() as editor:
        editor.create_model(Named)
    try:
        row = Named.objects.using(alias).create(name="Ada")
        with lock_of(row) as lease:
            with CaptureQueriesContext(connections[alias]) as queries:
                row.save(lease=lease)
            assert len(queries) == 1
            for other in ("ada", "Ada "):
                Named.objects.using(alias).update(name=other)
                for write in (row.save, row.delete):
                    with pytest.raises(ValueError, match="The row of"):
                        write(lease=lease)
    finally:
        with connections[alias].schema_editor() as editor:
            editor.delete_model(Named)


@on_each_database
def test_typed_placeholder_of_a_number_is_its_fields(alias: str) -> None:
    """Rows are found by it, and the spelling in memory doesn't matter."""
    with another_template("<int:customer_id>collectPayment"):
        invoice = create(alias)
        other = create(alias)
        with lock_of(invoice) as lease:
            assert lease.semaphore == f"{invoice.customer_id}collectPayment"
            invoice.customer_id = f"0{invoice.customer_id}"
            invoice.save(lease=lease)
            assert stored(invoice).fence == lease.token
            rows = Invoice.objects.using(alias)
            assert rows.filter(pk=invoice.pk).fenced(lease).update(amount=13) == 1
            with pytest.raises(ValueError, match=f"pk {other.pk} belongs to"):
                rows.fenced(lease).update(amount=14)
        with (
            holding(alias, f"0{other.customer_id}collectPayment") as misspelled,
            pytest.raises(ValueError, match=r"No app\.Invoice belongs to"),
        ):
            Invoice.objects.using(alias).fenced(misspelled)


@on_each_database
def test_row_whose_value_the_placeholder_refuses_has_no_semaphore(alias: str) -> None:
    """As one without a value: it is nobody's to write under a lease."""
    with another_template("<slug:customer.name>:greet", Greeting):
        greeting, other = create(alias, Greeting, "ada"), create(alias, Greeting, "Ada L")
        with lock_of(greeting) as lease:
            greeting.save(lease=lease)
            assert stored(greeting).fence == lease.token
            with pytest.raises(ValueError, match=f"pk {other.pk} belongs to None"):
                Greeting.objects.using(alias).fenced(lease).update(sent=1)
            with pytest.raises(ValueError, match=r"<slug:customer\.name> is 'Ada L', but must"):
                other.save(lease=lease)


@isolate_apps("tests.app")
@on_each_database
def test_typed_placeholder_of_a_uuid_is_its_fields(alias: str) -> None:
    """In whatever way the database keeps it."""

    class Ticket(FencedModel):
        id = models.UUIDField(primary_key=True, default=uuid.uuid4)
        fence = FenceField("<uuid:pk>:punch")

        class Meta:
            app_label = "app"

    assert problems(Ticket) == []
    with connections[alias].schema_editor() as editor:
        editor.create_model(Ticket)
    try:
        row = Ticket.objects.using(alias).create()
        with lock_of(row) as lease:
            assert lease.semaphore == f"{row.pk}:punch"
            row.save(lease=lease)
            assert Ticket.objects.using(alias).fenced(lease).delete()[0] == 1
    finally:
        with connections[alias].schema_editor() as editor:
            editor.delete_model(Ticket)
