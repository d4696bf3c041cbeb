"""The process that forks the workers of a run. See workers.py."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Self

import psutil

from tests.faults.clocks import MovedClock, is_installed
from tests.support.children import tied
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from tests.faults.environment import Environment

PATIENCE = 60.0
"""Seconds for what should take one or two, on a busy machine."""


def moves_clocks_of_clients(environment: Environment) -> bool:
    """Return whether each worker has a clock that can be moved."""
    return environment.clients_have_clocks and is_installed()


class Nursery:
    """Starts processes that need not set Django up: they are forked."""

    def __init__(self, environment: Environment, mutant: str = "") -> None:
        self._directory = TemporaryDirectory(prefix="distlock-nursery-")
        clock = MovedClock(Path(self._directory.name, "clock"))
        variables = {
            **os.environ,
            **(clock.variables if moves_clocks_of_clients(environment) else {}),
            **environment.variables(),
            "DJANGO_SETTINGS_MODULE": "tests.faults.fault_settings",
            "DISTLOCK_FAULTS": json.dumps(environment.settings()),
            "PYTHONPATH": str(ROOT),
        }
        self._process = subprocess.Popen(
            tied([sys.executable, "-m", "tests.faults.workers", *filter(None, [mutant])]),
            env=variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        assert self._read() == "ready\n", "the workers' settings are wrong"
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._directory.cleanup()

    def start(self, task: str, work: dict[str, Any]) -> psutil.Process:
        """Fork a process that does this."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"task": task, **work}) + "\n")
        self._process.stdin.flush()
        return psutil.Process(int(self._read()))

    def finish(self, task: str, work: dict[str, Any]) -> None:
        """Fork a process that does this, and wait for its end."""
        with suppress(psutil.NoSuchProcess):  # it has ended already
            self.start(task, work).wait(PATIENCE)
        error = Path(work["directory"], f"{work['name']}.error")
        assert not error.exists(), error.read_text()

    def _read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()
