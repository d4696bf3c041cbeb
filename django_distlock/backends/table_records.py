"""What a lock table says of its locks and pauses, as stores tell it."""

import math
from datetime import datetime, timedelta

from django_distlock.fields import to_datetime
from django_distlock.records import (
    KEPT,
    REFUSED,
    LockInfo,
    LockPage,
    LockQuery,
    LockState,
    Pause,
    Refusal,
    WaiterInfo,
)
from django_distlock.server.locks import LockDescription
from django_distlock.server.pauses import PauseSnapshot


def lock_info(lock: LockDescription, now: int) -> LockInfo:
    """Return a lock as stores list it; `now` is the table's time in microseconds."""
    return LockInfo(
        semaphore=lock.semaphore,
        state=LockState.HELD,
        token=lock.token,
        holder=lock.holder,
        acquired_at=to_datetime(lock.acquired_at),
        expires_at=_end(lock.remaining, now),
        seen_at=to_datetime(now),
        renewed_at=to_datetime(lock.renewed_at) if lock.renewed_at else None,
        kept=lock.kept,
        waiting=lock.waiting,
    )


def pause_of(pause: PauseSnapshot, now: int) -> Pause:
    """Return a pause as stores list it. See lock_info()."""
    since, until = to_datetime(pause.since), _end(pause.remaining, now)
    return Pause(pause.prefix, since, until, pause.reason, pause.by)


def refusal_of(refused_by: LockDescription | PauseSnapshot | None, now: int) -> Refusal:
    """Return why a table refused a lock. See lock_info()."""
    if refused_by is None:
        return REFUSED
    end, seen_at = _end(refused_by.remaining, now), to_datetime(now)
    if isinstance(refused_by, PauseSnapshot):
        reason = pause_of(refused_by, now).refusal
        return Refusal(expires_at=end, seen_at=seen_at, reason=reason)
    return Refusal(
        holder=refused_by.holder,
        acquired_at=to_datetime(refused_by.acquired_at),
        expires_at=end,
        seen_at=seen_at,
        reason=KEPT if refused_by.kept else "",
    )


def page_of_table(
    locks: list[LockInfo], found: int, query: LockQuery, *, is_capped: bool
) -> LockPage:
    """Return a page that a table was asked for by limit_of(): all of its locks are held."""
    shown = 0 if query.state is LockState.STALE else found
    counts = {LockState.HELD: found, LockState.STALE: 0}
    return LockPage(locks, shown, counts, is_capped)


def limit_of(query: LockQuery) -> int:
    """Return how many locks a table needs to describe for the page: it has no stale ones."""
    return 0 if query.state is LockState.STALE else query.limit


def waiter_info(holder: str, since: int) -> WaiterInfo:
    """Return a waiter as stores list it; `since` is in microseconds."""
    return WaiterInfo(holder, to_datetime(since))


def _end(remaining: float, now: int) -> datetime | None:
    if remaining == math.inf:
        return None
    return to_datetime(now) + timedelta(seconds=remaining)
