"""Waiters in the queues of databases that notify nobody."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from django.db import connections

from django_distlock.leases.request import new_owner
from django_distlock.models import Lock, LockWaiter
from django_distlock.records import LeaseClaim, Released
from tests.support.holders import acquire

if TYPE_CHECKING:
    from django_distlock.backends.database import DatabaseBackend
    from django_distlock.leases.owned_lease import OwnedLease
    from django_distlock.records import Grant, Place, Refusal

NAME = "1234collectPayment"
MARIADB = pytest.param("mariadb", marks=pytest.mark.needs("mariadb"))
MYSQL = pytest.param("mysql", marks=pytest.mark.needs("mariadb"))
SQLITE = "default"
in_tables = pytest.mark.parametrize("store", [MARIADB, MYSQL], indirect=True)


class Waiter:
    """A waiter that looks at the queue when it is told to."""

    def __init__(self, store: DatabaseBackend) -> None:
        self.store, self.owner = store, new_owner()
        self.place: Place | None = store.join(NAME, self.owner, "by hand", lambda: None)
        assert self.place is not None

    def attempt(self) -> Grant | Refusal:
        """Look at the queue, and acquire the lock if it is this one's turn."""
        return self.store.acquire(NAME, self.owner, 60, "by hand")

    def release(self) -> Released:
        """Release the lock."""
        return self.store.release(LeaseClaim(NAME, self.owner, 60))

    def leave(self, *, granted: bool = False) -> None:
        """Leave the queue."""
        assert self.place is not None
        self.store.leave(self.place, granted)


def queue_of(store: DatabaseBackend) -> Path:
    """Return SQLite's file with the queue."""
    return Path(f"{connections[store.using].settings_dict['NAME']}-queue")


def waiters(store: DatabaseBackend) -> int:
    """Return how many have a place in the queue."""
    if store.alias == SQLITE:
        with suppress(FileNotFoundError, ValueError):  # or it is written right now
            return len(json.loads(queue_of(store).read_text()))
        return 0
    return LockWaiter.objects.using(store.using).count()


def is_reserved(store: DatabaseBackend) -> bool:
    """Return whether the lock is for those in the queue."""
    if store.alias == SQLITE:
        return queue_of(store).exists()
    return Lock.objects.using(store.using).filter(queued_until__isnull=False).exists()


def held(store: DatabaseBackend, **terms: float) -> OwnedLease:
    """Return a lease on the lock."""
    return acquire(store.alias, NAME, **terms)


def deadlocks(store: DatabaseBackend) -> int:
    """Return how many deadlocks the server has counted; SQLite has none."""
    if store.alias == SQLITE:
        return 0
    with connections[store.using].cursor() as cursor:
        cursor.execute("SHOW GLOBAL STATUS LIKE 'Innodb_deadlocks'")
        return int(cursor.fetchone()[1])
