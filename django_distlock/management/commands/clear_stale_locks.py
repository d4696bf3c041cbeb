"""Release the locks of crashed workers, and delete old rows: a job for cron."""

from argparse import ArgumentParser
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from django_distlock.durations import format_duration
from django_distlock.management import options
from django_distlock.management.base import LockCommand, find_store
from django_distlock.records import LockInfo


class Command(LockCommand):
    """Release stale locks, and purge those that were released long ago."""

    help = (
        "Releases locks whose lease expired without a release, as after a crash of a worker, and "
        "with --purge-released deletes locks that were released long ago. Safe beside running "
        "workers: no held lock is touched, and fencing tokens never go back."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        options.add_backend_option(parser)
        parser.add_argument(
            "--prefix",
            type=options.prefix,
            default="",
            help="only semaphores that begin with this",
        )
        parser.add_argument(
            "--purge-released",
            type=options.duration,
            metavar="AGE",
            help="also delete locks released longer ago than this: 90s, 15m, 12h, 1d",
        )
        parser.add_argument("--dry-run", action="store_true", help="only print what would be done")

    def handle(
        self,
        *,
        backend: str,
        prefix: str,
        purge_released: timedelta | None,
        dry_run: bool,
        **others: Any,
    ) -> None:
        would = "would be " if dry_run else ""
        store = find_store(backend)
        stale = self._print(store.clear_stale(prefix, dry_run=dry_run), "expired")
        self.stdout.write(f"{stale} stale {_locks(stale)} {would}released.")
        if purge_released is not None:
            purgeable = store.purge_released(purge_released, prefix, dry_run=dry_run)
            purged = self._print(purgeable, "released")
            self.stdout.write(f"{purged} released {_locks(purged)} {would}deleted.")

    def _print(self, locks: Iterator[LockInfo], ended: str) -> int:
        """Print each lock when it is released or deleted, and return how many there were."""
        count = 0
        for lock in locks:
            self.stdout.write(_describe(lock, ended))
            count += 1
        return count


def _describe(lock: LockInfo, ended: str) -> str:
    """Return the lock with its holder, its age, and how long ago its lease ended."""
    ages = [
        f"{event} {format_duration(lock.seen_at - moment)} ago"
        for event, moment in (("acquired", lock.acquired_at), (ended, lock.expires_at))
        if moment is not None
    ]
    return f"{lock.semaphore}: {lock.holder or 'unknown holder'}, {', '.join(ages)}"


def _locks(count: int) -> str:
    return "lock" if count == 1 else "locks"
