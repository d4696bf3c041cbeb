"""End a pause of locks."""

from argparse import ArgumentParser
from typing import Any

from django_distlock.management.base import LockCommand
from django_distlock.management.pauses import (
    add_pause_arguments,
    find_pausing_store,
    write_pauses,
)


class Command(LockCommand):
    """Resume paused locks."""

    help = (
        "Ends the pause that pause_locks began with the same PREFIX, or with --all. Other pauses "
        "stay. Prints the pauses still in force."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        add_pause_arguments(
            parser,
            prefix_help="the PREFIX that pause_locks was given",
            all_help="end the pause that `pause_locks --all` began",
        )

    def handle(self, *, prefix: str | None, backend: str, output: str, **others: Any) -> None:
        store = find_pausing_store(backend)
        if not store.resume(prefix or ""):
            self.stderr.write("There was no such pause, or it had ended.")
        write_pauses(self.stdout, store, output)
