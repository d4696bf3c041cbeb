"""Rows that have a fence, and the locks that they belong to."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any
from unittest import mock

from django_distlock import LockLost
from django_distlock.semaphores.templates import SemaphoreTemplate
from tests.app.models import Customer, Invoice
from tests.support.concurrency import elsewhere
from tests.support.holders import acquire, holding, take_away
from tests.support.leases import internals

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from django.db import models

    from django_distlock import Lease

LATE = 2**62  # a token of a much later holder


def create(alias: str, model: type[Any] = Invoice, name: str = "Ada", **values: Any) -> Any:
    """Create a row for a new customer."""
    customer = Customer.objects.using(alias).create(name=name)
    return model.objects.using(alias).create(customer=customer, **values)


def create_two(alias: str, model: type[Any] = Invoice) -> tuple[Any, Any]:
    """Create two rows of one customer."""
    first = create(alias, model, amount=1)
    return first, model.objects.using(alias).create(customer_id=first.customer_id, amount=2)


def lock_of(row: Any, **arguments: Any) -> AbstractContextManager[Lease]:
    """Hold the row's lock."""
    return holding(row._state.db, semaphore_of(row), **arguments)


def semaphore_of(row: Any) -> str:
    """Return the semaphore that the row belongs to."""
    semaphore: str = row._meta.get_field("fence").template.render_for(row)
    return semaphore


def taken_over(row: Any, semaphore: str | None = None) -> Lease:
    """Return the lease of a holder that doesn't know that its lock was force-released.

    Release it at the end: until then it counts as held here.
    """
    lease = elsewhere(lambda: acquire(row._state.db, semaphore or semaphore_of(row), renew=False))
    take_away(lease)
    assert lease.held
    return lease


def have_lost(lease: Lease) -> None:
    """Force the release of the lease's lock, and notice the loss."""
    take_away(lease)
    with suppress(LockLost):
        lease.renew()
    assert internals(lease).lost


def stored(row: Any) -> Any:
    """Read the row as it is in the database now."""
    return type(row).objects.using(row._state.db).get(pk=row.pk)


def written(alias: str) -> list[tuple[int, int]]:
    """Return the invoices' values, in order of creation."""
    return list(Invoice.objects.using(alias).order_by("pk").values_list("amount", "fence"))


def another_template(text: str, model: type[Any] = Invoice) -> Any:
    """Give the model another template in the block."""
    return mock.patch.object(model._meta.get_field("fence"), "template", SemaphoreTemplate(text))


def move(row: Any, customer: Customer) -> None:
    """Move the row to another customer, and so to another lock."""
    rows = Invoice.objects.using(row._state.db).filter(pk=row.pk)
    assert rows.update(customer=customer, fence=0, amount=100) == 1


def problems(model: type[models.Model]) -> list[tuple[str | None, str]]:
    """Return the system check's messages about the model."""
    return [(each.id, each.msg) for each in model.check(databases=None)]
