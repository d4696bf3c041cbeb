"""A row that was moved to another lock is not written under its former one."""

from collections.abc import Callable
from typing import Any

import pytest
from django.core.exceptions import FieldDoesNotExist
from django.db.models.signals import pre_save

from django_distlock import LockLost
from tests.app.models import Customer, DunnedInvoice, Greeting, Invoice, InvoiceOnScreen, Parcel
from tests.support.databases import committed, on_each_database, paused_before_writing
from tests.support.fenced_rows import (
    LATE,
    create,
    create_two,
    lock_of,
    move,
    stored,
    taken_over,
    written,
)
from tests.support.holders import holding

pytestmark = committed


@on_each_database
@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("write", ["save", "save of a field", "delete"])
@pytest.mark.parametrize("model", [Invoice, DunnedInvoice, InvoiceOnScreen])
def test_row_that_belongs_to_another_lock_by_now_is_not_written(
    alias: str, model: type[Any], write: str, late: bool
) -> None:
    """Whatever its fence, and however late it was moved."""
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
    """Neither under the row's lock nor under the lock of the changed object."""
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
    """The object belonged to another lock when save() began."""
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
    """The row is moved as documented."""
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
@pytest.mark.parametrize("model", [Invoice, InvoiceOnScreen, DunnedInvoice])
@pytest.mark.parametrize("move", ["customer", "customer_id", "bulk_update"])
def test_rows_are_not_moved_to_another_lock(alias: str, model: type[Any], move: str) -> None:
    """They would keep the token of another lock."""
    first, _ = create_two(alias, model)
    other = Customer.objects.using(alias).create(name="Bob")
    rows = model.objects.using(alias).filter(customer_id=first.customer_id)
    with lock_of(first) as lease:
        first.customer = other
        moves: dict[str, Callable[[], object]] = {
            "customer": lambda: rows.fenced(lease).update(amount=13, customer=other),
            "customer_id": lambda: rows.fenced(lease).update(customer_id=other.pk),
            "bulk_update": lambda: rows.fenced(lease).bulk_update([first], ["amount", "customer"]),
        }
        with pytest.raises(ValueError, match=r"customer(_id)? determines which lock"):
            moves[move]()
        assert lease.held
    assert rows.count() == 2
    assert written(alias) == [(1, 0), (2, 0)]


@on_each_database
def test_rows_of_other_templates_are_not_moved_either(alias: str) -> None:
    """Neither by a key nor by a relation; fields outside the template can be changed."""
    parcel = Parcel.objects.using(alias).create()
    greeting = create(alias, Greeting)
    with (
        lock_of(parcel) as lease,
        pytest.raises(ValueError, match="counter_ptr determines which lock"),
    ):
        Parcel.objects.using(alias).fenced(lease).update(counter_ptr=7)
    with lock_of(greeting) as lease:
        rows: Any = Greeting.objects.using(alias).fenced(lease)
        with pytest.raises(ValueError, match="customer determines which lock"):
            rows.update(customer=None)
        with pytest.raises(FieldDoesNotExist):
            rows.update(nothing=1)
    assert stored(greeting).customer_id == greeting.customer_id


@on_each_database
def test_row_that_is_moved_while_it_is_claimed_keeps_its_fence(alias: str) -> None:
    """The token is of the lock that the row no longer belongs to."""
    first, second = create_two(alias)
    other = Customer.objects.using(alias).create(name="Bob")
    moved = Invoice.objects.using(alias).filter(pk=second.pk)
    with lock_of(first) as lease:
        rows = Invoice.objects.using(alias).filter(customer_id=first.customer_id)
        with paused_before_writing(alias, lambda: moved.update(customer=other)):
            assert rows.fenced(lease).delete() == (1, {"app.Invoice": 1})
    assert (stored(second).customer_id, stored(second).fence) == (other.pk, 0)
