"""The controlling terminal: the process group that may read from it and gets its Ctrl-C."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Self


class Terminal:
    """The terminal of this process's session."""

    def __init__(self, file: int) -> None:
        self._file = file

    @classmethod
    def open(cls) -> Self | None:
        """Return the controlling terminal, or None if there is none."""
        try:
            return cls(os.open("/dev/tty", os.O_RDWR))
        except OSError:
            return None

    def close(self) -> None:
        """Close the file; the terminal stays as it is."""
        os.close(self._file)

    @property
    def foreground(self) -> int:
        """The process group in the foreground; 0 if the terminal is gone."""
        with suppress(OSError):
            return os.tcgetpgrp(self._file)
        return 0

    def pass_on(self, giver: int, taker: int) -> bool:
        """Move the foreground from one process group to another; False if the first hasn't it."""
        if self.foreground != giver:
            return False
        with suppress(OSError), _may_write_in_background():
            os.tcsetpgrp(self._file, taker)
            return True
        return False


@contextmanager
def _may_write_in_background() -> Iterator[None]:
    """Block the signal that suspends a process in the background that changes the terminal."""
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTTOU])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
