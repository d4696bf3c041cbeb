"""What is recorded of a lock: the events of this process, in memory until they are written."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from django.db import connections

from django_distlock.conf import lock_backends
from django_distlock.lease import Lease
from django_distlock.records import EventKind
from django_distlock.runtime import is_in_testcase
from django_distlock.signals import (
    lock_acquired,
    lock_contended,
    lock_force_released,
    lock_lost,
    lock_released,
)

from .databases import Place, database_to_write
from .writing import Event, write_at_exit, writer


@cache
def begin() -> None:
    """Record from now on what happens to the locks of stores with `events`."""
    write_at_exit()
    lock_acquired.record(harmless(record_acquisition))
    lock_released.record(harmless(record_release))
    lock_lost.record(harmless(record_loss))
    lock_contended.record(harmless(record_contention))
    lock_force_released.record(harmless(record_forced_release))


def harmless(record: Callable[..., None]) -> Callable[..., None]:
    """Return the function with its errors logged: a lock depends on none, such as a router's."""

    def record_if_possible(**arguments: Any) -> None:
        try:
            record(**arguments)
        except Exception as error:  # noqa: BLE001 - whatever it is, the lock goes on
            writer.warn("An event can't be recorded: %s", error)

    return record_if_possible


def record_acquisition(lease: Lease, waited: float, **_: Any) -> None:
    """See lock_acquired."""
    if place := place_to_write(lease.backend):
        _add(place, lease, EventKind.ACQUIRED, lease.acquired_at, waited=waited)


def record_release(lease: Lease, held_for: float, **_: Any) -> None:
    """See lock_released."""
    if place := place_to_write(lease.backend):
        _add(place, lease, EventKind.RELEASED, _end(lease, held_for), held=held_for)


def record_loss(lease: Lease, reason: str, held_for: float, **_: Any) -> None:
    """See lock_lost."""
    if place := place_to_write(lease.backend):
        _add(place, lease, EventKind.LOST, _end(lease, held_for), held=held_for, reason=reason)


def record_contention(
    semaphore: str,
    backend: str,
    waited: float,
    holder: str | None,
    reason: str,
    refused: str,
    **_: Any,
) -> None:
    """See lock_contended."""
    if place := place_to_write(backend):
        writer.add(
            Event(
                place,
                EventKind.CONTENDED,
                backend,
                semaphore,
                datetime.now(UTC),
                holder=refused,
                waited=waited,
                reason=reason or (f"held by {holder}" if holder else ""),
            )
        )


def record_forced_release(semaphore: str, backend: str, token: int, by: str) -> None:
    """See lock_force_released."""
    if place := place_to_write(backend):
        now = datetime.now(UTC)
        writer.add(Event(place, EventKind.FORCE_RELEASED, backend, semaphore, now, token, by=by))


def place_to_write(backend: str) -> Place | None:
    """Return where to write the store's events; None if it keeps none, or in a TestCase.

    What another thread writes would outlast the test, and could wait for its transaction.
    """
    if not lock_backends[backend].events:
        return None
    for connection in connections.all(initialized_only=True):
        if connection.in_atomic_block and is_in_testcase(connection):
            return None
    return Place.of(database_to_write(backend))


def _end(lease: Lease, held_for: float) -> datetime:
    """Return when the lease ended, by the clock of its grant."""
    return lease.acquired_at + timedelta(seconds=held_for)


def _add(
    place: Place,
    lease: Lease,
    kind: EventKind,
    at: datetime,
    *,
    waited: float | None = None,
    held: float | None = None,
    reason: str = "",
) -> None:
    """Record what happened to the lease, without a reference to it."""
    writer.add(
        Event(
            place,
            kind,
            lease.backend,
            lease.semaphore,
            at,
            lease.token,
            lease.holder,
            waited,
            held,
            reason=reason,
        )
    )
