"""A flag that one thread waits for, and a thread, a signal's handler or a finalizer may set."""

import threading
from contextlib import suppress


class Wakeup:
    """A flag: wait() returns when it is set, and clears it.

    A bare lock is all it takes, held while the flag is clear. threading.Event has a lock inside
    that set() waits for, which a signal's handler must not do in the thread that waits; and
    queue.SimpleQueue.get(timeout=…) of Python 3.11 and 3.12 waits for ever if its time is over
    before it begins to wait.
    """

    __slots__ = ("_clear",)

    def __init__(self) -> None:
        self._clear = threading.Lock()
        self._clear.acquire()

    def set(self) -> None:
        """End the wait under way, or the next one. Waits for nothing."""
        with suppress(RuntimeError):  # it is set already
            self._clear.release()

    def wait(self, seconds: float) -> bool:
        """Wait until it is set, for so many seconds at most; tell whether it was."""
        return self._clear.acquire(timeout=min(max(0.0, seconds), threading.TIMEOUT_MAX))
