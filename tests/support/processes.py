"""Run worker processes in a test."""

import json
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Self

from django.db import connections

from tests.support.children import tied
from tests.support.paths import ROOT


def worker_environment() -> dict[str, str]:
    """Return an environment in which tests.settings leads to this test's databases."""
    return {
        **os.environ,
        **_database_variables(),
        "DJANGO_SETTINGS_MODULE": "tests.settings",
        "PYTHONPATH": str(ROOT),
    }


def _database_variables() -> dict[str, str]:
    """Return variables with each database's present name: in a test, the test database's."""
    variables = {}
    for connection in connections.all():
        name = str(connection.settings_dict["NAME"])
        if connection.alias == "default":
            variables["DISTLOCK_TEST_SQLITE"] = name
        elif connection.vendor != "sqlite":
            variable = f"DISTLOCK_TEST_{connection.alias.upper()}"
            entry = json.loads(os.environ[variable])
            variables[variable] = json.dumps({**entry, "NAME": name})
    return variables


def send_and_wait(process: "subprocess.Popen[Any]", fault: signal.Signals) -> None:
    """Kill or stop the process, and wait until none of its threads runs any more.

    Until then a waiter in it may still be granted a lock that is released now, and keep it.
    """
    process.send_signal(fault)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WSTOPPED | os.WNOWAIT)


class Workers:
    """Processes that do one of the things in tests/support/workers, all at once."""

    def __init__(self, number: int, *command: str, **environment: str) -> None:
        self.processes = [
            subprocess.Popen(
                tied([sys.executable, "-m", "tests.support.workers", *command]),
                env=worker_environment() | environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(number)
        ]

    def __enter__(self) -> Self:
        for process in self.processes:
            assert self.read(process) == "ready\n"
        self.proceed()
        return self

    def __exit__(self, *exception: object) -> None:
        for process in self.processes:
            process.kill()
            process.communicate()

    def read(self, process: subprocess.Popen[str]) -> str:
        """Return the next line that the worker prints."""
        assert process.stdout is not None
        return process.stdout.readline()

    def proceed(self) -> None:
        """Send a line to each worker that waits for one to continue or stop."""
        for process in self.processes:
            assert process.stdin is not None
            process.stdin.write("go on\n")
            process.stdin.flush()

    def results(self) -> list[Any]:
        """Wait for all to end, each well, and return what they printed."""
        results = [json.loads(self.read(process) or "null") for process in self.processes]
        with suppress(OSError):  # one that has failed has ended
            self.proceed()
        assert [process.wait(60) for process in self.processes] == [0] * len(results)
        return results


@contextmanager
def forked(work: Any) -> Iterator[None]:
    """Run this in a forked child, in parallel."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # about other threads
        pid = os.fork()
    if not pid:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    try:
        yield
    finally:
        assert os.waitpid(pid, 0)[1] == 0
