"""Who waits for which lock in this process, in order: the first asks the store, for all of them."""

import asyncio
import os
import threading
from collections import deque
from typing import Final, Protocol

from django_distlock import clocks

MOMENT: Final = 0.1
"""Seconds for which a lock that was handed over counts as contended."""
MANY: Final = 10_000


class Waiter(Protocol):
    """A thread or a task that waits."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None: ...
    def wake(self) -> bool: ...


class Queue:
    """The threads of this process that wait for a lock, or the tasks of an event loop that do.

    They are kept apart, since a task that asks may need a thread in which another one waits.
    """

    __slots__ = ("_waiters",)

    def __init__(self) -> None:
        self._waiters: deque[Waiter] = deque()

    def __bool__(self) -> bool:
        return bool(self._waiters)

    def add(self, waiter: Waiter) -> None:
        """Let it be the last."""
        self._waiters.append(waiter)

    def remove(self, waiter: Waiter) -> None:
        """Let it wait no more: if it was the first, it is the next one's turn."""
        if waiter in self._waiters:
            was_first = self.is_first(waiter)
            self._waiters.remove(waiter)
            if was_first:
                self.wake_first()

    def is_first(self, waiter: Waiter) -> bool:
        """Tell whether it is its turn to ask the store."""
        return self._waiters[0] is waiter

    def wake_first(self) -> None:
        """Let the first one ask now."""
        if self._waiters:
            self._waiters[0].wake()


class Queues:
    """The queues of this process, of which each lock has one for threads and one for each loop."""

    def __init__(self) -> None:
        self.begin_anew()

    def begin_anew(self) -> None:
        """Know of no waiter, as a child that was forked."""
        # Reentrant: what is collected in between may release a lock.
        self._changing = threading.RLock()
        self._of: dict[tuple[str, str], dict[asyncio.AbstractEventLoop | None, Queue]] = {}

    def __len__(self) -> int:
        return len(self._of)

    def join(self, backend: str, semaphore: str, waiter: Waiter) -> Queue:
        """Let the waiter be the last in the queue for this lock."""
        with self._changing:
            queues = self._of.setdefault((backend, semaphore), {})
            queue = queues.setdefault(waiter.loop, Queue())
            queue.add(waiter)
        return queue

    def leave(self, backend: str, semaphore: str, waiter: Waiter) -> None:
        """Let it wait no more, if it does."""
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
        """Tell whether there is one for this lock, to stand in rather than to overtake it."""
        return bool(self._of) and loop in self._of.get((backend, semaphore), ())

    def tell_free(self, backend: str, semaphore: str) -> None:
        """Let the first ones that wait for this lock ask now."""
        if not self._of:
            return
        with self._changing:
            for queue in self._of.get((backend, semaphore), {}).values():
                queue.wake_first()


class Contended:
    """The locks that this process handed over a moment ago: somebody else has them, most likely.

    Who may wait for one joins its queue, rather than to be refused first.
    """

    def __init__(self) -> None:
        self._until: dict[tuple[str, str], float] = {}

    def add(self, backend: str, semaphore: str) -> None:
        """Remember it, for a moment."""
        if len(self._until) >= MANY:
            self._until.clear()
        self._until[backend, semaphore] = clocks.monotonic() + MOMENT

    def has(self, backend: str, semaphore: str) -> bool:
        """Tell whether that was a moment ago, and forget it."""
        return bool(self._until) and self._until.pop((backend, semaphore), 0) > clocks.monotonic()

    def clear(self) -> None:
        """Forget all."""
        self._until.clear()


queues = Queues()
contended = Contended()


def _begin_anew() -> None:
    queues.begin_anew()
    contended.clear()


os.register_at_fork(after_in_child=_begin_anew)
