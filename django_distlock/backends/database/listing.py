"""The database backend for operators: list locks, release them by force, and clean up."""

from collections.abc import Iterator
from datetime import timedelta
from itertools import chain
from operator import attrgetter, methodcaller
from typing import Any, ClassVar

from django.db import connections as connections_by_alias

from django_distlock.backends.operations import ListingStore, validate_claim, validate_listing
from django_distlock.models import Lock, LockQuerySet
from django_distlock.records import LockInfo, LockState
from django_distlock.semaphores.validation import validate_prefix

from . import cleaning
from .base import BaseDatabaseBackend
from .statements import Parameters


class ListingDatabaseBackend(BaseDatabaseBackend, ListingStore):
    """Part of DatabaseBackend."""

    keeps_expired: ClassVar[bool] = True
    lists_renewals: ClassVar[bool] = True

    def held(self, prefix: str = "", limit: int | None = None) -> Iterator[LockInfo]:
        prefix, limit = validate_listing(prefix, limit)
        locks = self._locks(prefix).unreleased().with_state()[:limit]
        # On SQLite, rows that are not all read keep the file locked. The caller may want to write
        # between two of them.
        with self._unavailable():
            is_sqlite = connections_by_alias[self.using].vendor == "sqlite"
            yield from map(_info, list(locks) if is_sqlite else locks.iterator())

    def force_release(self, semaphore: str, token: int, *, by: str = "") -> bool:
        semaphore, token = validate_claim(semaphore, token)
        held = self._locks().held().filter(semaphore=semaphore, token=token)
        with self._unavailable():
            released = held.mark_released()
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
                yield from map(_info, cleaning.change(locks, job))

    def _send_clean(self, sql: str, parameters: Parameters) -> list[Any]:
        """Change a page of rows, in a transaction of its own where there is a connection for it."""
        parameters = parameters | {"joins": self.joins_transaction()}
        return self._run(methodcaller("clean", sql, parameters))

    def _locks(self, prefix: str = "") -> LockQuerySet:
        found = Lock.objects.using(self.using).defer("owner")
        return found.with_prefix(prefix)


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
