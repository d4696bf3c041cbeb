"""The places of this process's waiters in the queues of a lock server."""

from collections.abc import Callable
from typing import ClassVar, Final

from django_distlock.backends.sockets import places

from .connections import Request

SAFETY: Final = 5.0
"""Seconds after which a waiter tries though it was not woken."""


class QueuedPlace(places.QueuedPlace):
    """See places.QueuedPlace."""

    __slots__ = ("joined_again", "request")

    outlasts_failures: ClassVar[bool] = True

    def __init__(
        self,
        listener: places.QueueListener,
        number: int,
        wake: Callable[[], object],
        request: Request,
    ) -> None:
        super().__init__(listener, number, wake)
        self.request = request
        self.joined_again = False
        """Whether the thread has sent the request once more."""

    @property
    def patience(self) -> float:
        """Seconds after which to try again, unless woken."""
        return SAFETY

    @property
    def leaving(self) -> Request:
        """Return the request to leave the queue."""
        return {"do": "leave", **{name: self.request[name] for name in ("semaphore", "owner")}}

    def check(self) -> None:
        """Do nothing: a server that is down may be back before the wait is over."""
