"""The memory backend: the locks of one process, for its threads and tasks."""

import math
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any, ClassVar, Final, cast

from django.conf import settings
from django.core import checks
from django.core.checks import CheckMessage

from django_distlock.backends.base import (
    AsyncStore,
    ListingStore,
    QueueingStore,
    validate_claim,
    validate_listing,
)
from django_distlock.fields import to_datetime
from django_distlock.records import (
    LOST,
    Claim,
    Grant,
    LockInfo,
    LockState,
    Owner,
    Place,
    Released,
    Renewal,
    RenewalOutcome,
)
from django_distlock.server.locks import LockSnapshot
from django_distlock.server.table import LockTable

SOONEST: Final = 0.001
"""Seconds, at least, until a waiter looks at a lock that is about to end."""
LATEST: Final = 1.0
"""Seconds, at most, until a waiter looks again."""


class MemoryBackend(ListingStore, QueueingStore, AsyncStore):
    """Keeps locks in the memory of this process: for tests, and for sites that are one process.

    It does not keep out another process, be it a second worker of the same server, a management
    command or a forked child: each has locks of its own. They end with it.
    """

    supports_fencing: ClassVar[bool] = True
    supports_unlimited_ttl: ClassVar[bool] = True

    def __init__(self, alias: str, *, ttl: float | None = 60, guard_commits: bool = True) -> None:
        super().__init__(alias, ttl=ttl, guard_commits=guard_commits)
        self._shared = shared_table(alias)

    def acquire(self, semaphore: str, owner: str, ttl: float | None, holder: str) -> Grant | None:
        with self._shared.changing:
            table = self._shared.table
            lock = table.acquire(semaphore, owner, _seconds(ttl), holder)
            if lock is None:
                return None
            return Grant(lock.token, to_datetime(lock.acquired_at), _end(table, ttl))

    async def aacquire(self, *arguments: Any, deadline: float) -> Grant | None:
        """See acquire(): nobody is waited for."""
        return self.acquire(*arguments)

    def join(
        self, semaphore: str, owner: str, holder: str, wake: Callable[[], object]
    ) -> "MemoryPlace":
        with self._shared.changing:
            self._shared.table.join(semaphore, owner, holder, wake)
        return MemoryPlace(self._shared, semaphore, owner)

    def leave(self, place: Place, granted: bool) -> None:
        cast("MemoryPlace", place).leave(granted=granted)

    async def ajoin(self, *arguments: Any, deadline: float) -> "MemoryPlace":
        """See join()."""
        return self.join(*arguments)

    async def aleave(self, place: Place, granted: bool, *, deadline: float) -> None:
        """See leave()."""
        self.leave(place, granted)

    def renew(self, leases: Sequence[Claim]) -> dict[str, Renewal]:
        with self._shared.changing:
            table = self._shared.table
            return {Owner(lease.owner): _renew(table, lease) for lease in leases}

    async def arenew(self, leases: Sequence[Claim], *, deadline: float) -> dict[str, Renewal]:
        """See renew()."""
        return self.renew(leases)

    def release(self, lease: Claim, keep: float = 0) -> Released:
        with self._shared.changing:
            return self._shared.table.release(lease.semaphore, lease.owner, keep)

    async def arelease(self, lease: Claim, keep: float = 0, *, deadline: float) -> Released:
        """See release()."""
        return self.release(lease, keep)

    def held(self, prefix: str = "", limit: int | None = None) -> Iterator[LockInfo]:
        prefix, limit = validate_listing(prefix, limit)
        with self._shared.changing:
            table = self._shared.table
            table.run_due()  # or else what has ended would count
            found = table.describe(sorted(table.names(prefix))[:limit])
            now = table.microseconds()
        yield from (lock_info(each, now) for each in found)

    def force_release(self, semaphore: str, token: int) -> bool:
        semaphore, token = validate_claim(semaphore, token)
        with self._shared.changing:
            released = self._shared.table.force_release(semaphore, token)
        if released:
            self.send_force_released(semaphore, token)
        return released

    def clear(self) -> None:
        """Free all locks, as a test may at its end: who holds one has lost it."""
        with self._shared.changing:
            self._shared.table.clear()

    def check(self, **kwargs: Any) -> list[CheckMessage]:
        if settings.DEBUG:
            return []
        return [
            checks.Warning(
                f"DISTLOCK[{self.alias!r}]: MemoryBackend keeps out nobody in another process.",
                hint="Where more than one process serves the site, or works for it, use the "
                "database's backend, or Redis, or a lock server. Is it one process for sure, "
                "silence this.",
                id="distlock.W005",
            )
        ]


class MemoryPlace:
    """A waiter's place in the queue."""

    outlasts_failures = False

    __slots__ = ("_owner", "_semaphore", "_shared")

    def __init__(self, shared: "SharedTable", semaphore: str, owner: str) -> None:
        self._shared = shared
        self._semaphore = semaphore
        self._owner = owner

    @property
    def patience(self) -> float:
        """Seconds after which to try again, unless woken: nothing else notes that a lease ends.

        Who has the lock next may have it for shorter, and nobody is woken for that.
        """
        with self._shared.changing:
            left = self._shared.table.remaining(self._semaphore)
        return min(max(left, SOONEST), LATEST)

    def check(self) -> None:
        """Do nothing: the store is here."""

    def leave(self, *, granted: bool) -> None:
        """Wait no more: having been granted the lock, or having given up."""
        if not granted:
            with self._shared.changing:
                self._shared.table.leave(self._semaphore, self._owner)


class SharedTable:
    """The locks that the threads of this process have together."""

    def __init__(self) -> None:
        self.begin_anew()

    def begin_anew(self) -> None:
        """Have no locks, as a child that was forked."""
        self.table = LockTable()
        # Reentrant: what is collected in between may release a lock. And used as it is: a context
        # manager of ours would keep it locked if a signal's handler raised in there.
        self.changing = threading.RLock()


_shared: dict[str, SharedTable] = {}


def shared_table(alias: str) -> SharedTable:
    """Return the locks that this process has under the alias."""
    return _shared.get(alias) or _shared.setdefault(alias, SharedTable())


def _begin_anew() -> None:
    for shared in _shared.values():
        shared.begin_anew()


os.register_at_fork(after_in_child=_begin_anew)


def lock_info(lock: LockSnapshot, now: int) -> LockInfo:
    """Return what a table says of a lock, for people; `now` is in microseconds, by its clock."""
    seen_at = to_datetime(now)
    return LockInfo(
        semaphore=lock.semaphore,
        state=LockState.HELD,
        token=lock.token,
        holder=lock.holder,
        acquired_at=to_datetime(lock.acquired_at),
        expires_at=None
        if lock.remaining == math.inf
        else seen_at + timedelta(seconds=lock.remaining),
        seen_at=seen_at,
    )


def _renew(table: LockTable, lease: Claim) -> Renewal:
    if not table.renew(lease.semaphore, lease.owner, _seconds(lease.ttl)):
        return LOST
    return Renewal(RenewalOutcome.RENEWED, _end(table, lease.ttl))


def _seconds(ttl: float | None) -> float:
    return math.inf if ttl is None else ttl


def _end(table: LockTable, ttl: float | None) -> datetime | None:
    if ttl is None:
        return None
    return to_datetime(table.microseconds()) + timedelta(seconds=ttl)
