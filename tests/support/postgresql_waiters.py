"""Waiters for locks on PostgreSQL, and their notifications."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self

from django.db import connections

from django_distlock import acquire_lock, lock_backends
from django_distlock.backends.database import DatabaseBackend, backend, listening, queue
from django_distlock.backends.database.places import QueuedPlace, places
from django_distlock.leases.request import new_owner
from django_distlock.models import LockWaiter, WaitingProcess
from tests.support.concurrency import until

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from django_distlock import Lease

ALIAS = "postgresql"
SOON = 30.0
"""Seconds within which what takes one at most is done, on a busy machine."""
PAST = datetime(2020, 1, 1, tzinfo=UTC)
FUTURE = datetime(2100, 1, 1, tzinfo=UTC)


def let_offers_last(change: Callable[[Any, str, int], None] = setattr) -> None:
    """Keep offers from expiring, and processes from counting as dead, on a slow machine.

    It only affects statements that are made afterwards.
    """
    change(queue, "OFFER", 60_000_000)
    for module in (queue, backend):
        change(module, "ALIVE", 60_000_000)
    change(listening, "SWEPT", 300_000_000)


def store() -> DatabaseBackend:
    """Return the store."""
    found = lock_backends[ALIAS]
    assert isinstance(found, DatabaseBackend)
    return found


def current_listener() -> listening.Listener:
    """Return this process's listener."""
    return listening.listener(
        ALIAS, store().connections, DatabaseBackend.statements, store().store_timeout
    )


def waiters() -> int:
    """Return how many wait in the table."""
    return LockWaiter.objects.using(ALIAS).count()


def until_waiting(number: int) -> None:
    """Wait until so many wait in the table."""
    until(lambda: waiters() == number)


def until_heard() -> None:
    """Wait until this process receives notifications of offers."""
    until(lambda: current_listener().is_listening)


def another_waits(seen_at: datetime) -> None:
    """Add a waiter for the lock, whose process was last seen at that time."""
    WaitingProcess.objects.using(ALIAS).create(id=1, seen_at=seen_at)
    LockWaiter.objects.using(ALIAS).create(
        semaphore="1234collectPayment", owner=new_owner(), holder="another", process=1, number=1
    )


class Line:
    """Threads of this process that wait for the lock, in order."""

    def __init__(self) -> None:
        self.threads = ThreadPoolExecutor(10)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.threads.shutdown()

    def join(self, semaphore: str = "1234collectPayment", **arguments: Any) -> Future[Lease | None]:
        """Start another waiting thread; return once it knows its place."""
        before = set(places)

        def wait() -> Lease | None:
            try:
                return acquire_lock(semaphore, backend=ALIAS, **{"timeout": 2 * SOON} | arguments)
            finally:
                connections.close_all()

        waiting = self.threads.submit(wait)
        until(lambda: bool(set(places) - before))
        until_heard()
        return waiting


def granted(waiting: Future[Lease | None]) -> Lease:
    """Wait for the lease, which must be granted soon."""
    lease = waiting.result(SOON)
    assert lease is not None
    return lease


def wait_by_hand(semaphore: str = "1234collectPayment") -> tuple[QueuedPlace, str, threading.Event]:
    """Join the queue, without trying; return the place, the owner, and the wake-up event."""
    woken, owner = threading.Event(), new_owner()
    place = store().join(semaphore, owner, "by hand", woken.set)
    assert isinstance(place, QueuedPlace)
    until_heard()
    return place, owner, woken


def terminate(session: int) -> None:
    """End a session, and wait until it has ended."""
    with connections[ALIAS].cursor() as cursor:

        def ended() -> bool:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = %s", [session]
            )
            return not cursor.fetchall()

        until(ended)
