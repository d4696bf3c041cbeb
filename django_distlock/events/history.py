"""The history of a lock, from its recorded events."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import NamedTuple, cast

from django.db.models import QuerySet

from django_distlock.conf import lock_backends
from django_distlock.models import LockEvent
from django_distlock.records import EventKind
from django_distlock.semaphores.validation import validate_semaphore

from .databases import database_to_read

__all__ = ["PastEvent", "history"]


class PastEvent(NamedTuple):
    """A recorded event."""

    kind: EventKind
    """What happened."""
    at: datetime
    """When: an aware datetime."""
    token: int | None
    """The fencing token of the lease; None if there is none."""
    holder: str
    """The holder; of `contended`, the thread or task that was refused."""
    waited: timedelta | None
    """How long the lock was waited for; None for kinds without a wait."""
    held: timedelta | None
    """How long the lock was held; None for kinds without a lease's end."""
    by: str
    """The operator of a forced release."""
    reason: str
    """Why a lease was lost, or an acquisition refused."""
    word: str
    """The kind, in the language that Django has chosen."""


def keeps_history(backend: str) -> bool:
    """Tell whether the store's events are recorded."""
    return lock_backends[backend].events


def history(backend: str, semaphore: str, limit: int = 100) -> list[PastEvent]:
    """Return the last events of a lock, the newest first. `backend` is an alias in `DISTLOCK`."""
    events = LockEvent.objects.using(database_to_read(backend)).filter(
        backend=backend, semaphore=validate_semaphore(semaphore)
    )
    return [*_past(events.order_by("-at", "-id")[:limit])]


def _past(events: QuerySet[LockEvent]) -> Iterator[PastEvent]:
    for event in events:
        yield PastEvent(
            EventKind(event.kind),
            cast("datetime", event.at),  # never empty
            event.token,
            event.holder,
            _duration(event.waited),
            _duration(event.held),
            event.by,
            event.reason,
            event.get_kind_display(),
        )


def _duration(microseconds: int | None) -> timedelta | None:
    return None if microseconds is None else timedelta(microseconds=microseconds)
