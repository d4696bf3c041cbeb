"""Who waits in this process for locks of a lock server, and what the server tells them.

A thread for each server has a connection by which the server knows this process. As long as it is
open, the process stands in the queues that its threads and tasks have joined, on whatever
connection; and it has the leases that are to end with it. When it is lost, the thread makes another
one, all join again, and those leases are renewed, so that their holders know what became of them.
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
from typing import Final

from django_distlock import clocks
from django_distlock.backends.sockets.daemons import NoThread, start_daemon
from django_distlock.backends.sockets.wires import ServerError
from django_distlock.concurrency.background import background
from django_distlock.exceptions import LockBackendUnavailable

from .connections import LockServer, Request, ServerWire, UnknownProcess

logger = logging.getLogger("django_distlock")

SAFETY: Final = 5.0
"""Seconds after which a waiter tries though nobody told him to."""
SAYS_EVERY: Final = 5.0
"""Seconds after which the thread sees whether the server is still there, at most; and whether all
who wait are still in their queues."""
PAUSE: Final = 0.1
"""Seconds between two tries to listen to a server."""
IDLE: Final = 60.0
"""Seconds after which the thread ends if nobody waits."""
AT_ONCE: Final = 100
"""How many join again in one go."""
TRIES: Final = 3
"""How often a process that the server has just lost makes itself known again."""


class QueuedPlace:
    """A waiter's place in the queue of a lock."""

    __slots__ = ("_listener", "joined_again", "number", "request", "wake")

    outlasts_failures = True

    def __init__(
        self, listener: "Listener", number: int, request: Request, wake: Callable[[], object]
    ) -> None:
        self._listener = listener
        self.number = number
        self.request = request
        self.wake = wake
        self.joined_again = False

    @property
    def patience(self) -> float:
        """Seconds after which to try again, unless woken."""
        return SAFETY

    @property
    def leaving(self) -> Request:
        """Return what to ask for to wait no more."""
        return {"do": "leave", **{name: self.request[name] for name in ("semaphore", "owner")}}

    def check(self) -> None:
        """Do nothing: a server that is down may be back before the wait is over."""

    def leave(self, *, granted: bool, deadline: float | None = None) -> None:
        """Wait no more: having been granted the lock, or having given up.

        Without a deadline, by the local monotonic clock, the server has a time of its own for it.
        """
        self._listener.remove(self, granted, deadline)

    async def aleave(self, *, granted: bool, deadline: float) -> None:
        """See leave()."""
        await self._listener.aremove(self, granted, deadline)


class Listener:
    """The thread that listens to a server as long as somebody waits, or may have a bound lease."""

    def __init__(self, server: LockServer) -> None:
        self.process = os.urandom(16).hex()
        self._server = server
        self._numbers = count()
        self._places: dict[int, QueuedPlace] = {}
        self._left: dict[int, QueuedPlace] = {}
        """Who has left, and couldn't tell the server, or may be in the queue all the same."""
        self._stores: set[str] = set()
        """The aliases whose leases end with the connection."""
        self._stays_until = -math.inf
        # Reentrant: what is collected in between may acquire another lock.
        self._changing = threading.RLock()
        self._thread: threading.Thread | None = None
        self._known: Future[Exception | None] = Future()
        """Set when the server knows this process; or couldn't be told, and why."""
        self._wire: ServerWire | None = None
        self._fails = False

    # What needs the server to know this process

    def stay(self, store: str, seconds: float) -> None:
        """Listen for so long at least: a lease of that store may last, and ends with that."""
        until = clocks.monotonic() + max(seconds, self._server.timeout)
        with self._changing:
            self._stores.add(store)
            self._stays_until = max(self._stays_until, until)

    def bind(self, request: Request, deadline: float, undo: Request | None = None) -> Request:
        """Ask for a lease that ends with this process's connection."""
        request["bound"] = self.process
        return self._ask(request, deadline, undo)

    async def abind(
        self, request: Request, deadline: float, undo: Request | None = None
    ) -> Request:
        """See bind()."""
        request["bound"] = self.process
        return await self._aask(request, deadline, undo)

    def join(
        self, request: Request, wake: Callable[[], object], deadline: float
    ) -> QueuedPlace | None:
        """Return a place at the end of the queue; None if nobody can listen for its turn."""
        place = self._add(request, wake)
        try:
            with self._or_leave(place):
                self._ask(place.request, deadline, place.leaving)
        except NoThread:
            return None
        return place

    async def ajoin(
        self, request: Request, wake: Callable[[], object], deadline: float
    ) -> QueuedPlace | None:
        """See join()."""
        place = self._add(request, wake)
        try:
            with self._or_leave(place):
                await self._aask(place.request, deadline, place.leaving)
        except NoThread:
            return None
        return place

    def _ask(self, request: Request, deadline: float, undo: Request | None) -> Request:
        """Ask when the server knows this process."""
        for _ in range(TRIES):
            known = self._start()
            concurrent.futures.wait([known], max(0, deadline - clocks.monotonic()))
            self._raise_unless(known)
            with suppress(UnknownProcess):
                return self._server.ask(request, deadline, undo)
            self._listen_anew(known)
        raise self._loses()

    async def _aask(self, request: Request, deadline: float, undo: Request | None) -> Request:
        """See _ask()."""
        for _ in range(TRIES):
            known = self._start()
            waiting = asyncio.wrap_future(known)
            await asyncio.wait([waiting], timeout=max(0, deadline - clocks.monotonic()))
            self._raise_unless(known)
            with suppress(UnknownProcess):
                return await self._server.aask(request, deadline, undo)
            self._listen_anew(known)
        raise self._loses()

    def _raise_unless(self, known: Future[Exception | None]) -> None:
        if not known.done():
            raise LockBackendUnavailable(f"{self._server}: no answer in {self._server.timeout} s")
        if (error := known.result()) is not None:
            raise LockBackendUnavailable(f"{self._server} can't be listened to: {error}") from error

    def _loses(self) -> LockBackendUnavailable:
        return LockBackendUnavailable(f"{self._server} loses the connection to this process.")

    # Places

    def _add(self, request: Request, wake: Callable[[], object]) -> QueuedPlace:
        number = next(self._numbers)
        request |= {"process": self.process, "number": number}
        place = QueuedPlace(self, number, request, wake)
        with self._changing:
            self._places[number] = place
        return place

    def remove(self, place: QueuedPlace, granted: bool, deadline: float | None = None) -> None:
        """Let it be in no queue, and have no offer unless it was `granted` the lock."""
        if not self._take_out(place, granted):
            with self._or_leave(place):
                self._server.ask(place.leaving, deadline or self._new_deadline())

    async def aremove(self, place: QueuedPlace, granted: bool, deadline: float) -> None:
        """See remove()."""
        if not self._take_out(place, granted):
            with self._or_leave(place):
                await self._server.aask(place.leaving, deadline)

    def _take_out(self, place: QueuedPlace, granted: bool) -> bool:
        """Tell whether that is all: a grant takes the place, unless it was joined again then."""
        self._places.pop(place.number, None)
        if granted and place.joined_again:
            self._left[place.number] = place
        return granted

    @contextmanager
    def _or_leave(self, place: QueuedPlace) -> Iterator[None]:
        """If that is interrupted, let the thread tell the server that it waits no more."""
        try:
            yield
        except BaseException:
            self._places.pop(place.number, None)
            self._left[place.number] = place
            raise

    def _new_deadline(self) -> float:
        return clocks.monotonic() + self._server.timeout

    # The thread

    def _start(self) -> Future[Exception | None]:
        """Have the thread; return what tells that the server knows this process."""
        with self._changing:
            if self._thread is None or not self._thread.is_alive():
                self._known = Future()
                name = f"django_distlock listens to {self._server.address}"
                self._thread = threading.Thread(target=self._run, name=name)
                start_daemon(self._thread)
            return self._known

    def _run(self) -> None:
        lost, failures = False, 0
        while not self._ends():
            try:
                wire = self._connect()
            except Exception as error:  # noqa: BLE001 - who waits has no other thread
                failures += 1
                if failures > 1:  # one may happen to any connection
                    self._tell_waiting(error)
                self._pause_after(error)
                continue
            failures = 0
            try:
                with self._closed_then(wire):
                    if lost:
                        self._have_renewed()
                    self._listen(wire)
            except Exception as error:  # noqa: BLE001 - likewise
                lost = True
                self._pause_after(error)

    def _ends(self) -> bool:
        """Tell whether nobody needs it any more; if so, the next one starts another thread."""
        with self._changing:
            if self._is_needed():
                return False
            self._thread = None
            self._left.clear()  # the server lets a process leave that is gone
            return True

    def _is_needed(self) -> bool:
        return bool(self._places) or clocks.monotonic() < self._stays_until

    def _connect(self) -> ServerWire:
        """Let the server know this process, and have all join again."""
        wire = self._server.connect(self._server.timeout, self.process)
        try:
            self._join_again()
        except BaseException:
            wire.close()
            raise
        self._wire, self._fails = wire, False
        self._known.set_result(None)
        return wire

    def _join_again(self) -> None:
        """Let all who wait be in their queues; who is there keeps his place."""
        places = [*self._places.values()]
        try:
            for at in range(0, len(places), AT_ONCE):
                some = places[at : at + AT_ONCE]
                for place in some:
                    place.joined_again = True
                requests = [place.request for place in some]
                for answer in self._server.ask_several(requests, self._new_deadline()):
                    if isinstance(answer, ServerError) and answer.code == "process":
                        raise ConnectionResetError(str(answer))
        finally:
            self._left |= {each.number: each for each in places if each.number not in self._places}

    def _have_renewed(self) -> None:
        """Let holders know whether they have what may have ended with the connection."""
        for store in list(self._stores):
            renewing = background(store)
            renewing.submit(renewing.renewals.hasten)

    @contextmanager
    def _closed_then(self, wire: ServerWire) -> Iterator[None]:
        try:
            yield
        finally:
            self._begin_anew(self._known)
            self._wire = None
            wire.close()

    def _tell_waiting(self, error: Exception) -> None:
        """Tell who waits for the server to know this process that it couldn't be told."""
        with self._changing:
            known, self._known = self._known, Future()
        known.set_result(error)

    def _listen_anew(self, known: Future[Exception | None]) -> None:
        """Have another connection, since the server has lost the one on which it listened."""
        wire = self._wire
        if self._begin_anew(known) and wire is not None:
            wire.cut()

    def _begin_anew(self, known: Future[Exception | None]) -> bool:
        """Let others ask once the server knows this process again; False if they do already."""
        with self._changing:
            if known is not self._known or not known.done():
                return False
            self._known = Future()
            return True

    def _pause_after(self, error: Exception) -> None:
        """Try again after a while; say so once, if it matters."""
        if self._is_needed() and not self._fails:
            self._fails = True
            logger.warning(
                "%s can't be listened to; it is tried again and again: %s", self._server, error
            )
        time.sleep(PAUSE)

    def _listen(self, wire: ServerWire) -> None:
        """Pass offers on, until nobody has needed that for a while."""
        wire.limit(self._server.timeout)
        says_every = min(wire.idle / 3, SAYS_EVERY)
        needed = said = heard = clocks.monotonic()
        while True:
            now = clocks.monotonic()
            if self._is_needed():
                needed = now
            elif now - needed > IDLE:
                return
            if said <= heard and now >= said + says_every:
                wire.send([{"do": "ping"}])
                said = now
                self._catch_up()
            due = said + (says_every if said <= heard else self._server.timeout)
            if wire.hears(max(0.0, due - clocks.monotonic())):
                message, heard = wire.receive(), clocks.monotonic()
                if isinstance(message, ServerError):
                    raise ConnectionResetError(str(message))
                if (number := message.get("offer")) is not None:
                    self._offer(number)
            elif said > heard:
                raise TimeoutError(f"no answer in {self._server.timeout} seconds")

    def _offer(self, number: int) -> None:
        place = self._places.get(number)
        if place is not None and place.wake() is False:
            self._places.pop(number, None)
            self._left[number] = place
        self._let_leave()

    def _catch_up(self) -> None:
        """See to it that those are in the queues who wait, and nobody else.

        Who gave back what he was offered, since an answer was lost, was taken out with that.
        """
        with suppress(LockBackendUnavailable):
            self._join_again()
        self._let_leave()

    def _let_leave(self) -> None:
        """Tell the server who has left, and couldn't say so; later, if that can't be said now."""
        with suppress(LockBackendUnavailable):
            for number, place in [*self._left.items()]:
                self._server.ask(place.leaving, self._new_deadline())
                self._left.pop(number, None)


listeners: dict[LockServer, Listener] = {}
"""Those of this process: see listener()."""


def listener(server: LockServer) -> Listener:
    """Return this process's listener for a server, which need not listen yet."""
    found = listeners.get(server)
    return found or listeners.setdefault(server, Listener(server))


os.register_at_fork(after_in_child=listeners.clear)
