"""List the locks of all stores, once or again and again."""

import shutil
from argparse import ArgumentParser
from datetime import UTC, datetime
from time import sleep
from typing import Any

from django.core.management.base import CommandError
from django.db import close_old_connections

from django_distlock.conf import lock_backends
from django_distlock.management import options
from django_distlock.management.base import LockCommand, find_store
from django_distlock.management.listing import Listing, Problems
from django_distlock.management.options import OutputFormat
from django_distlock.management.output.rows import json_array
from django_distlock.management.output.screens import screen
from django_distlock.management.output.text import time_of
from django_distlock.records import LockState


class Command(LockCommand):
    """List locks."""

    help = (
        "Lists the locks that are held or stale, of all stores in DISTLOCK. If a store can't be "
        "listed, stderr says why, the others are listed, and the exit code is 1."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "prefix",
            metavar="PREFIX",
            nargs="?",
            type=options.prefix,
            default="",
            help="only semaphores that begin with this",
        )
        parser.add_argument(
            "--state",
            choices=[state.value for state in LockState],
            help="only locks in this state (default: held and stale ones)",
        )
        parser.add_argument(
            "--limit",
            type=options.positive_number,
            metavar="NUMBER",
            help="list at most this many locks of each store (default: all)",
        )
        parser.add_argument(
            "--pauses", action="store_true", help="list the pauses in force instead of locks"
        )
        parser.add_argument(
            "--watch", action="store_true", help="list again and again until Ctrl-C"
        )
        parser.add_argument(
            "--interval",
            type=options.positive_duration,
            default="1s",
            metavar="DURATION",
            help="with --watch: the time between two lists, such as 5s (default: 1s)",
        )
        options.add_backend_option(parser, default=None)
        options.add_format_option(parser)

    def handle(self, **given: Any) -> None:
        backend, state = given["backend"], given["state"]
        listing = Listing(
            aliases=[*lock_backends] if backend is None else [find_store(backend).alias],
            prefix=given["prefix"],
            state=None if state is None else LockState(state),
            limit=given["limit"],
            pauses=given["pauses"],
        )
        as_json = given["output"] == OutputFormat.JSON
        if given["watch"]:
            self._watch(listing, given["interval"].total_seconds(), as_json=as_json)
        elif problems := self._list(listing, as_json=as_json):
            raise CommandError("\n".join(problems))

    def _list(self, listing: Listing, *, as_json: bool, on_one_line: bool = False) -> Problems:
        if as_json:
            with json_array(self.stdout, on_one_line=on_one_line) as write:
                return listing.write_rows(write)
        is_terminal = self.stdout.isatty()
        width = shutil.get_terminal_size().columns if is_terminal else None
        return listing.write_lines(self.stdout.write, width)

    def _watch(self, listing: Listing, interval: float, *, as_json: bool) -> None:
        """List until Ctrl-C. What is wrong with a store is not repeated while it stays so."""
        told: Problems = []
        try:
            while True:
                if self.stdout.isatty() and not as_json:
                    self._draw(listing, interval)
                else:
                    problems = self._list(listing, as_json=as_json, on_one_line=True)
                    if not as_json:
                        self.stdout.write("")  # between two tables
                    if problems != told:
                        self.stderr.write("\n".join(problems) or "All stores are listed again.")
                        told = problems
                self.stdout.flush()
                sleep(interval)
                close_old_connections()  # a broken one would stay so
        except KeyboardInterrupt:
            pass

    def _draw(self, listing: Listing, interval: float) -> None:
        """Draw the listing over the previous one, as far as the terminal has room."""
        size = shutil.get_terminal_size()
        lines: list[str] = []
        problems = listing.write_lines(lines.append, size.columns)
        heading = f"{time_of(datetime.now(UTC))}, every {interval:g} s until Ctrl-C"
        self.stdout.write(screen([heading, *problems, *lines], size), ending="")
