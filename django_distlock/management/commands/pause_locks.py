"""Grant nothing new for a while, as for a deploy or during an incident."""

from argparse import ArgumentParser
from datetime import timedelta
from typing import Any

from django_distlock.management import options
from django_distlock.management.base import LockCommand
from django_distlock.management.exit_codes import usage_error
from django_distlock.management.operators import operating_system_user
from django_distlock.management.pauses import (
    add_pause_arguments,
    find_pausing_store,
    write_pauses,
)


class Command(LockCommand):
    """Pause locks."""

    help = (
        "Pauses locks: nothing new is granted, as if another worker held the lock. Workers that "
        "hold one already keep it, renew it and release it. A pause with the same PREFIX is "
        "replaced. Prints the pauses in force."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        add_pause_arguments(
            parser,
            prefix_help="pause semaphores that begin with this",
            all_help="pause all semaphores of the store",
        )
        parser.add_argument(
            "--for",
            dest="length",  # `for` is a keyword
            type=options.positive_duration,
            metavar="DURATION",
            help="end the pause after this: 90s, 15m, 12h, 1d (default: until resume_locks)",
        )
        parser.add_argument(
            "--reason", metavar="TEXT", default="", help="a text that refusals and lists show"
        )

    def handle(
        self,
        *,
        prefix: str | None,
        length: timedelta | None,
        reason: str,
        backend: str,
        output: str,
        **others: Any,
    ) -> None:
        store = find_pausing_store(backend)
        seconds = None if length is None else length.total_seconds()
        try:
            store.pause(prefix or "", seconds, reason=reason, by=operating_system_user())
        except ValueError as error:
            raise usage_error(str(error)) from error
        write_pauses(self.stdout, store, output)
