"""Rows of the table of locks, and the clock that decides their states."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from unittest import mock

from django.db import connections
from model_bakery import baker

from django_distlock import clocks
from django_distlock.fields import to_microseconds
from django_distlock.models import Lock

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
TICK = timedelta(microseconds=1)
HOUR = timedelta(hours=1)


def make_lock(alias: str, semaphore: str, **values: Any) -> Lock:
    """Write a lock's row; without an owner it is released."""
    lock: Lock = baker.make(Lock, _using=alias, semaphore=semaphore, **values)
    return lock


def semaphores_of(locks: Iterable[Lock]) -> list[str]:
    """Return the locks' semaphores, in order."""
    return [lock.semaphore for lock in locks]


@contextmanager
def clock_at(alias: str, moment: datetime) -> Iterator[None]:
    """Stop the database's clock."""
    vendor = connections[alias].vendor
    with mock.patch.dict(clocks.NOW, {vendor: str(to_microseconds(moment))}):
        yield
