"""Waiters' places in the queues of servers that notify a process when its turn has come."""

from collections.abc import Callable
from typing import Any, ClassVar, Protocol

from django_distlock.backends.sync_driver import run_sync

from .calls import BLOCKING, IN_LOOP, Calls


class QueueListener(Protocol):
    """The listener that wakes a waiter, and takes it out of the queue."""

    async def leave(
        self, calls: Calls, place: Any, granted: bool, deadline: float | None = None
    ) -> None:
        """See QueuedPlace.leave()."""
        ...


class QueuedPlace:
    """A waiter's place in the queue of a lock."""

    __slots__ = ("_listener", "number", "wake")

    outlasts_failures: ClassVar[bool] = False

    def __init__(self, listener: QueueListener, number: int, wake: Callable[[], object]) -> None:
        self._listener = listener
        self.number = number
        self.wake = wake

    def leave(self, *, granted: bool, deadline: float | None = None) -> None:
        """Stop waiting: the lock was granted, or the waiter withdraws, even from an offer.

        Without a deadline, by the local monotonic clock, the server has its own timeout for it.
        """
        run_sync(self._listener.leave(BLOCKING, self, granted, deadline))

    async def aleave(self, *, granted: bool, deadline: float) -> None:
        """See leave()."""
        await self._listener.leave(IN_LOOP, self, granted, deadline)
