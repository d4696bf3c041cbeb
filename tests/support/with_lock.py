"""Run with_lock: in this process, or in one of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from io import StringIO
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import psutil
from django.core.management import CommandError, call_command
from django.db import connections

from tests.support.children import tied
from tests.support.concurrency import until
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

NAME = "deploy:migrate"


class Ended(NamedTuple):
    """How with_lock ended."""

    code: int
    complaints: str


def run(*arguments: str, backend: str = "default") -> Ended:
    """Run with_lock in this process. The command that it runs is a process of its own."""
    errors = StringIO()
    try:
        call_command("with_lock", NAME, "--backend", backend, *arguments, stderr=errors)
    except SystemExit as end:
        return Ended(int(end.code or 0), errors.getvalue())
    except CommandError as error:
        return Ended(error.returncode, f"{errors.getvalue()}{error}")
    return Ended(0, errors.getvalue())


def run_script(script: str, *arguments: str, backend: str = "default") -> Ended:
    """Run a shell script under the lock."""
    return run(*arguments, "--", "sh", "-c", script, backend=backend)


class WithLock:
    """A process that runs with_lock, with its output."""

    def __init__(
        self,
        *arguments: str,
        database: str = "default",
        begin: tuple[str, ...] = (),
        **streams: Any,
    ) -> None:
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        self.process: subprocess.Popen[str] = subprocess.Popen(
            tied([*begin, sys.executable, "-m", "django", "with_lock", NAME, *arguments]),
            env=environment(settings_of(database)),
            text=True,
            **pipes | streams,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.end()

    def read(self) -> str:
        """Return the next line that the command prints."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def write(self, text: str) -> None:
        """Send input to the command."""
        assert self.process.stdin is not None
        self.process.stdin.write(text)
        self.process.stdin.flush()

    def complaint(self) -> str:
        """Return the next line on stderr."""
        assert self.process.stderr is not None
        return self.process.stderr.readline().strip()

    def end(self, text: str = "") -> tuple[int, str, str]:
        """Send the text as the rest of the input; return the exit code, and the rest of outputs."""
        said, complained = self.process.communicate(text, timeout=60)
        return self.process.returncode, said, complained


@contextmanager
def meanwhile(file: Path, action: Callable[[], object]) -> Iterator[None]:
    """Do this in another thread once the file exists, which the block's command makes."""

    def act() -> None:
        until(file.exists)
        action()

    with ThreadPoolExecutor(1) as thread:
        done = thread.submit(act)
        try:
            yield
        finally:
            file.touch()
        done.result(60)


def is_running(pid: int) -> bool:
    """Return whether the process has not ended; it may not have been reaped yet."""
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def environment(database: dict[str, Any]) -> dict[str, str]:
    """Return an environment for processes that keep their locks in this database."""
    return {
        **os.environ,
        "DISTLOCK_TEST_WITH_LOCK": json.dumps(database),
        "DJANGO_SETTINGS_MODULE": "tests.support.with_lock_settings",
        "PYTHONPATH": str(ROOT),
    }


def settings_of(alias: str) -> dict[str, Any]:
    """Return the settings with which another process connects to a test's database."""
    found = connections[alias].settings_dict
    keys = ("ENGINE", "NAME", "HOST", "PORT", "USER", "OPTIONS")
    return {key: found[key] for key in keys if key in found}


@contextmanager
def empty_database(alias: str) -> Iterator[dict[str, Any]]:
    """Create a database without any table on the alias's server; return its settings."""
    with connections[alias].cursor() as cursor:
        cursor.execute("CREATE DATABASE empty")
        try:
            yield settings_of(alias) | {"NAME": "empty"}
        finally:
            cursor.execute("DROP DATABASE empty")
