"""The places of this process's waiters in the queues of a Redis server."""

import math
from collections.abc import Callable
from typing import Final

from django_distlock import clocks
from django_distlock.backends.sockets import places
from django_distlock.exceptions import LockBackendUnavailable

Keys = tuple[str, str, str, str]
"""Those of a lock, its last token, its queue, and the pauses of all locks."""

SOONEST: Final = 0.005
"""Seconds, at least, until something is done about a lock that is about to expire, or has."""
SAFETY: Final = 5.0
"""Seconds after which a waiter tries though it was not woken."""
POLL_INTERVAL: Final = 0.2
"""The same where it will not be woken."""
TAKES: Final = 1.0
"""Seconds after which a waiter that was offered the lock has taken it, or is in the queue again."""


class QueuedPlace(places.QueuedPlace):
    """See places.QueuedPlace."""

    __slots__ = (
        "expires_at",
        "failure",
        "granted",
        "joined",
        "keys",
        "missed",
        "offered_at",
        "polls",
        "waiter",
    )

    def __init__(
        self,
        listener: places.QueueListener,
        number: int,
        wake: Callable[[], object],
        keys: Keys,
        waiter: str,
    ) -> None:
        super().__init__(listener, number, wake)
        self.keys = keys
        self.waiter = waiter
        """The member of the queue: the process's channel, number, owner and holder."""
        self.offered_at = -math.inf
        """When the lock was offered to it, by the local monotonic clock."""
        self.expires_at = math.inf
        """When the lock is free unless its holder renews it, by the same clock."""
        self.failure: Exception | None = None
        """Why it can't be woken any more."""
        self.joined = False
        """Whether it has entered the queue."""
        self.granted = False
        """Whether it has left because the lock was granted to it."""
        self.missed = 0
        """How many looks in a row didn't find it in the queue."""
        self.polls = False
        """Whether it polls, since it will not be woken."""

    @property
    def patience(self) -> float:
        """Seconds after which to try again, unless woken."""
        if self.polls:
            return POLL_INTERVAL
        return min(max(self.expires_at - clocks.monotonic(), SOONEST), SAFETY)

    def check(self) -> None:
        """Raise LockBackendUnavailable if the server is known to be down."""
        if self.failure is not None:
            raise LockBackendUnavailable(str(self.failure)) from self.failure

    def poll(self) -> None:
        """Make the waiter poll from now on."""
        self.polls = True
        self.wake()

    def is_queued(self, now: float) -> bool:
        """Return whether it should be in the queue: no offer was made to it just now."""
        return self.joined and now - self.offered_at > TAKES


def note_expiry(waiting: list[QueuedPlace], left: int) -> None:
    """Note in how many milliseconds the lock expires; below 0 is not known."""
    expires_at = clocks.monotonic() + left / 1000 if left >= 0 else math.inf
    for place in waiting:
        place.expires_at = expires_at
