"""Processes that don't outlive the process that starts them, however that ends."""

from __future__ import annotations

import shutil
import signal
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


def tied(command: Sequence[str], fault: signal.Signals = signal.SIGTERM) -> list[str]:
    """Return a command that does the same, and gets `fault` when the thread that ran it has ended.

    A killed test run can't stop its servers itself. Only Linux offers this (prctl(2)).
    """
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", fault.name[3:], *command] if setpriv else list(command)


def run_line(
    line: str, directory: Path, environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run a line as a shell does, without input; what it prints on stderr is in `stdout`, too."""
    return subprocess.run(
        tied(["bash", "-c", line]),
        cwd=directory,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
