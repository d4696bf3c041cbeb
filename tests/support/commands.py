"""Run the commands for locks as an operator does: in this process, or in one of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from io import StringIO
from typing import TYPE_CHECKING, Any, NamedTuple
from unittest import mock

import pytest
from django.core.management import CommandError, call_command

from tests.support.children import tied
from tests.support.processes import worker_environment

if TYPE_CHECKING:
    from collections.abc import Callable

    from django_distlock.backends.base import BaseLockBackend

HOLDER = "payments (web1 pid 7 MainThread)"
SETTINGS = "tests.support.command_settings"
STORES = [
    pytest.param("memory"),
    pytest.param("default", id="sqlite"),
    *(
        pytest.param(name, marks=pytest.mark.needs(name))
        for name in ("postgresql", "mariadb", "redis", "lock_server")
    ),
]
on_each_store = pytest.mark.parametrize("alias", STORES)
"""Run the test on each store that lists locks."""
on_each_shared_store = pytest.mark.parametrize("alias", STORES[1:])
"""Run it on each that other processes see, too."""


class Outcome(NamedTuple):
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str

    @property
    def rows(self) -> Any:
        """The JSON on stdout."""
        return json.loads(self.out)


class Terminal(StringIO):
    """A terminal at which somebody types this, after something else has happened."""

    def __init__(self, typed: str, before: Callable[[], object] = lambda: None) -> None:
        super().__init__(typed)
        self.before = before

    def readline(self, size: int = -1, /) -> str:  # type: ignore[override]
        """Return what is typed."""
        self.before()
        return super().readline(size)

    def isatty(self) -> bool:
        """Be one."""
        return True


def run_command(
    name: str, *arguments: str, typed: str | None = None, stdin: StringIO | None = None
) -> Outcome:
    """Run the command in this process; without a terminal, unless something is typed there."""
    out, err = StringIO(), StringIO()
    stdin = stdin or (StringIO() if typed is None else Terminal(typed))
    code = 0
    with mock.patch.object(sys, "stdin", stdin):
        try:
            call_command(name, *arguments, stdout=out, stderr=err)
        except CommandError as error:
            code = error.returncode
            err.write(f"CommandError: {error}\n")
    return Outcome(code, out.getvalue(), err.getvalue())


def start_command(name: str, *arguments: str, **options: Any) -> subprocess.Popen[str]:
    """Start the command in a process of its own, in settings with this test's databases."""
    return subprocess.Popen(
        tied([sys.executable, "-m", "django", name, *arguments]),
        # With the buffers that pipes have unless a variable says otherwise.
        env=worker_environment() | {"DJANGO_SETTINGS_MODULE": SETTINGS, "PYTHONUNBUFFERED": ""},
        **{
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "text": True,
            **options,
        },
    )


def end_command(process: subprocess.Popen[str]) -> Outcome:
    """Wait for its end."""
    out, err = process.communicate(timeout=60)
    return Outcome(process.returncode, out, err)


def token_of(store: BaseLockBackend, semaphore: str) -> int | None:
    """Return the token that holds the lock; None if none does."""
    return next((lock.token for lock in store.held(semaphore, limit=1)), None)
