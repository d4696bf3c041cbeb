"""The database backend for operators: list locks, release them by force, and clean up."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from functools import partial
from itertools import islice
from operator import attrgetter, methodcaller
from typing import Any, ClassVar, Final

from django.db import connections as connections_by_alias
from django.db.models import Count

from django_distlock.arguments import validate_age
from django_distlock.backends.base import QueueingStore
from django_distlock.backends.operations import (
    ListingStore,
    validate_claim,
    validate_listing,
    validate_query,
)
from django_distlock.backends.operator_calls import validate_cleaning
from django_distlock.clocks import now_expression
from django_distlock.fields import MICROSECOND
from django_distlock.models import Lock, LockQuerySet, LockWaiter, WaitingProcess
from django_distlock.records import (
    LockInfo,
    LockPage,
    LockQuery,
    LockState,
    SearchScope,
    WaiterInfo,
)
from django_distlock.semaphores.validation import (
    InvalidSemaphore,
    validate_semaphore,
)

from . import cleaning
from .operating import OperatingDatabaseBackend
from .paging import LISTED, find_page
from .queue import SWEPT
from .statements import Parameters

PAGE: Final = 1_000
"""How many locks of a list are read together, within the time limit."""
CHUNK: Final = 500
"""How many locks of a list are completed together."""
NO_LOCKS: Final = LockPage(
    locks=[],
    found=0,
    counts=dict.fromkeys(LISTED, 0),
    is_capped=False,
    scope=SearchScope.PREFIX,
)
"""The page of a text that the database's encoding can't have."""


class ListingDatabaseBackend(OperatingDatabaseBackend, ListingStore, QueueingStore):
    """Part of DatabaseBackend."""

    keeps_expired: ClassVar[bool] = True
    lists_renewals: ClassVar[bool] = True

    def held(self, prefix: str = "", limit: int | None = None) -> Iterator[LockInfo]:
        prefix, limit = validate_listing(prefix, limit)
        last, left = "", limit
        with suppress(InvalidSemaphore):  # the database's encoding can't have the prefix
            while True:
                size = PAGE if left is None else min(PAGE, left)
                page = self._use_orm(partial(self._held_after, last, prefix, size))
                yield from page
                if len(page) < PAGE:
                    return
                last = page[-1].semaphore
                left = None if left is None else left - size

    def _held_after(self, last: str, prefix: str, size: int) -> list[LockInfo]:
        """Return the next locks: MySQL's driver, for one, would keep all of a query in memory."""
        locks = self._locks(prefix).filter(pk__gt=last).order_by("pk")
        return [*self._infos(locks.unreleased().with_state()[:size])]

    def find(self, semaphore: str) -> LockInfo | None:
        locks = self._locks().filter(pk=validate_semaphore(semaphore))
        with suppress(InvalidSemaphore):  # the database's encoding can't have it
            return self._use_orm(lambda: next(self._infos(locks.with_state()), None))
        return None

    def waiters(self, semaphore: str) -> list[WaiterInfo] | None:
        semaphore = validate_semaphore(semaphore)
        if not self.queues_all:
            return None
        with suppress(InvalidSemaphore):
            return self._use_orm(lambda: [*self._waiters(semaphore)])
        return []

    def _waiters(self, semaphore: str) -> Iterator[WaiterInfo]:
        waiting = self._waiting().filter(semaphore=semaphore).order_by("id")
        return map(WaiterInfo, waiting.values_list("holder", flat=True))

    def page(self, query: LockQuery) -> LockPage:
        """See ListingStore.page(). A page of released locks is from `window` rows of any state."""
        query = validate_query(query)
        with suppress(InvalidSemaphore):
            return self._use_orm(lambda: self._page(query))
        return NO_LOCKS

    def _page(self, query: LockQuery) -> LockPage:
        page = find_page(self._locks, query, self.window)
        counts = page.counts
        if query.state is LockState.RELEASED:
            counts = find_page(self._locks, replace(query, state=None), self.window).counts
        return LockPage(
            locks=[*self._infos(page.rows.with_state())],
            found=page.found,
            counts={state: counts[state] for state in LISTED},
            is_capped=page.is_capped,
            scope=page.scope,
        )

    def _infos(self, locks: Iterable[Lock]) -> Iterator[LockInfo]:
        """Return what is told of each of the locks, by one query more for CHUNK of them."""
        rows = iter(locks)
        while chunk := list(islice(rows, CHUNK)):
            waiting: dict[str, int] = {}
            is_known = self.queues_all
            if is_known:
                counted = self._waiting().filter(semaphore__in=[lock.pk for lock in chunk])
                waiting = dict(counted.values_list("semaphore").annotate(number=Count("id")))
            for lock in chunk:
                yield _info(lock, waiting.get(lock.pk, 0) if is_known else None)

    def _waiting(self) -> Any:
        """Return the waiters of processes that had a heartbeat, if not quite lately: see SWEPT."""
        recent = now_expression(connections_by_alias[self.using], SWEPT * MICROSECOND)
        alive = WaitingProcess.objects.using(self.using).filter(seen_at__gt=recent)
        return LockWaiter.objects.using(self.using).filter(process__in=alive.values("id"))

    def force_release(self, semaphore: str, token: int, *, by: str = "") -> bool:
        semaphore, token, by = validate_claim(semaphore, token, by)
        parameters: Parameters = {"semaphore": semaphore, "token": token}
        released = self._operate(lambda sql: sql.force_release(parameters))
        if released:
            self.send_force_released(semaphore, token, by)
        return released

    def clear_stale(self, prefix: str = "", *, dry_run: bool = False) -> Iterator[LockInfo]:
        return self._clean(prefix, cleaning.clear_stale(), dry_run)

    def purge_released(
        self, older_than: timedelta, prefix: str = "", *, dry_run: bool = False
    ) -> Iterator[LockInfo]:
        older_than = validate_age("older_than", older_than)
        return self._clean(prefix, cleaning.purge_released(older_than), dry_run)

    def _clean(self, prefix: str, job: cleaning.Job, dry_run: bool) -> Iterator[LockInfo]:
        prefix = validate_cleaning(prefix, dry_run)
        locks = self._locks(prefix)
        with self._unavailable():
            if dry_run:
                batches = cleaning.batches(locks, job)
                while (batch := self._use_orm(partial(next, batches, None))) is not None:
                    yield from map(_info, batch)
            elif self._run(attrgetter("cleans_pages")):
                yield from cleaning.change_pages(prefix, job, self._send_clean)
            else:
                yield from map(_info, cleaning.change(locks, job, self._use_orm))

    def _send_clean(self, sql: str, parameters: Parameters) -> list[Any]:
        """Change a page of rows, in a transaction of its own where there is a connection for it."""
        parameters = parameters | {"joins": self.joins_transaction()}
        return self._run(methodcaller("clean", sql, parameters))

    def _locks(self, prefix: str = "") -> LockQuerySet:
        found = Lock.objects.using(self.using).defer("owner")
        return found.with_prefix(prefix)


def _info(lock: Lock, waiting: int | None = None) -> LockInfo:
    return LockInfo(
        semaphore=lock.semaphore,
        state=LockState(lock.state),
        token=lock.token,
        holder=lock.holder,
        acquired_at=lock.acquired_at,
        expires_at=lock.expires_at,
        seen_at=lock.seen_at,
        renewed_at=lock.renewed_at,
        kept=lock.kept,
        waiting=waiting,
    )
