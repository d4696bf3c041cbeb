"""Release the locks of crashed workers, and delete old rows: a job for cron."""

from argparse import ArgumentParser
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from django.core.management.base import CommandError
from django.db import Error

from django_distlock.backends.base import BaseLockBackend
from django_distlock.events.purging import purge_events
from django_distlock.management import options
from django_distlock.management.base import LockCommand, find_store, unseen_locks
from django_distlock.management.long_holds import held_longer, listed_locks
from django_distlock.management.operators import operating_system_user
from django_distlock.management.output.reports import Report, report
from django_distlock.management.output.rows import lock_row
from django_distlock.management.output.text import count_of, describe_lock
from django_distlock.management.prompts import confirm, require_terminal
from django_distlock.records import LockInfo


class Command(LockCommand):
    """Release stale locks, purge those that were released long ago, and free stuck ones."""

    help = (
        "Releases locks whose lease expired without a release, as after a worker's crash. With "
        "--purge-released, also deletes locks that were released long ago. Safe beside running "
        "workers: without --held-longer-than no held lock is released, and fencing tokens keep "
        "rising."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
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
            help="also delete locks that were released longer ago: 90s, 15m, 12h, 1d",
        )
        parser.add_argument(
            "--purge-events",
            type=options.duration,
            metavar="AGE",
            help="also delete events of this store that are older: 30d",
        )
        parser.add_argument(
            "--held-longer-than",
            type=options.positive_duration,
            metavar="AGE",
            help="also list locks that have been held for longer, ask, and release them by force",
        )
        parser.add_argument(
            "--holder",
            metavar="TEXT",
            help="with --held-longer-than: only locks whose holder has this text in it",
        )
        parser.add_argument("--dry-run", action="store_true", help="only print what would be done")
        options.add_no_input_option(parser)
        options.add_backend_option(parser)
        options.add_format_option(parser)

    def handle(
        self,
        *,
        backend: str,
        prefix: str,
        purge_released: timedelta | None,
        purge_events: timedelta | None,
        held_longer_than: timedelta | None,
        holder: str | None,
        dry_run: bool,
        interactive: bool,
        output: str,
        **others: Any,
    ) -> None:
        if holder is not None and (held_longer_than is None or not holder):
            raise CommandError("--holder needs a text, and --held-longer-than.", returncode=2)
        store = find_store(backend)
        asks = held_longer_than is not None and interactive and not dry_run
        if asks:
            require_terminal()
        would = "would be " if dry_run else ""
        with report(self, backend, output) as told:
            stale = told.add(store.clear_stale(prefix, dry_run=dry_run), "acquired", "expired")
            told.say(f"{count_of(stale, 'stale lock')} {would}released.")
            if purge_released is not None:
                purgeable = store.purge_released(purge_released, prefix, dry_run=dry_run)
                purged = told.add(purgeable, "acquired", "released")
                told.say(f"{count_of(purged, 'released lock')} {would}deleted.")
            if purge_events is not None:
                events = delete_events(backend, purge_events, prefix, dry_run=dry_run)
                told.say(f"{count_of(events, 'event')} {would}deleted.")
            if held_longer_than is not None:
                held = held_longer(store, held_longer_than, prefix, holder or "")
                self._release_held(store, held, told, dry_run=dry_run, asks=asks)

    def _release_held(
        self,
        store: BaseLockBackend,
        held: Iterator[LockInfo],
        told: Report,
        *,
        dry_run: bool,
        asks: bool,
    ) -> None:
        """List these locks, ask, and release those that are still held by the grants listed."""
        if dry_run:
            found = told.add(held, "acquired", "renewed")
            if not found and (unseen := unseen_locks(store)):
                raise unseen
            told.say(f"{count_of(found, 'held lock')} would be released by force.")
            return
        with listed_locks() as listed:
            for lock in held:
                told.say(describe_lock(lock, "acquired", "renewed"))
                listed.add(lock_row(store.alias, lock))
            if not listed.number and (unseen := unseen_locks(store)):
                raise unseen
            question = f"Release {count_of(listed.number, 'held lock')} by force?"
            if listed.number and asks and not confirm(self, question):
                raise CommandError("No held lock was released.")
            released = 0
            for row in listed.release(store, operating_system_user()):
                told.add_row(row)
                released += 1
            told.say(f"{count_of(released, 'held lock')} released by force.")
            if released < listed.number:
                told.say(f"{listed.number - released} had ended meanwhile.")


def delete_events(backend: str, age: timedelta, prefix: str, *, dry_run: bool) -> int:
    """Delete the store's events that are older. See purge_events()."""
    try:
        return purge_events(backend, age, prefix, dry_run=dry_run)
    except Error as error:
        raise CommandError(f"DISTLOCK[{backend!r}]: the events: {error}") from error
