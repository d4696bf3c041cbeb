"""The thread that keeps the connection by which a lock server knows this process.

On it come the offers to this process's waiters. While it is open, the process is in the queues that
its threads and tasks have joined on other connections, and has the leases that are to end with it.
When it is lost, the thread makes another one, all waiters join again, and those leases are renewed,
so that their holders learn which of them are lost.
"""

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from typing import Final

from django_distlock import clocks
from django_distlock.backends import listening
from django_distlock.backends.listening import on_lost_connection
from django_distlock.backends.sockets.calls import BLOCKING, IN_LOOP, Calls
from django_distlock.backends.sockets.connections import ServerError
from django_distlock.backends.sync_driver import run_sync
from django_distlock.exceptions import LockBackendUnavailable
from django_distlock.threads import NoThread

from .connections import LockServer, Request, ServerConnection, UnknownProcess
from .places import QueuedPlace

PING_EVERY: Final = 5.0
"""Seconds between two pings, at most; with each one, places in queues are synchronized."""
AT_ONCE: Final = 100
"""How many waiters join again in one request."""
REMEMBERED: Final = 1_000
"""How many waiters that have left are remembered: a request to join may arrive after they left."""
TRIES: Final = 3
"""How often a process that the server has just lost makes itself known again."""


class Listener(listening.Listener[LockServer, QueuedPlace, ServerConnection]):
    """See listening.Listener. It also runs while a lease may last that ends with the connection."""

    def __init__(self, server: LockServer) -> None:
        super().__init__(server)
        self.process = os.urandom(16).hex()
        self._numbers = count()
        self._leaving: dict[int, Request] = {}
        """How to take waiters out of their queues that have left, but may be there all the same."""
        self._left: dict[int, Request] = {}
        """The same of the last waiters that have left. It keeps nothing else of them alive."""
        self._stores: set[str] = set()
        """The aliases of the stores with leases that end with the connection."""
        self._bound_until = -math.inf
        """When the last of those leases ends, by the local monotonic clock."""
        self._connection: ServerConnection | None = None
        self._was_lost = False
        self._pinged_at = self._heard_at = 0.0

    # Callers' side

    def expect_lease(self, store: str, seconds: float) -> None:
        """Listen for so long at least: a lease of that store ends with the connection."""
        until = clocks.monotonic() + max(seconds, self.server.timeout)
        with self._changing:
            self._stores.add(store)
            self._bound_until = max(self._bound_until, until)

    def bind(self, request: Request, deadline: float, undo: Request | None = None) -> Request:
        """Ask for leases that end with this process's connection."""
        return run_sync(self._ask_bound(BLOCKING, request, deadline, undo))

    async def abind(
        self, request: Request, deadline: float, undo: Request | None = None
    ) -> Request:
        """See bind()."""
        return await self._ask_bound(IN_LOOP, request, deadline, undo)

    async def _ask_bound(
        self, calls: Calls, request: Request, deadline: float, undo: Request | None
    ) -> Request:
        request["bound"] = self.process
        return await self._ask(calls, request, deadline, undo)

    async def join(
        self, calls: Calls, request: Request, wake: Callable[[], object], deadline: float
    ) -> QueuedPlace | None:
        """Return a place at the end of the queue; None where waiters can't be woken."""
        number = next(self._numbers)
        request |= {"process": self.process, "number": number}
        place = QueuedPlace(self, number, wake, request)
        try:
            self.add(place)
            with self._leaving_later(place):
                await self._ask(calls, request, deadline, place.leaving)
        except NoThread:
            return None
        return place

    async def leave(
        self, calls: Calls, place: QueuedPlace, granted: bool, deadline: float | None = None
    ) -> None:
        """Take it out of the queue, and end an offer to it; a grant has done both.

        Unless it joined again just then.
        """
        self.remove(place)
        if not granted:
            with self._leaving_later(place):
                deadline = deadline or self._new_deadline()
                await self.server.ask_one(calls, place.leaving, deadline)
        elif place.joined_again:
            self._leaving[place.number] = place.leaving

    def remove(self, place: QueuedPlace) -> None:
        """See listening.Listener."""
        super().remove(place)
        with self._changing:
            self._left[place.number] = place.leaving
            if len(self._left) > REMEMBERED:
                del self._left[next(iter(self._left))]

    @contextmanager
    def _leaving_later(self, place: QueuedPlace) -> Iterator[None]:
        """If the block is interrupted, let the thread take the place out of the queue."""
        try:
            yield
        except BaseException:
            self.remove(place)
            self._leaving[place.number] = place.leaving
            raise

    async def _ask(
        self, calls: Calls, request: Request, deadline: float, undo: Request | None
    ) -> Request:
        """Ask once the server knows this process."""
        for _ in range(TRIES):
            ready = self.start()
            await self.until_ready(calls, ready, deadline)
            connection = self._connection
            with suppress(UnknownProcess):
                return await self.server.ask_one(calls, request, deadline, undo)
            if self.reset(ready) and connection is not None:
                connection.cut()  # the server has lost it
        raise LockBackendUnavailable(f"{self.server} keeps losing the connection to this process.")

    # The thread

    def is_needed(self) -> bool:
        return super().is_needed() or clocks.monotonic() < self._bound_until

    @contextmanager
    def connect(self) -> Iterator[ServerConnection]:
        connection = self.server.connect(self.server.timeout, self.process)
        try:
            self._join_again()
            connection.set_timeout(self.server.timeout)
            self._connection = connection
            self._pinged_at = self._heard_at = clocks.monotonic()
            if self._was_lost:
                self._was_lost = False
                for callback in on_lost_connection:
                    for store in list(self._stores):
                        callback(store)
            yield connection
        finally:
            self._connection = None
            connection.close()

    def attend(self, connection: ServerConnection) -> float:
        interval = min(connection.idle / 3, PING_EVERY)
        if self._is_answered() and clocks.monotonic() >= self._pinged_at + interval:
            connection.send([{"do": "ping"}])
            self._pinged_at = clocks.monotonic()
            self._synchronize()
        wait = interval if self._is_answered() else self.server.timeout
        return self._pinged_at + wait - clocks.monotonic()

    def _is_answered(self) -> bool:
        """Return whether the server has answered since the last ping."""
        return self._pinged_at <= self._heard_at

    def receive(self, connection: ServerConnection, seconds: float) -> None:
        if not connection.has_message(seconds):
            if not self._is_answered():
                raise TimeoutError(f"no answer in {self.server.timeout} seconds")
            return
        message = connection.receive()
        self._heard_at = clocks.monotonic()
        if isinstance(message, ServerError):
            raise ConnectionResetError(str(message))
        if (number := message.get("offer")) is not None:
            self._offer(number)

    def failed(self, error: Exception, *, was_listening: bool) -> None:
        """Waiters outlast it; leases may have ended with the connection."""
        self._was_lost |= was_listening

    def _offer(self, number: int) -> None:
        place = self._places.get(number)
        if place is None:
            # It left before its request to join arrived, or has been granted the lock: then this
            # changes nothing.
            if (left := self._left.get(number)) is not None:
                self._leaving[number] = left
        elif place.wake() is False:
            self.remove(place)
            self._leaving[number] = place.leaving
        self._remove_leaving()

    def _synchronize(self) -> None:
        """Put all waiters into their queues, and those that have left out of them.

        A waiter that released what it was offered, since an answer was lost, has left the queue.
        """
        with suppress(LockBackendUnavailable):
            self._join_again()
        self._remove_leaving()

    def _join_again(self) -> None:
        """Put all waiters into their queues; those that are there keep their places."""
        places = self.places()
        try:
            for at in range(0, len(places), AT_ONCE):
                some = places[at : at + AT_ONCE]
                for place in some:
                    place.joined_again = True
                requests = [place.request for place in some]
                for answer in self.server.ask_several(requests, self._new_deadline()):
                    if isinstance(answer, ServerError) and answer.code == "process":
                        raise ConnectionResetError(str(answer))
        finally:
            left = [place for place in places if place.number not in self._places]
            self._leaving |= {place.number: place.leaving for place in left}

    def _remove_leaving(self) -> None:
        """Take waiters that couldn't leave out of their queues; later, if that fails too."""
        with suppress(LockBackendUnavailable):
            for number, leaving in [*self._leaving.items()]:
                self.server.ask(leaving, self._new_deadline())
                self._leaving.pop(number, None)

    def _new_deadline(self) -> float:
        return clocks.monotonic() + self.server.timeout
