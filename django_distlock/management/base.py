"""The base of the commands for locks."""

import os
import sys
from io import TextIOWrapper
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError

from django_distlock.backends.base import BaseLockBackend
from django_distlock.backends.memory import MemoryBackend
from django_distlock.conf import lock_backends
from django_distlock.exceptions import (
    InvalidLockBackend,
    LockBackendUnavailable,
    LockNotSupported,
)

from .exit_codes import ExitCode, usage_error

STORE_ERRORS: Final = (InvalidLockBackend, LockBackendUnavailable, LockNotSupported)
"""What a store raises that is misconfigured, can't be reached, or lacks an operation."""


class LockCommand(BaseCommand):
    """A command that uses lock stores: an error of theirs ends it with a line, not a traceback."""

    # On MySQL, checks connect to the database. If it is down, the command's own error is one line;
    # that of a check would be a traceback.
    requires_system_checks = ()

    def run_from_argv(self, argv: list[str]) -> None:
        if isinstance(sys.stdout, TextIOWrapper):
            # As on stderr: a semaphore may have what the terminal's encoding lacks.
            sys.stdout.reconfigure(errors="backslashreplace")
        super().run_from_argv(argv)

    def execute(self, *args: Any, **options: Any) -> str | None:
        try:
            output = super().execute(*args, **options)
            self.stdout.flush()
        except STORE_ERRORS as error:
            raise CommandError(str(error), returncode=ExitCode.ERROR) from error
        except KeyboardInterrupt:
            sys.exit(ExitCode.INTERRUPTED)
        except OSError as error:
            # The disk is full, or the reader of a pipe has left, as `head` does. Python would flush
            # the rest at its end, and fail again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            if isinstance(error, BrokenPipeError):
                sys.exit(ExitCode.ERROR)
            raise CommandError(str(error), returncode=ExitCode.ERROR) from error
        return output


def find_store(alias: str) -> BaseLockBackend:
    """Return the store that `--backend` names."""
    try:
        return lock_backends[alias]
    except InvalidLockBackend as error:
        if alias in lock_backends.settings:
            raise
        raise usage_error(str(error)) from error


def unseen_locks(store: BaseLockBackend) -> LockNotSupported | None:
    """Return why a command can't see this store's locks; None if it can."""
    if not isinstance(store, MemoryBackend):
        return None
    return LockNotSupported(
        f"DISTLOCK[{store.alias!r}]: MemoryBackend keeps locks in the memory of each process. This "
        "command is another process than your site, so it can't see or change the site's locks."
    )
