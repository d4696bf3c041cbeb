"""The operating system's signals: they end the wait for the lock, later they go to the command."""

import os
import select
import signal
from collections import deque
from contextlib import ExitStack, suppress
from types import FrameType
from typing import Final, Self

ENDING: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
"""These end the wait for the lock."""
OTHERS: Final = (
    *(signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH),
    *(signal.SIGTSTP, signal.SIGCONT, signal.SIGCHLD),
)
"""These, too, are for a running command, or tell of it."""
MOST: Final = 4096


class Interrupted(BaseException):
    """A signal ended the wait for the lock. The argument is its number."""

    @property
    def exit_code(self) -> int:
        """The exit code as shells have it."""
        return 128 + int(self.args[0])


class Signals:
    """The signals that this process gets, from the start of the wait to the end of the block.

    One that is ignored stays ignored, as `nohup` wants it, here and in the command.
    """

    def __init__(self) -> None:
        self._collects = False
        self._received: deque[int] = deque()
        self._restore = ExitStack()

    def __enter__(self) -> Self:
        self._reading, self._writing = os.pipe()
        self._restore.callback(os.close, self._reading)
        self._restore.callback(os.close, self._writing)
        os.set_blocking(self._reading, False)
        os.set_blocking(self._writing, False)
        # Whichever thread gets a signal, this wakes the main thread.
        earlier = signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        self._restore.callback(signal.set_wakeup_fd, earlier)
        self._handle(ENDING)
        return self

    def __exit__(self, *exception: object) -> None:
        self._collects = True
        self._restore.close()

    def _handle(self, numbers: tuple[signal.Signals, ...]) -> None:
        for number in numbers:
            earlier = signal.getsignal(number)
            if earlier is not signal.SIG_IGN:
                self._restore.callback(signal.signal, number, earlier)
                signal.signal(number, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if not self._collects:
            self._collects = True  # a second one must not interrupt leaving the queue
            raise Interrupted(number)
        self._received.append(number)

    def collect(self) -> None:
        """Collect signals from now on, for wait(); none raises Interrupted any more."""
        self._collects = True
        self._handle(OTHERS)

    def wait(self, seconds: float | None) -> list[int]:
        """Return the signals that came since the last call; wait for one, or for wake()."""
        select.select([self._reading], [], [], 0 if self._received else seconds)
        with suppress(BlockingIOError):
            os.read(self._reading, MOST)
        received = []
        while self._received:
            received.append(self._received.popleft())
        return received

    def wake(self) -> None:
        """End a wait(), from any thread."""
        with suppress(BlockingIOError):  # full: it is about to end
            os.write(self._writing, b"\0")
