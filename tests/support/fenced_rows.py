"""Rows that have a fence, and the locks that they belong to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from unittest import mock

from django_distlock.semaphores import SemaphoreTemplate
from tests.app.models import Customer, Invoice
from tests.support.holders import holding

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from django_distlock import Lease

LATE = 2**62  # a token of a holder that comes long after all others


def create(alias: str, model: type[Any] = Invoice, name: str = "Ada", **values: Any) -> Any:
    """Create a row for a customer of its own."""
    customer = Customer.objects.using(alias).create(name=name)
    return model.objects.using(alias).create(customer=customer, **values)


def lock_of(row: Any, **arguments: Any) -> AbstractContextManager[Lease]:
    """Hold the row's lock."""
    template = row._meta.get_field("fence").template
    return holding(row._state.db, template.render_for(row), **arguments)


def stored(row: Any) -> Any:
    """Read the row as it is in the database now."""
    return type(row).objects.using(row._state.db).get(pk=row.pk)


def another_template(text: str, model: type[Any] = Invoice) -> Any:
    """Let the model's rows belong to other locks."""
    return mock.patch.object(model._meta.get_field("fence"), "template", SemaphoreTemplate(text))
