"""The database backend for operators: list locks, release them by force, and clean up."""

from collections.abc import Iterator
from datetime import timedelta
from itertools import chain
from operator import attrgetter, methodcaller
from typing import Any, ClassVar, Final

from django_distlock.backends.operations import ListingStore, validate_claim, validate_listing
from django_distlock.models import Lock, LockQuerySet
from django_distlock.records import LockInfo, LockState
from django_distlock.semaphores.validation import validate_prefix

from . import cleaning
from .operating import OperatingDatabaseBackend
from .statements import Parameters

PAGE: Final = 5_000
"""How many locks are read together."""


class ListingDatabaseBackend(OperatingDatabaseBackend, ListingStore):
    """Part of DatabaseBackend."""

    keeps_expired: ClassVar[bool] = True
    lists_renewals: ClassVar[bool] = True

    def held(self, prefix: str = "", limit: int | None = None) -> Iterator[LockInfo]:
        prefix, limit = validate_listing(prefix, limit)
        with self._unavailable():
            yield from map(_info, in_pages(self._locks(prefix).unreleased().with_state(), limit))

    def force_release(self, semaphore: str, token: int, *, by: str = "") -> bool:
        semaphore, token = validate_claim(semaphore, token)
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
        return self._clean(prefix, cleaning.purge_released(older_than), dry_run)

    def _clean(self, prefix: str, job: cleaning.Job, dry_run: bool) -> Iterator[LockInfo]:
        prefix = validate_prefix(prefix)
        locks = self._locks(prefix)
        with self._unavailable():
            if dry_run:
                yield from map(_info, chain.from_iterable(cleaning.batches(locks, job)))
            elif self._run(attrgetter("cleans_pages")):
                yield from cleaning.change_pages(prefix, job, self._send_clean)
            else:
                yield from map(_info, cleaning.change(locks, job, self._change))

    def _send_clean(self, sql: str, parameters: Parameters) -> list[Any]:
        """Change a page of rows, in a transaction of its own where there is a connection for it."""
        parameters = parameters | {"joins": self.joins_transaction()}
        return self._run(methodcaller("clean", sql, parameters))

    def _locks(self, prefix: str = "") -> LockQuerySet:
        found = Lock.objects.using(self.using).defer("owner")
        return found.with_prefix(prefix)


def in_pages(locks: LockQuerySet, limit: int | None = None) -> Iterator[Lock]:
    """Yield the locks in the order of their semaphores, read by a query for each PAGE of them.

    MySQL's driver would keep all rows in memory, and on SQLite, rows that are not read yet would
    keep the file locked: the caller may want to write between two of them.
    """
    last, left = "", limit
    while True:
        size = PAGE if left is None else min(PAGE, left)
        page = list(locks.filter(pk__gt=last).order_by("pk")[:size])
        yield from page
        if len(page) < PAGE:
            return
        last = page[-1].pk
        left = None if left is None else left - size


def _info(lock: Lock) -> LockInfo:
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
    )
