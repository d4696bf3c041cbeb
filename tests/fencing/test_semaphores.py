"""Which lock a row belongs to, by the values of its fields and of other tables."""

from __future__ import annotations

import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING
from unittest import mock

import pytest
from django.db import DatabaseError, connections, models
from django.test.utils import CaptureQueriesContext, isolate_apps

from django_distlock import LockLost
from django_distlock.fencing import FencedModel, FenceField
from tests.app.models import Customer, Greeting, Invoice, Parcel
from tests.support.databases import committed, on_each_database
from tests.support.fenced_rows import (
    LATE,
    another_template,
    create,
    lock_of,
    move,
    problems,
    stored,
)
from tests.support.holders import holding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from django_distlock import Lease

pytestmark = committed


@contextmanager
def table_of(model: type[models.Model], alias: str) -> Iterator[None]:
    """Create the model's table for the block."""
    with connections[alias].schema_editor() as editor:
        editor.create_model(model)
    try:
        yield
    finally:
        with connections[alias].schema_editor() as editor:
            editor.delete_model(model)


def test_value_none_makes_no_semaphore() -> None:
    """Neither a missing customer nor the key of an unsaved object."""
    with holding("default", "Nonecollect") as lease:
        for row in (Invoice(), Parcel()):
            with pytest.raises(TypeError, match="is None"):
                row.save(lease=lease)


def test_number_that_is_written_otherwise_is_another_lock() -> None:
    """The row's own number has one spelling."""
    row = create("default")
    row.customer_id = f"0{row.customer_id}"
    with lock_of(row) as lease:
        for write in (row.save, row.delete):
            with pytest.raises(ValueError, match=r"No app\.Invoice belongs to '0"):
                write(lease=lease)


@on_each_database
def test_property_is_read_from_the_object(alias: str) -> None:
    """The row is compared by the template's other placeholders only."""
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


# Texts


@on_each_database
def test_text_of_a_row_is_compared_byte_by_byte(alias: str) -> None:
    """Case and blanks count in semaphores, even if a column ignores them."""
    with another_template("<customer.name>:<sent>", Greeting):
        for name, other in (("Ada", "ada"), ("Ada", "Ada "), ("a%", "a")):
            row = create(alias, Greeting, name=name)
            with lock_of(row) as lease:
                row.save(lease=lease)
                Customer.objects.using(alias).filter(pk=row.customer_id).update(name=other)
                with pytest.raises(ValueError, match="The row of"):
                    row.save(lease=lease)


@isolate_apps("tests.app")
@on_each_database
def test_text_in_the_rows_own_table_is_compared_byte_by_byte(alias: str) -> None:
    """In the statement that writes."""

    class Named(FencedModel):
        name = models.CharField(max_length=9)
        fence = FenceField("<name>:greet")

        class Meta:
            app_label = "app"

    with table_of(Named, alias):
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


# Values in another table


@on_each_database
@pytest.mark.parametrize("write", ["save", "save of a field", "delete"])
def test_lock_that_is_made_of_another_table_is_asked_for_as_well(alias: str, write: str) -> None:
    """The row is claimed first; then its semaphore is read."""
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
    """There is no row to claim yet."""
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
    """Otherwise the row's lock would be the changed object's."""
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


# Typed placeholders


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
    """Like a row without a value, it can't be written under any lease."""
    with another_template("<slug:customer.name>:greet", Greeting):
        greeting, other = create(alias, Greeting, "ada"), create(alias, Greeting, "Ada L")
        with lock_of(greeting) as lease:
            greeting.save(lease=lease)
            assert stored(greeting).fence == lease.token
            with pytest.raises(ValueError, match=f"pk {other.pk} belongs to None"):
                Greeting.objects.using(alias).fenced(lease).update(sent=1)
            with pytest.raises(ValueError, match=r"customer\.name> is a text of 5 characters"):
                other.save(lease=lease)


@isolate_apps("tests.app")
@on_each_database
def test_typed_placeholder_of_a_uuid_is_its_fields(alias: str) -> None:
    """However the database stores it."""

    class Ticket(FencedModel):
        id = models.UUIDField(primary_key=True, default=uuid.uuid4)
        fence = FenceField("<uuid:pk>:punch")

        class Meta:
            app_label = "app"

    assert problems(Ticket) == []
    with table_of(Ticket, alias):
        row = Ticket.objects.using(alias).create()
        with lock_of(row) as lease:
            assert lease.semaphore == f"{row.pk}:punch"
            row.save(lease=lease)
            assert Ticket.objects.using(alias).fenced(lease).delete()[0] == 1
