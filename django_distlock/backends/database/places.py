"""The places of this process's waiters in PostgreSQL's queues: see listening.py."""

import os
import random
from collections.abc import Callable
from itertools import count
from typing import Any, Final, Protocol

from django_distlock.exceptions import LockBackendUnavailable
from django_distlock.records import REFUSED, Grant, Refusal
from django_distlock.threads import NoThread

from .errors import Conflict
from .statements import Parameters

FIRST_RETRY_ALONE: Final = 0.01
FIRST_RETRY: Final = 0.1
RETRY: Final = 1.0
"""Seconds after which a waiter tries by itself: the first time, and later.

A release that was under way when it joined may not have seen it, if nobody else waited.
"""
POLL_INTERVAL: Final = 0.2
"""At most, while the process doesn't receive notifications: not yet, or not now."""


class Listening(Protocol):
    """What receives the offers to the waiters of this process: see listening.Listener."""

    process: int

    @property
    def is_listening(self) -> bool: ...
    def is_silent(self) -> bool: ...
    def add(self, place: "QueuedPlace") -> object: ...
    def remove(self, place: "QueuedPlace") -> None: ...


Run = Callable[..., Any]
"""Runs statements as the running thread's store does, within its time budget."""


class QueuedPlace:
    """A waiter's place in the table."""

    outlasts_failures = False

    def __init__(
        self,
        listener: Listening,
        semaphore: str,
        owner: str,
        holder: str,
        wake: Callable[[], object],
    ) -> None:
        self.id: int | None = None
        self.number = next(_numbers)
        self.owner = owner
        self.wake = wake
        self._listener = listener
        self._semaphore = semaphore
        self._holder = holder
        self._offered = False
        self._missing = False
        self._patience = RETRY

    @property
    def patience(self) -> float:
        """Seconds after which to try again, unless woken."""
        seconds, self._patience = self._patience, RETRY
        if self._listener.is_listening:
            return seconds
        return min(seconds, random.uniform(POLL_INTERVAL / 2, POLL_INTERVAL))  # noqa: S311 - not for secrets

    def check(self) -> None:
        """Do nothing: each attempt shows whether the server is there."""

    def join(self, run: Run) -> bool:
        """Enter the queue; return False where waiters can't be woken."""
        joined = False
        try:
            # First, so that it is known when it is notified.
            self._listener.add(self)
            self._enter(run)
            places[self.owner] = self
            joined = True
        except NoThread:
            pass
        finally:
            if not joined:
                self._listener.remove(self)
        return joined

    def _enter(self, run: Run) -> None:
        self._offered = self._missing = False
        parameters: Parameters = {
            "semaphore": self._semaphore,
            "owner": self.owner,
            "holder": self._holder,
            "process": self._listener.process,
            "number": self.number,
            "place": self.id,
            "heartbeat": self._listener.is_silent(),
            "again": False,
        }
        try:
            entered = run(lambda sql: sql.join(sql.fitting(parameters)), (Conflict,))
        except LockBackendUnavailable as error:
            if not error.reply_lost:
                raise
            # Once more, as an acquisition does: the connection may have been cut long ago.
            parameters["again"] = True
            entered = run(lambda sql: sql.join(sql.fitting(parameters)), (Conflict,))
        self.id, is_free, is_alone = entered
        self._patience = FIRST_RETRY_ALONE if is_alone else FIRST_RETRY
        if is_free:
            self.wake()

    def offer(self) -> None:
        """Note that the lock is this owner's, if it takes it now."""
        self._offered = True
        self.wake()

    def miss(self) -> None:
        """Note that its row is gone: the lock may have been offered to it, or not."""
        if not self._offered:
            self._missing = True
            self.wake()

    def take(self, run: Run, parameters: Parameters) -> Grant | Refusal:
        """Take the lock if it was offered."""
        if not (self._offered or self._missing):
            return REFUSED
        taken: Grant | Refusal = run(lambda sql: sql.take(parameters), (Conflict,))
        return taken

    def attempt(
        self,
        run: Run,
        acquire: Callable[[Parameters], Grant | Refusal],
        parameters: Parameters,
    ) -> Grant | Refusal:
        """Take the lock if it was offered; else try to acquire it, before those behind."""
        parameters = parameters | {"place": self.id}
        outcome = self.take(run, parameters) or acquire(parameters)
        if not outcome:
            self.join_again(run)
        return outcome

    def join_again(self, run: Run) -> None:
        """Return to the place in the queue, if the offer has ended."""
        if self._offered or self._missing:
            self._enter(run)

    def leave(self, run: Run, *, granted: bool) -> None:
        """Leave the queue; an offer that is of no use any more goes to the next waiter."""
        places.pop(self.owner, None)
        self._listener.remove(self)
        if granted:
            remember(self.owner)
            if self._offered:
                return
        queued = not self._offered and run(lambda sql: sql.leave(self.id))
        if not (granted or queued):
            offered = {"semaphore": self._semaphore, "owner": self.owner, "ttl": 0}
            run(lambda sql: sql.hand_over(offered))


class Attempting(Protocol):
    """A place whose waiter tries to acquire the lock: here, or see polled_places.py."""

    def attempt(
        self,
        run: Run,
        acquire: Callable[[Parameters], Grant | Refusal],
        parameters: Parameters,
    ) -> Grant | Refusal:
        """Try, if it is the waiter's turn."""
        ...

    def leave(self, run: Run, *, granted: bool) -> None:
        """Leave the queue."""
        ...


places: dict[str, Attempting] = {}
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
    """Return whether this owner had to wait, and forget it: others may be waiting by now."""
    return bool(_waited) and _waited.pop(owner, owner) is None


def _forget_waiters() -> None:
    """Have no waiters, in a forked child."""
    places.clear()
    _waited.clear()


os.register_at_fork(after_in_child=_forget_waiters)
