"""The places of this process's waiters in queues that are polled.

See polled_queue.py for MySQL's family, queue_file.py for SQLite.
"""

import math
import os
import random
from collections.abc import Callable
from contextlib import suppress
from operator import methodcaller
from typing import Final

from django_distlock import clocks
from django_distlock.exceptions import LockBackendUnavailable
from django_distlock.records import REFUSED, Grant, Refusal

from .errors import Conflict, RowLocked
from .places import MANY, Run, places
from .polled_queue import Look
from .queue import ALIVE, TICK
from .statements import LAST, Parameters

FIRST_PAUSE: Final = 0.002
LONGEST_PAUSE: Final = 0.2
"""Seconds between two looks at the queue: at first, for each waiter ahead, and at most."""
GROWTH: Final = 1.5
"""How much longer each pause is than the one before, while nobody leaves the queue."""


class PolledPlace:
    """A waiter's place in the table."""

    outlasts_failures = False

    def __init__(self, semaphore: str, owner: str, holder: str) -> None:
        self.id: int | None = None
        self.owner = owner
        self._waiter: Parameters = {"semaphore": semaphore, "owner": owner, "holder": holder}
        self._seen_at = -math.inf
        self._looked_at = -math.inf
        self._ahead = -1
        self._is_followed = False
        self._pause = FIRST_PAUSE

    @property
    def patience(self) -> float:
        """Seconds after which to look again."""
        return random.uniform(self._pause / 2, self._pause)  # noqa: S311 - not for secrets

    def check(self) -> None:
        """Do nothing: each attempt shows whether the server is there."""

    def join(self, run: Run) -> None:
        """Enter the queue."""
        try:
            self._enter(run)
        except LockBackendUnavailable as error:
            if not error.reply_lost:
                raise
            # Once more, as an acquisition does. If there are two rows now, one is soon outdated.
            self._enter(run)
        places[self.owner] = self

    def _enter(self, run: Run) -> None:
        """Enter the queue at its former place, or at the end, unless another writer is in the way.

        Then it does so at its next look.
        """
        now = clocks.monotonic()
        with suppress(RowLocked):
            waiter = self._waiter | {"place": self.id}
            self.id = run(lambda sql: sql.join(sql.fitting(waiter)), (Conflict,))
            self._seen_at = now

    def attempt(
        self,
        run: Run,
        acquire: Callable[[Parameters], Grant | Refusal],
        parameters: Parameters,
    ) -> Grant | Refusal:
        """Try to acquire the lock, if it is this waiter's turn."""
        if not self._ahead and clocks.monotonic() - self._looked_at < TICK:
            self._back_off()
            return acquire(parameters | {"place": 0})
        was_ahead = self._ahead
        look = self._look(run)
        self._ahead, self._is_followed = look.ahead, look.is_followed
        if look.ahead == was_ahead:
            self._back_off()
        else:
            self._pause = FIRST_PAUSE * max(1, look.ahead)
        if not look.ahead:
            return acquire(parameters | {"place": 0})
        if look.refusal is not None:
            return look.refusal
        # A lock that stays free is paused.
        return acquire(parameters) if look.ahead == was_ahead else REFUSED

    def _back_off(self) -> None:
        self._pause = min(GROWTH * self._pause, LONGEST_PAUSE)

    def _look(self, run: Run) -> Look:
        """Look at the queue, and show those behind and newcomers that this waiter is there."""
        waiter = self._waiter | {"place": LAST if self.id is None else self.id}
        self._looked_at = clocks.monotonic()
        look: Look = run(lambda sql: sql.look(waiter), (Conflict,))
        if not look.is_there:
            self._enter(run)
        elif clocks.monotonic() - self._seen_at > TICK:
            self._seen_at = clocks.monotonic()
            self._write(run, "heartbeat", waiter)
        if look.reserved < ALIVE / 1_000_000 - TICK:
            self._write(run, "reserve", waiter)
        return look

    def leave(self, run: Run, *, granted: bool) -> None:
        """Leave the queue: with a lock that others wait for, after its release."""
        places.pop(self.owner, None)
        if granted and self._is_followed:
            if len(granted_places) >= MANY:  # those that were lost, and never released
                granted_places.clear()
            granted_places[self.owner] = self
        else:
            self.delete(run)

    def delete(self, run: Run) -> None:
        """Delete its row, and let anybody have the lock if there is no other."""
        self._write(run, "leave", self._waiter | {"place": self.id})

    def _write(self, run: Run, action: str, parameters: Parameters) -> None:
        """Write to the queue. If another writer is in the way, look again: rows outdate soon."""
        try:
            run(methodcaller(action, parameters), (Conflict,))
        except RowLocked:
            self._looked_at = -math.inf


granted_places: dict[str, PolledPlace] = {}
"""The places of waiters that have the lock by now, by their owners."""

os.register_at_fork(after_in_child=granted_places.clear)
