"""The places of this process's waiters in PostgreSQL's queues: see listening.py."""

import os
import random
from collections.abc import Callable
from itertools import count
from typing import TYPE_CHECKING, Any, Final

from django_distlock.exceptions import LockBackendUnavailable

from .errors import Conflict
from .statements import Parameters, Row

if TYPE_CHECKING:
    from .listening import Listener

ALONE: Final = 0.01
FIRST_PATIENCE: Final = 0.1
PATIENCE: Final = 1.0
"""Seconds after which a waiter tries by itself: the first time, and later on.

A release that was under way when it joined may not have seen it, if nobody else waited.
"""
WITHOUT_EARS: Final = 0.2
"""The most, while the process doesn't hear of what it is offered: not yet, or not now."""


class QueuedPlace:
    """A waiter's place in the table."""

    outlasts_failures = False

    def __init__(
        self,
        listening: "Listener",
        run: Callable[..., Any],
        semaphore: str,
        owner: str,
        holder: str,
        wake: Callable[[], object],
    ) -> None:
        self.id: int | None = None
        self.number = next(_numbers)
        self.owner = owner
        self.wake = wake
        self._listener = listening
        self._run = run
        self._semaphore = semaphore
        self._holder = holder
        self._offered = False
        self._missing = False
        self._patience = PATIENCE

    @property
    def patience(self) -> float:
        """Seconds after which to try again, unless woken."""
        seconds, self._patience = self._patience, PATIENCE
        if self._listener.hears:
            return seconds
        return min(seconds, random.uniform(WITHOUT_EARS / 2, WITHOUT_EARS))  # noqa: S311 - not for secrets

    def check(self) -> None:
        """Do nothing: a try tells whether the server is there."""

    def join(self) -> bool:
        """Wait from now on; False where that can't be done."""
        joined = False
        try:
            # First, so that it is known when it is notified.
            if self._listener.add(self):
                self._enter()
                places[self.owner] = self
                joined = True
        finally:
            if not joined:
                self._listener.remove(self)
        return joined

    def _enter(self) -> None:
        self._offered = self._missing = False
        parameters: Parameters = {
            "semaphore": self._semaphore,
            "owner": self.owner,
            "holder": self._holder,
            "process": self._listener.process,
            "number": self.number,
            "place": self.id,
            "vouch": self._listener.is_silent(),
            "again": False,
        }
        try:
            entered = self._run(lambda lock: lock.join(lock.fitting(parameters)), (Conflict,))
        except LockBackendUnavailable as error:
            if not error.reply_lost:
                raise
            # Once more, as a try is made: the connection may have been cut long ago.
            parameters["again"] = True
            entered = self._run(lambda lock: lock.join(lock.fitting(parameters)), (Conflict,))
        self.id, is_free, is_alone = entered
        self._patience = ALONE if is_alone else FIRST_PATIENCE
        if is_free:
            self.wake()

    def offer(self) -> None:
        """Know that the lock is this owner's, if it takes it now."""
        self._offered = True
        self.wake()

    def miss(self) -> None:
        """Know that it is in the table no more: it may have been offered the lock, or not."""
        if not self._offered:
            self._missing = True
            self.wake()

    def take(self, parameters: Parameters) -> Row | None:
        """Take what was offered, if it was."""
        if not (self._offered or self._missing):
            return None
        row: Row | None = self._run(lambda lock: lock.take(parameters), (Conflict,))
        return row

    def join_again(self) -> None:
        """Wait where it waited before, since the offer has ended."""
        if self._offered or self._missing:
            self._enter()

    def leave(self, *, granted: bool) -> None:
        """Wait no more; if it is offered what is of no use any more, hand that on."""
        places.pop(self.owner, None)
        self._listener.remove(self)
        if granted:
            remember(self.owner)
            if self._offered:
                return
        queued = not self._offered and self._run(lambda lock: lock.leave(self.id))
        if not (granted or queued):
            offered = {"semaphore": self._semaphore, "owner": self.owner, "ttl": 0}
            self._run(lambda lock: lock.hand_over(offered))


places: dict[str, QueuedPlace] = {}
"""The waiters of this process, by their owners."""

_numbers = count(1)
_waited: dict[str, None] = {}
MANY: Final = 10_000


def remember(owner: str) -> None:
    """Remember that this owner had to wait: others will be waiting when it releases."""
    if len(_waited) >= MANY:  # those that were lost, and never released
        _waited.clear()
    _waited[owner] = None


def had_to_wait(owner: str) -> bool:
    """Tell whether to expect that others wait, and forget it."""
    return bool(_waited) and _waited.pop(owner, owner) is None


def _begin_anew() -> None:
    """Have no waiters, as a child that was forked."""
    places.clear()
    _waited.clear()


os.register_at_fork(after_in_child=_begin_anew)
