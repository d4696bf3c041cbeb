"""The memory backend: the locks of one process, for its threads and tasks."""

import math
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any, ClassVar, Final, cast
from weakref import WeakSet

from django.conf import settings
from django.core import checks
from django.core.checks import CheckMessage

from django_distlock.backends.base import AsyncStore, QueueingStore
from django_distlock.backends.operations import (
    ListingStore,
    PausingStore,
    validate_claim,
    validate_listing,
    validate_pause,
    validate_query,
)
from django_distlock.fields import to_datetime
from django_distlock.records import (
    LOST,
    Claim,
    Grant,
    LockInfo,
    LockPage,
    LockQuery,
    Owner,
    Pause,
    Place,
    Refusal,
    Released,
    Renewal,
    RenewalOutcome,
    WaiterInfo,
)
from django_distlock.semaphores.validation import validate_prefix, validate_semaphore
from django_distlock.server.page_search import PageSearch
from django_distlock.server.table import LockTable

from .table_records import (
    limit_of,
    lock_info,
    page_of_table,
    pause_of,
    refusal_of,
    waiter_info,
)

__all__ = ["MemoryBackend"]

SHORTEST_PATIENCE: Final = 0.001
"""Seconds after which a waiter tries at the soonest, for a lock that is about to expire."""
LONGEST_PATIENCE: Final = 1.0
"""Seconds after which it tries at the latest."""


class MemoryBackend(ListingStore, PausingStore, QueueingStore, AsyncStore):
    """A store in the memory of this process: for tests, and for sites that are one process.

    **Not guaranteed:** that another process is kept out, such as a second worker, a management
    command, or a forked child. Each has locks and pauses of its own, which end with it.
    """

    supports_fencing: ClassVar[bool] = True
    tells_holder: ClassVar[bool] = True
    lists_renewals: ClassVar[bool] = True
    supports_unlimited_ttl: ClassVar[bool] = True

    def __init__(
        self,
        alias: str,
        *,
        ttl: float | None = 60,
        guard_commits: bool = True,
        events: bool = False,
    ) -> None:
        super().__init__(alias, ttl=ttl, guard_commits=guard_commits, events=events)
        self._shared = shared_table(alias)

    def acquire(
        self, semaphore: str, owner: str, ttl: float | None, holder: str
    ) -> Grant | Refusal:
        with self._shared.mutex:
            table = self._shared.table
            lock = table.acquire(semaphore, owner, _seconds(ttl), holder)
            if lock is None:
                return refusal_of(table.refusal(semaphore), table.microseconds())
            return Grant(lock.token, to_datetime(lock.acquired_at), _end(table, ttl))

    async def aacquire(
        self, semaphore: str, owner: str, ttl: float | None, holder: str, *, deadline: float
    ) -> Grant | Refusal:
        """See acquire(), which never waits."""
        return self.acquire(semaphore, owner, ttl, holder)

    def join(
        self, semaphore: str, owner: str, holder: str, wake: Callable[[], object]
    ) -> "MemoryPlace":
        with self._shared.mutex:
            self._shared.table.join(semaphore, owner, holder, wake)
        return MemoryPlace(self._shared, semaphore, owner)

    async def ajoin(
        self,
        semaphore: str,
        owner: str,
        holder: str,
        wake: Callable[[], object],
        *,
        deadline: float,
    ) -> "MemoryPlace":
        """See join()."""
        return self.join(semaphore, owner, holder, wake)

    def leave(self, place: Place, granted: bool) -> None:
        queued = cast("MemoryPlace", place)
        if not granted:
            with self._shared.mutex:
                self._shared.table.leave(queued.semaphore, queued.owner)

    async def aleave(self, place: Place, granted: bool, *, deadline: float) -> None:
        """See leave()."""
        self.leave(place, granted)

    def renew(self, leases: Sequence[Claim]) -> dict[str, Renewal]:
        with self._shared.mutex:
            table = self._shared.table
            return {Owner(lease.owner): _renew(table, lease) for lease in leases}

    async def arenew(self, leases: Sequence[Claim], *, deadline: float) -> dict[str, Renewal]:
        """See renew()."""
        return self.renew(leases)

    def release(self, lease: Claim, keep: float = 0) -> Released:
        with self._shared.mutex:
            return self._shared.table.release(lease.semaphore, lease.owner, keep)

    async def arelease(self, lease: Claim, keep: float = 0, *, deadline: float) -> Released:
        """See release()."""
        return self.release(lease, keep)

    def held(self, prefix: str = "", limit: int | None = None) -> Iterator[LockInfo]:
        prefix, limit = validate_listing(prefix, limit)
        with self._shared.mutex:
            table = self._shared.table
            found = table.describe(sorted(table.names(prefix))[:limit])
            now = table.microseconds()
        yield from (lock_info(each, now) for each in found)

    def force_release(self, semaphore: str, token: int, *, by: str = "") -> bool:
        semaphore, token, by = validate_claim(semaphore, token, by)
        with self._shared.mutex:
            released = self._shared.table.force_release(semaphore, token)
        if released:
            self.send_force_released(semaphore, token, by)
        return released

    def find(self, semaphore: str) -> LockInfo | None:
        semaphore = validate_semaphore(semaphore)
        with self._shared.mutex:
            found = self._shared.table.describe([semaphore])
            now = self._shared.table.microseconds()
        return lock_info(found[0], now) if found else None

    def page(self, query: LockQuery) -> LockPage:
        """See ListingStore. If more than `window` match, they are the ones held longest."""
        query = validate_query(query)
        with self._shared.mutex:
            search = PageSearch(self._shared.table, query.prefix, query.search, self.window)
            while search.look_on():
                pass
            found = search.page(query.page, limit_of(query))
            now = self._shared.table.microseconds()
        locks = [lock_info(each, now) for each in found]
        return page_of_table(locks, len(search), query, is_capped=search.is_capped)

    def waiters(self, semaphore: str) -> list[WaiterInfo]:
        semaphore = validate_semaphore(semaphore)
        with self._shared.mutex:
            waiting = self._shared.table.waiting(semaphore)
        return [waiter_info(each.holder, each.since) for each in waiting]

    def pause(
        self, prefix: str, seconds: float | None = None, *, reason: str = "", by: str = ""
    ) -> Pause:
        prefix, seconds, reason, by = validate_pause(prefix, seconds, reason, by)
        with self._shared.mutex:
            table = self._shared.table
            paused = table.pause(prefix, _seconds(seconds), reason, by)
            return pause_of(paused, table.microseconds())

    def resume(self, prefix: str) -> bool:
        prefix = validate_prefix(prefix)
        with self._shared.mutex:
            return self._shared.table.resume(prefix)

    def pauses(self) -> list[Pause]:
        with self._shared.mutex:
            table = self._shared.table
            found, now = table.pauses_in_force(), table.microseconds()
        return [pause_of(each, now) for each in found]

    def clear(self) -> None:
        """Release all locks and resume all pauses, as a test may at its end.

        Holders lose their locks.
        """
        with self._shared.mutex:
            self._shared.table.clear()

    def check(self, **kwargs: Any) -> list[CheckMessage]:
        if settings.DEBUG:
            return []
        return [
            checks.Warning(
                f"DISTLOCK[{self.alias!r}]: MemoryBackend keeps out nobody in another process.",
                hint="If more than one process serves the site, or works for it, use the "
                "database's backend, Redis, or a lock server. If it is surely one, silence this.",
                id="distlock.W005",
            )
        ]


class MemoryPlace:
    """A waiter's place in the queue."""

    outlasts_failures = False

    __slots__ = ("_shared", "owner", "semaphore")

    def __init__(self, shared: "SharedTable", semaphore: str, owner: str) -> None:
        self._shared = shared
        self.semaphore = semaphore
        self.owner = owner

    @property
    def patience(self) -> float:
        """Seconds until the lock expires: no thread wakes waiters when a lease expires.

        Not more than LONGEST_PATIENCE, since a new holder may have a shorter lease.
        """
        with self._shared.mutex:
            remaining = self._shared.table.remaining(self.semaphore)
        return min(max(remaining, SHORTEST_PATIENCE), LONGEST_PATIENCE)

    def check(self) -> None:
        """Do nothing: this process's memory is always there."""


class SharedTable:
    """The locks that the threads of this process share."""

    def __init__(self) -> None:
        self.reset()
        _all.add(self)

    def reset(self) -> None:
        """Start without locks, as a forked child does."""
        self.table = LockTable()
        # Reentrant: a garbage collection in between may release a lock. It is used without a
        # context manager of ours, which would keep it locked if a signal's handler raised in it.
        self.mutex = threading.RLock()


_all: WeakSet[SharedTable] = WeakSet()
_shared: dict[str, SharedTable] = {}


def shared_table(alias: str) -> SharedTable:
    """Return the locks that this process has under the alias."""
    return _shared.get(alias) or _shared.setdefault(alias, SharedTable())


def _reset_all() -> None:
    for shared in _all:
        shared.reset()


os.register_at_fork(after_in_child=_reset_all)


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
