"""The process that stops the command if with_lock is killed, seen from with_lock."""

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

from . import watchdog_process

LONGEST: Final = 1.0
"""Seconds for which its end is waited for: it has nothing to do."""


class Watchdog:
    """A process that stops a command, with its process group, if this process is killed.

    It outlives this process, unless somebody kills both. It belongs to a session of its own, so the
    signals of a terminal don't reach it.
    """

    def __init__(self) -> None:
        reading, self._writing = os.pipe()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(Path(watchdog_process.__file__))],
                stdin=reading,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )
        finally:
            os.close(reading)

    def guard(self, group: int, grace: float) -> None:
        """Stop this process group if this process is killed from now on."""
        self._write(f"{group} {grace}\n")

    def end(self) -> None:
        """End it: nothing is left to be stopped."""
        self._write("done\n")
        os.close(self._writing)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(LONGEST)

    def _write(self, line: str) -> None:
        with suppress(BrokenPipeError):  # it was killed
            os.write(self._writing, line.encode())
