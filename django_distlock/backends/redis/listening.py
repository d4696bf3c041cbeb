"""Who waits in this process for locks in a Redis server, and what the server tells them.

A thread for each server listens on a channel of this process alone. Who has joined a lock's queue
is offered the lock in his turn: a message with his number comes, and he takes it by trying.
Messages may be lost, and holders and waiters die: so the thread also looks after each queue from
time to time. The first look at a lock that is nobody's hands it on.
"""

import asyncio
import concurrent.futures
import logging
import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from itertools import count
from typing import Any, Final

from django_distlock import clocks
from django_distlock.backends.sockets.daemons import NoThread, start_daemon
from django_distlock.backends.sockets.wires import ServerError
from django_distlock.exceptions import LockBackendUnavailable

from .connections import Moved, Node
from .scripts import JOIN, LEAVE, LOOK, Call, Script
from .wire import RedisWire

logger = logging.getLogger("django_distlock")

Keys = tuple[str, str, str]

LOOK_EVERY: Final = 0.4
"""Seconds between two looks at a queue."""
SOONEST: Final = 0.005
"""Seconds, at least, until a look at a lock that is about to end, or is overdue."""
SAFETY: Final = 5.0
"""Seconds after which a waiter tries though nobody told him to."""
ALONE: Final = 0.2
"""Seconds after which he does when nobody will tell him."""
TAKES: Final = 1.0
"""Seconds after which a waiter who was offered the lock has taken it, or stands in the queue."""
PAUSE: Final = 0.2
"""Seconds between two tries to listen to a server that is down."""
IDLE: Final = 60.0
"""Seconds after which the thread ends if nobody waits."""
REFUSED: Final = 60.0
"""Seconds for which it isn't tried again to listen where that isn't allowed."""


class NotAllowed(Exception):
    """The server lets this user listen to nothing."""


class QueuedPlace:
    """A waiter's place in the queue of a lock."""

    outlasts_failures = False

    __slots__ = (
        "_listener",
        "alone",
        "ends",
        "failure",
        "granted",
        "joined",
        "keys",
        "missed",
        "number",
        "offered",
        "waiter",
        "wake",
    )

    def __init__(
        self, listener: "Listener", keys: Keys, number: int, waiter: str, wake: Callable[[], object]
    ) -> None:
        self._listener = listener
        self.keys = keys
        self.number = number
        self.waiter = waiter
        self.wake = wake
        self.offered = -math.inf
        """When the lock was offered, by the local monotonic clock."""
        self.ends = math.inf
        """When the lock is free unless its holder renews it, as far as is known."""
        self.failure: Exception | None = None
        """Why nobody can tell when it is first."""
        self.joined = False
        """Whether it has been in the queue."""
        self.granted = False
        """Whether it has left since it was granted the lock."""
        self.missed = 0
        """How many looks in a row didn't find it in the queue."""
        self.alone = False
        """Whether the queue is elsewhere by now."""

    @property
    def patience(self) -> float:
        """Seconds after which to try again, unless woken."""
        if self.alone:
            return ALONE
        return min(max(self.ends - clocks.monotonic(), SOONEST), SAFETY)

    def check(self) -> None:
        """Raise LockBackendUnavailable if the server can't be asked any more."""
        if self.failure is not None:
            raise LockBackendUnavailable(str(self.failure)) from self.failure

    def leave(self, *, granted: bool, deadline: float | None = None) -> None:
        """Wait no more: having been granted the lock, or having given up.

        Without a deadline, by the local monotonic clock, the server has a time of its own for it.
        """
        self._listener.remove(self, granted, deadline)

    async def aleave(self, *, granted: bool, deadline: float) -> None:
        """See leave()."""
        await self._listener.aremove(self, granted, deadline)

    def is_queued(self, now: float) -> bool:
        """Tell whether it should be in the queue, not having been offered the lock just now."""
        return self.joined and now - self.offered > TAKES


class Listener:
    """The thread that listens to a server as long as somebody waits."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._channel = f"distlock:{os.urandom(12).hex()}"
        self._numbers = count()
        self._places: dict[int, QueuedPlace] = {}
        # Reentrant: a signal's handler, or what is collected in between, may wait for a lock, too.
        self._changing = threading.RLock()
        self._thread: threading.Thread | None = None
        self._listening: Future[bool] = Future()
        """Whether it listens, or isn't allowed to, once that is known."""
        self._failure: Exception | None = None
        self._refused_until = -math.inf
        self._left: list[QueuedPlace] = []

    def join(
        self, keys: Keys, waiter: str, wake: Callable[[], object], deadline: float
    ) -> QueuedPlace | None:
        """Return a place at the end of the queue; None if nobody can listen for its turn."""
        try:
            place, listening = self._add(keys, waiter, wake)
        except NoThread:
            return None
        try:
            concurrent.futures.wait([listening], max(0, deadline - clocks.monotonic()))
            if not self._is_allowed(listening):
                self._forget(place)
                return None
            left = self._node.run(_call(JOIN, place), deadline, _call(LEAVE, place))
        except BaseException:
            self._leave_later(place)
            raise
        return self._joined(place, left)

    async def ajoin(
        self, keys: Keys, waiter: str, wake: Callable[[], object], deadline: float
    ) -> QueuedPlace | None:
        """See join()."""
        try:
            place, listening = self._add(keys, waiter, wake)
        except NoThread:
            return None
        try:
            known = asyncio.wrap_future(listening)
            await asyncio.wait([known], timeout=max(0, deadline - clocks.monotonic()))
            if not self._is_allowed(listening):
                self._forget(place)
                return None
            left = await self._node.arun(_call(JOIN, place), deadline, _call(LEAVE, place))
        except BaseException:
            self._leave_later(place)
            raise
        return self._joined(place, left)

    def _joined(self, place: QueuedPlace, left: int) -> QueuedPlace:
        place.joined = True
        _note_end([place], left)
        return place

    def remove(self, place: QueuedPlace, granted: bool, deadline: float | None = None) -> None:
        """Let it be in no queue, and have no offer unless it was `granted` the lock."""
        self._forget(place, granted)
        if place.failure is not None:
            self._leave_later(place)
        elif not granted:
            with self._or_later(place):
                self._node.run(_call(LEAVE, place), deadline or self._new_deadline())

    async def aremove(self, place: QueuedPlace, granted: bool, deadline: float) -> None:
        """See remove()."""
        self._forget(place, granted)
        if place.failure is not None:
            self._leave_later(place)
        elif not granted:
            with self._or_later(place):
                await self._node.arun(_call(LEAVE, place), deadline)

    @contextmanager
    def _or_later(self, place: QueuedPlace) -> Iterator[None]:
        """Let the thread do it once more, if it isn't known to be done."""
        try:
            with suppress(Moved):
                yield
        except LockBackendUnavailable:
            self._leave_later(place)
            raise

    def _leave_later(self, place: QueuedPlace) -> None:
        """Let the thread tell the server that it is in no queue, unless it was granted the lock."""
        self._forget(place, place.granted)
        if not place.granted:
            self._left.append(place)

    def _new_deadline(self) -> float:
        return clocks.monotonic() + self._node.timeout

    def _add(
        self, keys: Keys, waiter: str, wake: Callable[[], object]
    ) -> tuple[QueuedPlace, Future[bool]]:
        number = next(self._numbers)
        place = QueuedPlace(self, keys, number, f"{self._channel} {number} {waiter}", wake)
        with self._changing:
            self._start()
            self._places[number] = place
            return place, self._listening

    def _forget(self, place: QueuedPlace, granted: bool = False) -> None:
        place.granted = granted
        with self._changing:
            self._places.pop(place.number, None)

    def _start(self) -> None:
        if clocks.monotonic() < self._refused_until:
            return
        if self._thread is None or not self._thread.is_alive():
            self._listening = Future()
            self._failure = None
            name = f"django_distlock listens to {self._node}"
            self._thread = threading.Thread(target=self._run, name=name)
            start_daemon(self._thread)

    def _is_allowed(self, listening: Future[bool]) -> bool:
        """Tell whether it listens, or isn't allowed to; raise if that isn't known in time."""
        if not listening.done():
            raise LockBackendUnavailable(
                f"{self._node}: can't listen: {self._failure or 'no answer'}"
            )
        return listening.result()

    def _run(self) -> None:
        while not self._ends():
            try:
                with self._subscribed() as wire:
                    self._failure = None
                    self._join_again(self._all())
                    self._listening.set_result(True)
                    self._listen(wire)
                self._listening = Future()
            except NotAllowed:
                self._refuse()
                return
            except Exception as error:  # noqa: BLE001 - who waits has no other thread
                self._fail(error)

    def _refuse(self) -> None:
        """Let those who wait ask again and again, and try to listen no more for a while."""
        logger.warning("%s lets nobody listen: who waits asks again and again.", self._node)
        self._refused_until = clocks.monotonic() + REFUSED
        self._listening.set_result(False)
        for place in self._all():
            place.alone = True
            place.wake()

    def _fail(self, error: Exception) -> None:
        """Listen anew; but if it is more than this connection that is broken, tell who waits."""
        was_listening = self._listening.done()
        if was_listening:
            self._listening = Future()
        self._failure = error
        if was_listening and not isinstance(error, LockBackendUnavailable):
            return
        places = self._all()
        if places:
            logger.warning("%s can't be listened to; it will be tried again: %s", self._node, error)
        for place in places:
            place.failure = error
            place.wake()
        time.sleep(PAUSE)

    def _let_leave(self) -> None:
        """Let those leave the queue who have left, and couldn't tell the server."""
        left = self._left[:]
        self._ask_all(LEAVE, left)
        del self._left[: len(left)]

    def _ends(self) -> bool:
        """Tell whether nobody waits any more; if so, the next one starts another thread."""
        with self._changing:
            if self._places:
                return False
            self._thread = None
            return True

    @contextmanager
    def _subscribed(self) -> Iterator[RedisWire]:
        wire = self._node.connect(self._node.timeout)
        try:
            wire.is_told = True
            wire.send([("SUBSCRIBE", self._channel)])
            answer = wire.receive()
            if isinstance(answer, ServerError):
                raise NotAllowed(answer) if answer.code == "NOPERM" else answer
            yield wire
        finally:
            wire.close()

    def _listen(self, wire: RedisWire) -> None:
        """Pass messages on, and look after the queues, until nobody has waited for a while."""
        look_at, last_used = clocks.monotonic(), clocks.monotonic()
        while True:
            now = clocks.monotonic()
            if self._places:
                last_used = now
            elif now - last_used > IDLE:
                return
            if now >= look_at:
                look_at = now + self._look(now)
            if wire.hears(max(look_at - clocks.monotonic(), 0)):
                _, _, number = wire.receive()
                self._offer(int(number))

    def _offer(self, number: int) -> None:
        place = self._places.get(number)
        if place is None:
            return
        place.offered = clocks.monotonic()
        if place.wake() is False:
            self._leave_later(place)

    def _look(self, now: float) -> float:
        """Look at each queue; return the seconds until the next look."""
        self._let_leave()
        queues: dict[Keys, list[QueuedPlace]] = {}
        for place in self._all():
            if place.is_queued(now) and not place.alone:
                queues.setdefault(place.keys, []).append(place)
        soonest = LOOK_EVERY
        answers = self._ask_all(LOOK, [places[0] for places in queues.values()])
        for places, answer in zip(queues.values(), answers, strict=True):
            try:
                self._node.raise_for(answer)
            except Moved:
                for place in places:
                    place.alone = True
                    place.wake()
                continue
            left, known = answer
            _note_end(places, left)
            soonest = min(soonest, max(places[0].ends - now, SOONEST))
            self._see_to(places[0], known)
        return soonest

    def _see_to(self, first: QueuedPlace, known: int) -> None:
        """Act on where the first of some places is: in the queue, OFFERED the lock or nowhere.

        In the latter case all join again, on a new connection: the server may have taken the
        process for dead since it has lost that one, of which nobody told us.
        """
        if known == OFFERED:
            self._offer(first.number)  # the message was lost
        first.missed = 0 if known else first.missed + 1
        if first.missed > 1:  # once may be by the way
            first.missed = 0
            raise ConnectionResetError(f"{self._node} has forgotten who waits here")

    def _join_again(self, places: list[QueuedPlace]) -> None:
        """Let all be in their queues: who is there keeps his place."""
        queued = [place for place in places if place.is_queued(clocks.monotonic())]
        self._ask_all(JOIN, queued)
        # Who has left meanwhile may have done so before that.
        left = [place for place in queued if place.number not in self._places]
        self._ask_all(LEAVE, [place for place in left if not place.granted])
        for place in left:
            self._node.ask_all([("ZREM", place.keys[2], place.waiter)], self._new_deadline())

    def _ask_all(self, script: Script, places: list[QueuedPlace]) -> list[Any]:
        if not places:
            return []
        deadline = self._new_deadline()
        calls = [_call(script, place) for place in places]
        answers = self._node.ask_all([call.command() for call in calls], deadline)
        if any(getattr(answer, "code", None) == "NOSCRIPT" for answer in answers):
            answers = self._node.ask_all([call.command(whole=True) for call in calls], deadline)
        return answers

    def _all(self) -> list[QueuedPlace]:
        with self._changing:
            return [*self._places.values()]


OFFERED: Final = 2
"""What look.lua says of a waiter who isn't in the queue any more, but has the lock."""


def _call(script: Script, place: QueuedPlace) -> Call:
    return Call(script, place.keys, (place.waiter,))


def _note_end(places: list[QueuedPlace], left: int) -> None:
    ends = clocks.monotonic() + left / 1000 if left >= 0 else math.inf
    for place in places:
        place.ends = ends


listeners: dict[Node, Listener] = {}
"""Those of this process: see listener()."""


def listener(node: Node) -> Listener:
    """Return this process's listener for a server, which need not listen yet."""
    found = listeners.get(node)
    return found or listeners.setdefault(node, Listener(node))


os.register_at_fork(after_in_child=listeners.clear)
