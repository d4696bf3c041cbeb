"""Run a command while holding a lock: `manage.py with_lock deploy:migrate -- command args…`."""

import math
import sys
from argparse import PARSER, ArgumentParser, ArgumentTypeError
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from django.core.management.base import CommandError

from django_distlock.arguments import parse_duration, validate_timeout
from django_distlock.backends.memory import MemoryBackend
from django_distlock.exceptions import LockNotAcquired
from django_distlock.management.base import LockCommand, find_store
from django_distlock.management.exit_codes import ExitCode, usage_error
from django_distlock.management.options import add_backend_option, semaphore
from django_distlock.management.with_lock.command_lock import CommandLock, LockRequest
from django_distlock.management.with_lock.running import run_locked
from django_distlock.semaphores.validation import InvalidSemaphore

TTL: Final = 60.0
"""The lease's ttl if the store's own is unlimited: a killed with_lock must not keep the lock."""
GRACE: Final = 10.0


class Command(LockCommand):
    """Run a command while holding a lock."""

    help = (
        "Runs a command while it holds a lock, and exits with the command's exit code. Renews the "
        "lock meanwhile, and releases it when the command has ended. If the lock is lost, the "
        "command is stopped. Signals are passed on to the command."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "semaphore", type=semaphore, help="the name of the lock, such as deploy:migrate"
        )
        parser.add_argument(
            "--timeout",
            type=seconds_or_none,
            default=0.0,
            metavar="DURATION",
            help="how long to wait for the lock: 300 (seconds), 5m, or none to wait as long as it "
            "takes (default: 0, don't wait)",
        )
        parser.add_argument(
            "--ttl",
            type=seconds,
            metavar="DURATION",
            help="how long the lock outlives a killed with_lock or an unreachable store: 60 "
            "(seconds), or 5m (default: the store's ttl)",
        )
        parser.add_argument(
            "--label", metavar="TEXT", help="shown in lists of locks (default: the command's name)"
        )
        add_backend_option(parser)
        parser.add_argument(
            "--conflict-exit-code",
            type=exit_code,
            default=ExitCode.CONTENDED.value,
            metavar="NUMBER",
            help="exit code if the lock is still held or paused after --timeout (default: 75)",
        )
        parser.add_argument(
            "--grace",
            type=seconds,
            default=GRACE,
            metavar="DURATION",
            help="when the command is stopped: the time between SIGTERM and SIGKILL (default: 10 "
            "seconds; at most a third of the ttl)",
        )
        parser.epilog = "Example: manage.py with_lock deploy:migrate -- python manage.py migrate"
        parser.add_argument(
            "command",
            nargs=PARSER,  # which leaves the command's own options, and a further --, as they are
            help="the command and its arguments, after --",
        )

    def handle(
        self,
        *,
        semaphore: str,
        timeout: float | None,
        ttl: float | None,
        label: str | None,
        backend: str,
        conflict_exit_code: int,
        grace: float,
        command: list[str],
        **options: Any,
    ) -> None:
        if command[0] == "--":  # where argparse leaves it depends on what precedes it
            del command[0]
        store = find_store(backend)
        if isinstance(store, MemoryBackend):
            raise usage_error(f"DISTLOCK[{backend!r}] keeps locks in one process's memory.")
        if ttl is None:
            ttl = store.ttl or TTL
        grace = min(grace, ttl / 3)
        request = LockRequest(
            semaphore, backend, ttl, default_label(command) if label is None else label
        )
        try:
            validate_timeout(timeout)
            lock = CommandLock(store, request, grace)
        except (TypeError, ValueError) as error:
            raise usage_error(str(error)) from error
        try:
            code = run_locked(command, lock, timeout, grace, self._report)
        except LockNotAcquired as error:
            raise CommandError(str(error), returncode=conflict_exit_code) from error
        except InvalidSemaphore as error:  # as the store says, which was asked
            raise usage_error(str(error)) from error
        if code:
            sys.exit(code)

    def _report(self, text: str) -> None:
        with suppress(OSError):  # its reader has left, or the terminal is gone
            self.stderr.write(f"with_lock: {text}")
            self.stderr.flush()


def seconds(text: str) -> float:
    """Return an argument that is a number of seconds, or a duration such as `5m`."""
    try:
        found = float(text)
    except ValueError:
        try:
            found = parse_duration(text).total_seconds()
        except ValueError as error:
            raise ArgumentTypeError(f"{error} Or write a number of seconds.") from error
    if not 0 <= found < math.inf:
        raise ArgumentTypeError(f"{text!r} is no number of seconds from 0 up.")
    return found


def seconds_or_none(text: str) -> float | None:
    """Return the same, or None for the text `none`."""
    return None if text == "none" else seconds(text)


def exit_code(text: str) -> int:
    """Return an argument that is an exit code."""
    if not text.isdecimal() or int(text) > 255:
        raise ArgumentTypeError(f"{text!r} is no exit code from 0 to 255.")
    return int(text)


def default_label(command: list[str]) -> str:
    """Return the command's name: `migrate` of `python manage.py migrate`, else the program's."""
    program, *arguments = [Path(each).name for each in command[:3]]
    if program.startswith("python"):
        match arguments:
            case ["manage.py" | "-m", name]:
                return name
            case [script, *_] if not script.startswith("-"):
                return script
    return program
