"""Release a lock by force, after a look at its holder: for a lock that is stuck."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError

from django_distlock.arguments import printable
from django_distlock.management import options
from django_distlock.management.base import LockCommand, find_store
from django_distlock.management.forced_release import description, held_lock, in_short
from django_distlock.management.operators import operating_system_user
from django_distlock.management.options import OutputFormat
from django_distlock.management.output.rows import json_array, lock_row
from django_distlock.management.output.text import holder_of
from django_distlock.management.prompts import confirm, require_terminal
from django_distlock.records import LockInfo


class Command(LockCommand):
    """Release a lock by force."""

    help = (
        "Shows a lock and its holder, asks, and releases the lock by force. Only the grant that "
        "was shown is released: if another holder has got the lock meanwhile, it keeps it."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "semaphore", metavar="SEMAPHORE", type=options.semaphore, help="the name of the lock"
        )
        parser.add_argument(
            "--token",
            type=options.positive_number,
            metavar="NUMBER",
            help="release the lock only if it is held with this token",
        )
        options.add_no_input_option(parser)
        options.add_backend_option(parser)
        options.add_format_option(parser)

    def handle(
        self,
        *,
        semaphore: str,
        token: int | None,
        interactive: bool,
        backend: str,
        output: str,
        **others: Any,
    ) -> None:
        if output == OutputFormat.JSON:
            with json_array(self.stdout) as write:
                released = self._release(semaphore, token, backend, interactive=interactive)
                write(lock_row(backend, released))
        else:
            released = self._release(semaphore, token, backend, interactive=interactive)
            self.stdout.write(
                f"Released {printable(semaphore)}, which {holder_of(released)} held with token "
                f"{released.token}."
            )

    def _release(
        self, semaphore: str, token: int | None, backend: str, *, interactive: bool
    ) -> LockInfo:
        """Release the lock, and return it as it was seen before."""
        store = find_store(backend)
        lock = held_lock(store, semaphore)
        if lock.token is None or token not in (None, lock.token):
            raise CommandError(f"Nothing was released: {in_short(lock)}.")
        self.stderr.write("\n".join(description(store, lock)), style_func=str)
        if interactive:
            require_terminal()
            if not confirm(self, "Release it by force?"):
                raise CommandError("Nothing was released.")
        if not store.force_release(semaphore, lock.token, by=operating_system_user()):
            raise CommandError(
                f"Nothing was released: {in_short(held_lock(store, semaphore))} now."
            )
        return lock
