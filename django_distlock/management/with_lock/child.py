"""The process that with_lock runs under the lock, and its process group."""

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

TO_GROUP: Final = frozenset(
    {signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGWINCH, signal.SIGTSTP, signal.SIGCONT}
)
"""Signals that a terminal sends to a whole process group."""

FIRST: Final = 1
"""The process that inherits the children of all that end."""
ALL: Final = -1


class Child:
    """The command's process. It leads a process group of its own, with its children.

    It has the standard streams of this process, and no other file of it.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start it; OSError if that is not possible."""
        self._process = subprocess.Popen(command, env=environment, process_group=0)
        self.pid = self._process.pid
        self.has_ended = False
        self.exit_code = 0
        """The exit code as shells have it, when it has ended."""
        self.stopped_by: int | None = None
        """The signal that suspended it; None if it isn't suspended."""

    def send(self, number: int) -> None:
        """Send a signal to the command, or to its group if a terminal would do so."""
        if number in TO_GROUP:
            self.send_to_group(number)
        elif not self.has_ended:
            os.kill(self.pid, number)

    def send_to_group(self, number: int) -> None:
        """Send a signal to the command and to all that it has started in its group."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)
        if number == signal.SIGCONT:
            self.stopped_by = None

    def terminate(self) -> None:
        """Ask all in the group to end, also those that are suspended."""
        self.send_to_group(signal.SIGTERM)
        self.send_to_group(signal.SIGCONT)

    def kill(self) -> None:
        """Kill all in the group, and wait for the command's end."""
        self.send_to_group(signal.SIGKILL)
        self._process.wait()

    def has_group(self) -> bool:
        """Return whether anything of the group still runs."""
        try:
            os.killpg(self.pid, 0)
        except (ProcessLookupError, PermissionError):  # macOS says the latter of zombies
            return False
        return not (self.has_ended and is_group_of_zombies(self.pid))

    def reap(self) -> None:
        """Record whether the command has ended, or was suspended.

        The first process of a container reaps every orphan, too.
        """
        waited_for = ALL if os.getpid() == FIRST else self.pid
        with suppress(ChildProcessError):
            while (found := os.waitpid(waited_for, os.WNOHANG | os.WUNTRACED)) != (0, 0):
                pid, status = found
                if pid != self.pid:
                    continue
                if os.WIFSTOPPED(status):
                    self.stopped_by = os.WSTOPSIG(status)
                else:
                    self._end(os.waitstatus_to_exitcode(status))

    def _end(self, code: int) -> None:
        self.has_ended = True
        self._process.returncode = code
        self.exit_code = 128 - code if code < 0 else code


def is_group_of_zombies(group: int) -> bool:
    """Return whether all of the process group has ended, and waits to be reaped.

    Some containers' first process takes seconds for that, or never does it. False where Linux's
    /proc is missing.
    """
    states = set()
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended
            state, _, its_group, *_ = file.read_text().rpartition(")")[2].split()
            if int(its_group) == group:
                states.add(state)
    return bool(states) and states <= {"Z", "X"}
