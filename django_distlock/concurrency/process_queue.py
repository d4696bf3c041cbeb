"""Order the threads and tasks of this process that wait for the same lock.

Only the first of a queue asks the store, so many waiters cost no more queries than one.
"""

import asyncio
import os
import threading
from collections import deque
from typing import Final, Protocol

from django_distlock import clocks

HANDOVER_SECONDS: Final = 0.1
"""How long a lock that was handed over counts as contended."""
MOST_HANDOVERS: Final = 10_000


class Waiter(Protocol):
    """A thread or task that waits for a lock."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None: ...
    def wake(self) -> bool: ...


class Queue:
    """The waiters for one lock: all threads of this process, or all tasks of one event loop.

    Threads and tasks have separate queues, because a task that asks the store may need a thread in
    which another waiter sits.
    """

    __slots__ = ("_waiters",)

    def __init__(self) -> None:
        self._waiters: deque[Waiter] = deque()

    def __bool__(self) -> bool:
        return bool(self._waiters)

    def add(self, waiter: Waiter) -> None:
        """Append the waiter."""
        self._waiters.append(waiter)

    def remove(self, waiter: Waiter) -> None:
        """Remove the waiter. If it was the first, wake the next one."""
        if waiter in self._waiters:
            was_first = self.is_first(waiter)
            self._waiters.remove(waiter)
            if was_first:
                self.wake_first()

    def is_first(self, waiter: Waiter) -> bool:
        """Return whether it is this waiter's turn to ask the store."""
        return self._waiters[0] is waiter

    def wake_first(self) -> None:
        """Wake the first waiter, so that it asks the store now."""
        if self._waiters:
            self._waiters[0].wake()


class Queues:
    """The queues of this process: for each lock, one for threads and one for each event loop."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget all waiters: a forked child has none of its parent's."""
        # Reentrant: the garbage collector may run here, and release a lock.
        self._changing = threading.RLock()
        self._of: dict[tuple[str, str], dict[asyncio.AbstractEventLoop | None, Queue]] = {}

    def __len__(self) -> int:
        return len(self._of)

    def join(self, backend: str, semaphore: str, waiter: Waiter) -> Queue:
        """Append the waiter to the queue for this lock."""
        with self._changing:
            queues = self._of.setdefault((backend, semaphore), {})
            queue = queues.setdefault(waiter.loop, Queue())
            queue.add(waiter)
        return queue

    def leave(self, backend: str, semaphore: str, waiter: Waiter) -> None:
        """Remove the waiter from the queue for this lock, if it is in there."""
        name = backend, semaphore
        with self._changing:
            queues = self._of.get(name, {})
            if (queue := queues.get(waiter.loop)) is not None:
                queue.remove(waiter)
                if not queue:
                    del queues[waiter.loop]
            if not queues:
                self._of.pop(name, None)

    def has(self, backend: str, semaphore: str, loop: asyncio.AbstractEventLoop | None) -> bool:
        """Return whether there is a queue for this lock, which a new waiter must not overtake."""
        return bool(self._of) and loop in self._of.get((backend, semaphore), ())

    def wake_first(self, backend: str, semaphore: str) -> None:
        """Wake the first waiter of each queue for this lock, which was released."""
        if not self._of:
            return
        with self._changing:
            for queue in self._of.get((backend, semaphore), {}).values():
                queue.wake_first()


class RecentHandovers:
    """Locks that this process just handed over to a waiter, so most likely contended.

    An acquisition that may wait joins the store's queue at once, without a first attempt.
    """

    def __init__(self) -> None:
        self._until: dict[tuple[str, str], float] = {}

    def add(self, backend: str, semaphore: str) -> None:
        """Remember the handover for a moment."""
        if len(self._until) >= MOST_HANDOVERS:
            self._until.clear()
        self._until[backend, semaphore] = clocks.monotonic() + HANDOVER_SECONDS

    def pop(self, backend: str, semaphore: str) -> bool:
        """Return whether the lock was handed over a moment ago, and forget that."""
        return bool(self._until) and self._until.pop((backend, semaphore), 0) > clocks.monotonic()

    def clear(self) -> None:
        """Forget all handovers."""
        self._until.clear()


queues = Queues()
recent_handovers = RecentHandovers()

os.register_at_fork(after_in_child=queues.clear)
os.register_at_fork(after_in_child=recent_handovers.clear)
