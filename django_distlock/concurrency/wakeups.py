"""A flag that one thread waits for. A thread, a signal handler or a finalizer may set it."""

import threading
from contextlib import suppress


class Wakeup:
    """A flag: wait() returns when it is set, and clears it.

    It is a bare lock, held while the flag is clear. The alternatives don't work: Event.set() waits
    for a lock inside the event, which a signal handler must not do in the waiting thread; and
    queue.SimpleQueue.get(timeout=…) of Python 3.11 and 3.12 waits for ever if its time is over
    before it begins to wait.
    """

    __slots__ = ("_clear",)

    def __init__(self) -> None:
        self._clear = threading.Lock()
        self._clear.acquire()

    def set(self) -> None:
        """End the current wait, or the next one. Never blocks."""
        with suppress(RuntimeError):  # it is already set
            self._clear.release()

    def wait(self, seconds: float) -> bool:
        """Wait up to this many seconds. Return whether the flag was set."""
        return self._clear.acquire(timeout=min(max(0.0, seconds), threading.TIMEOUT_MAX))
