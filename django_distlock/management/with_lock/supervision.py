"""Supervise the command: pass signals on, share the terminal, stop it when the lock is lost."""

import math
import os
import signal
import time
from collections.abc import Callable
from typing import Final

from django_distlock import clocks

from .child import Child
from .command_lock import CommandLock
from .signals import Signals
from .terminal import Terminal

POLL_INTERVAL: Final = 0.05
"""Seconds between two checks whether the rest of a process group has ended."""
LINGER: Final = 1.0
"""Seconds that processes have to end by themselves after the command, as `tee` does."""
KILLED: Final = 1.0
"""Seconds that a killed process group has to end; a zombie that nobody reaps never does."""

Report = Callable[[str], object]
"""Prints a line for people."""


class Supervision:
    """The main thread's work while the command runs."""

    def __init__(
        self, child: Child, lock: CommandLock, signals: Signals, grace: float, report: Report
    ) -> None:
        self.lost_early = False
        """Whether the command was stopped because the lock was lost."""
        self._child = child
        self._lock = lock
        self._signals = signals
        self._grace = grace
        self._report = report
        self._terminal = Terminal.open()
        self._group = os.getpgrp()
        self._ended_at = math.inf
        self._kill_at = math.inf

    def run(self) -> int:
        """Return the command's exit code when it has ended, and its process group with it."""
        try:
            self._lock.watch(self._signals.wake)
            while not self._is_over():
                for number in self._signals.wait(self._pause()):
                    self._handle(number)
                self._stop_if_needed()
        except BaseException:
            self._child.kill()
            raise
        finally:
            if self._terminal is not None:
                self._terminal.pass_on(self._child.pid, self._group)
                self._terminal.close()
        return self._child.exit_code

    def _is_over(self) -> bool:
        if not self._child.has_ended:
            return False
        return not self._child.has_group() or clocks.monotonic() >= self._kill_at + KILLED

    def _pause(self) -> float | None:
        """Return how long to wait for signals: the end of the command is one, the group's isn't."""
        if self._child.has_ended:
            return POLL_INTERVAL
        if self._kill_at < math.inf:
            return max(POLL_INTERVAL, self._kill_at - clocks.monotonic())
        return None

    def _handle(self, number: int) -> None:
        if number != signal.SIGCHLD:
            self._child.send(number)
            return
        self._child.reap()
        if self._child.has_ended:
            self._ended_at = min(self._ended_at, clocks.monotonic())
        elif self._terminal is not None:
            self._share(self._terminal, self._child.stopped_by)

    def _share(self, terminal: Terminal, stopped_by: int | None) -> None:
        """Give the terminal to the command, if that was suspended because it needs it.

        Not from the start: what else is in this process's group, as `less` in a pipeline, needs it,
        too. If the user has suspended the command, suspend this process, as the shell expects.
        """
        # The last is what a program does that handles the others itself, as top does.
        if stopped_by in (signal.SIGTTIN, signal.SIGTTOU, signal.SIGSTOP):
            if terminal.pass_on(self._group, self._child.pid):
                self._child.send(signal.SIGCONT)
                return
        elif stopped_by != signal.SIGTSTP:
            return
        was_in_foreground = terminal.pass_on(self._child.pid, self._group)
        suspend(self._group)
        self._lock.check_clock()  # the lease was not renewed meanwhile
        if self._lock.loss:
            return
        if was_in_foreground:
            terminal.pass_on(self._group, self._child.pid)
        self._child.send(signal.SIGCONT)

    def _stop_if_needed(self) -> None:
        now = clocks.monotonic()
        if now >= self._kill_at:
            self._child.send_to_group(signal.SIGKILL)
        elif self._kill_at < math.inf or self._is_over():
            return
        elif self._lock.loss:
            self.lost_early = not self._child.has_ended
            self._stop(f"The lock was lost: {self._lock.loss}. Stopping the command.")
        elif now >= self._ended_at + LINGER:
            self._stop("The command has ended, but not all that it started. Stopping that.")

    def _stop(self, reason: str) -> None:
        self._report(reason)
        self._kill_at = clocks.monotonic() + self._grace
        self._child.terminate()


def suspend(group: int) -> None:
    """Suspend this process and its group, as Ctrl-Z does. Return when it goes on.

    At once if no shell could continue it. So a command that keeps reading from a terminal that is
    another's must not make this process busy.
    """
    handler = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
    try:
        os.killpg(group, signal.SIGTSTP)
        time.sleep(POLL_INTERVAL)
    finally:
        signal.signal(signal.SIGTSTP, handler)
