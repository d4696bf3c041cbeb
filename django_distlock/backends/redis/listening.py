"""The thread that subscribes to a Redis server for the waiters of this process.

Each process has a channel of its own. When a lock is offered to one of its waiters, the waiter's
number arrives there, and it acquires the lock. Messages may be lost, and holders and waiters may
die: so the thread also looks at each queue from time to time. The first look at a free lock hands
it over.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from typing import Any, Final

from django_distlock import clocks
from django_distlock.backends import listening
from django_distlock.backends.listening import CannotListen
from django_distlock.backends.sockets.calls import Calls
from django_distlock.backends.sockets.connections import ServerError
from django_distlock.exceptions import LockBackendUnavailable
from django_distlock.logs import room_logger
from django_distlock.threads import NoThread

from .nodes import Moved, Node
from .places import SOONEST, Keys, QueuedPlace, note_expiry
from .protocol import RedisConnection
from .scripts import JOIN, LEAVE, LOOK, Call, Script

logger = room_logger("redis")

LOOK_EVERY: Final = 0.4
"""Seconds between two looks at a queue."""
OFFERED: Final = 2
"""What look.lua says of a waiter that isn't in the queue any more, but is offered the lock."""


class Listener(listening.Listener[Node, QueuedPlace, RedisConnection]):
    """See listening.Listener."""

    def __init__(self, server: Node) -> None:
        super().__init__(server)
        self._channel = f"distlock:{os.urandom(12).hex()}"
        self._numbers = count()
        self._look_at = 0.0
        self._leaving: list[QueuedPlace] = []
        """Waiters that have left, but may be in their queues all the same."""

    # Callers' side

    async def join(
        self, calls: Calls, keys: Keys, waiter: str, wake: Callable[[], object], deadline: float
    ) -> QueuedPlace | None:
        """Return a place at the end of the queue; None where waiters can't be woken."""
        if not self.may_listen():
            return None
        number = next(self._numbers)
        place = QueuedPlace(self, number, wake, keys, f"{self._channel} {number} {waiter}")
        try:
            ready = self.add(place)
        except NoThread:
            return None
        try:
            await self.until_ready(calls, ready, deadline)
            call, undo = _call(JOIN, place), _call(LEAVE, place)
            left = await self.server.run(calls, call, deadline, undo)
        except CannotListen:
            self.remove(place)
            return None
        except BaseException:
            self._leave_later(place)
            raise
        place.joined = True
        note_expiry([place], left)
        return place

    async def leave(
        self, calls: Calls, place: QueuedPlace, granted: bool, deadline: float | None = None
    ) -> None:
        """Take it out of the queue, and end an offer to it; a grant has done both."""
        place.granted = granted
        self.remove(place)
        if granted:
            return
        if place.failure is not None:
            self._leave_later(place)
            return
        try:
            with suppress(Moved):
                await self.server.run(calls, _call(LEAVE, place), deadline or self._new_deadline())
        except BaseException:
            self._leave_later(place)
            raise

    def _leave_later(self, place: QueuedPlace) -> None:
        """Let the thread take it out of the queue, unless a grant has done so."""
        self.remove(place)
        if not place.granted:
            self._leaving.append(place)

    # The thread

    @contextmanager
    def connect(self) -> Iterator[RedisConnection]:
        connection = self.server.connect(self.server.timeout)
        try:
            connection.takes_pushes = True
            connection.send([("SUBSCRIBE", self._channel)])
            answer = connection.receive()
            if isinstance(answer, ServerError):
                raise CannotListen(answer) if answer.code == "NOPERM" else answer
            self._join_again()
            self._look_at = clocks.monotonic()
            yield connection
        finally:
            connection.close()

    def attend(self, connection: RedisConnection) -> float:
        now = clocks.monotonic()
        if now >= self._look_at:
            self._look_at = now + self._look(now)
        return self._look_at - clocks.monotonic()

    def receive(self, connection: RedisConnection, seconds: float) -> None:
        if connection.has_message(seconds):
            _, _, number = connection.receive()
            self._offer(int(number))

    def failed(self, error: Exception, *, was_listening: bool) -> None:
        """Make waiters poll where listening is forbidden, and end their wait if the server is down.

        A connection that was lost, and nothing else, does not concern them.
        """
        if isinstance(error, CannotListen):
            logger.warning(
                "%s forbids SUBSCRIBE: waiters poll.",
                self.server,
                extra={"reason": str(self.server)},
            )
            for place in self.places():
                place.poll()
        elif not was_listening or isinstance(error, LockBackendUnavailable):
            for place in self.places():
                place.failure = error
                place.wake()

    def _offer(self, number: int) -> None:
        place = self._places.get(number)
        if place is None:
            return
        place.offered_at = clocks.monotonic()
        if place.wake() is False:
            self._leave_later(place)

    def _look(self, now: float) -> float:
        """Look at each queue; return the seconds until the next look."""
        self._remove_leaving()
        queues: dict[Keys, list[QueuedPlace]] = {}
        for place in self.places():
            if place.is_queued(now) and not place.polls:
                queues.setdefault(place.keys, []).append(place)
        soonest = LOOK_EVERY
        answers = self._ask_all(LOOK, [places[0] for places in queues.values()])
        for places, answer in zip(queues.values(), answers, strict=True):
            try:
                self.server.raise_for(answer)
            except Moved:
                for place in places:
                    place.poll()
                continue
            left, known = answer
            note_expiry(places, left)
            soonest = min(soonest, max(places[0].expires_at - now, SOONEST))
            self._check(places[0], known)
        return soonest

    def _check(self, first: QueuedPlace, known: int) -> None:
        """Act on whether the first place of a queue is in it, or is OFFERED the lock.

        If neither, all join again on a new connection: the server may have lost the present one,
        unnoticed here, and count the process as dead.
        """
        if known == OFFERED:
            self._offer(first.number)  # the message was lost
        first.missed = 0 if known else first.missed + 1
        if first.missed > 1:  # once may be chance: the waiter was about to leave
            first.missed = 0
            raise ConnectionResetError(f"{self.server} has forgotten the waiters of this process")

    def _join_again(self) -> None:
        """Put all waiters into their queues; those that are there keep their places."""
        queued = [place for place in self.places() if place.is_queued(clocks.monotonic())]
        self._ask_all(JOIN, queued)
        # A waiter that has left by now may have done so before it joined again.
        left = [place for place in queued if place.number not in self._places]
        self._ask_all(LEAVE, [place for place in left if not place.granted])
        for place in left:
            command = ("ZREM", place.keys[2], place.waiter)
            self.server.ask_all([command], self._new_deadline())

    def _remove_leaving(self) -> None:
        """Take waiters that couldn't leave by themselves out of their queues."""
        leaving = self._leaving[:]
        self._ask_all(LEAVE, leaving)
        del self._leaving[: len(leaving)]

    def _ask_all(self, script: Script, places: list[QueuedPlace]) -> list[Any]:
        if not places:
            return []
        calls = [_call(script, place) for place in places]
        return self.server.run_all(calls, self._new_deadline())

    def _new_deadline(self) -> float:
        return clocks.monotonic() + self.server.timeout


def _call(script: Script, place: QueuedPlace) -> Call:
    return Call(script, place.keys, (place.waiter,))
