"""Who waits in this process for locks of a lock server, and what the server tells them.

A thread for each server has a connection by which the server knows this process. As long as it is
open, the process stands in the queues that its threads and tasks have joined, on whatever
connection; and it has the leases that are to end with it. When it is lost, the thread makes another
one, and all join again.
"""

import asyncio
import concurrent.futures
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from itertools import count
from typing import Final
from weakref import WeakSet

from ... import clocks
from ...exceptions import LockBackendUnavailable
from ..wires import ServerError
from .connections import LockServer, Request, ServerWire, UnknownProcess

logger = logging.getLogger("django_distlock")

SAFETY: Final = 5.0
"""Seconds after which a waiter tries though nobody told him to."""
SAYS_EVERY: Final = 5.0
"""Seconds after which the thread sees whether the server is still there, at most."""
PAUSE: Final = 0.1
"""Seconds between two tries to listen to a server that is down."""
IDLE: Final = 60.0
"""Seconds after which the thread ends if nobody waits."""
TRIES: Final = 3
"""How often a process that the server has just lost makes itself known again."""


class QueuedPlace:
    """A waiter's place in the queue of a lock."""

    __slots__ = ("_listener", "number", "owner", "request", "wake")

    outlasts_failures = True

    def __init__(
        self, listener: "Listener", number: int, request: Request, wake: Callable[[], object]
    ) -> None:
        self._listener = listener
        self.number = number
        self.request = request
        self.wake = wake

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

    def leave(self, *, granted: bool) -> None:
        """Wait no more: having been granted the lock, or having given up."""
        self._listener.remove(self, granted)

    async def aleave(self, *, granted: bool) -> None:
        """See leave()."""
        await self._listener.aremove(self, granted)


class Listener:
    """The thread that listens to a server as long as somebody waits, or has a bound lease."""

    def __init__(self, server: LockServer) -> None:
        self._server = server
        self.process = os.urandom(16).hex()
        self._numbers = count()
        self._places: dict[int, QueuedPlace] = {}
        self._left: dict[int, QueuedPlace] = {}
        """Who has left, and couldn't tell the server."""
        self._changing = threading.Lock()
        self._thread: threading.Thread | None = None
        self._listening: Future[None] = Future()
        self._failure: Exception | None = None
        self._stays = False
        self._wire: ServerWire | None = None
        _all.add(self)

    # What needs the server to know this process

    def bind(self, request: Request, deadline: float, undo: Request | None = None) -> Request:
        """Ask for a lease that ends with this process's connection."""
        self._stays = True
        request["bound"] = self.process
        return self._known(request, deadline, undo)

    async def abind(
        self, request: Request, deadline: float, undo: Request | None = None
    ) -> Request:
        """See bind()."""
        self._stays = True
        request["bound"] = self.process
        return await self._aknown(request, deadline, undo)

    def join(self, request: Request, wake: Callable[[], object], deadline: float) -> QueuedPlace:
        """Return a place at the end of the queue."""
        place = self._add(request, wake)
        with self._or_leave(place):
            self._known(place.request, deadline, place.leaving)
        return place

    async def ajoin(
        self, request: Request, wake: Callable[[], object], deadline: float
    ) -> QueuedPlace:
        """See join()."""
        place = self._add(request, wake)
        with self._or_leave(place):
            await self._aknown(place.request, deadline, place.leaving)
        return place

    def _known(self, request: Request, deadline: float, undo: Request | None) -> Request:
        """Ask when the server knows this process."""
        for _ in range(TRIES):
            listening = self._start()
            concurrent.futures.wait([listening], max(0, deadline - clocks.monotonic()))
            self._raise_unless(listening)
            with suppress(UnknownProcess):
                return self._server.ask(request, deadline, undo)
            self._listen_anew(listening)
        raise LockBackendUnavailable(f"{self._server} loses the connection to this process.")

    async def _aknown(self, request: Request, deadline: float, undo: Request | None) -> Request:
        for _ in range(TRIES):
            listening = self._start()
            known = asyncio.wrap_future(listening)
            await asyncio.wait([known], timeout=max(0, deadline - clocks.monotonic()))
            self._raise_unless(listening)
            with suppress(UnknownProcess):
                return await self._server.aask(request, deadline, undo)
            self._listen_anew(listening)
        raise LockBackendUnavailable(f"{self._server} loses the connection to this process.")

    def _raise_unless(self, listening: Future[None]) -> None:
        if not listening.done():
            raise LockBackendUnavailable(
                f"{self._server} can't be listened to: {self._failure or 'no answer'}"
            )

    # Places

    def _add(self, request: Request, wake: Callable[[], object]) -> QueuedPlace:
        number = next(self._numbers)
        request |= {"process": self.process, "number": number}
        place = QueuedPlace(self, number, request, wake)
        with self._changing:
            self._places[number] = place
        return place

    def remove(self, place: QueuedPlace, granted: bool) -> None:
        """Let it be in no queue, and have no offer unless it was `granted` the lock."""
        self._places.pop(place.number, None)
        if not granted:
            with self._or_leave(place):
                self._server.ask(place.leaving, self._new_deadline())

    async def aremove(self, place: QueuedPlace, granted: bool) -> None:
        """See remove()."""
        self._places.pop(place.number, None)
        if not granted:
            with self._or_leave(place):
                await self._server.aask(place.leaving, self._new_deadline())

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

    def _start(self) -> Future[None]:
        """Have the thread; return what tells that it listens."""
        with self._changing:
            if self._thread is None or not self._thread.is_alive():
                self._listening = Future()
                self._failure = None
                name = f"django_distlock listens to {self._server.address}"
                self._thread = threading.Thread(target=self._run, name=name, daemon=True)
                self._thread.start()
            return self._listening

    def _run(self) -> None:
        while not self._ends():
            try:
                self._wire = wire = self._server.connect(self._server.timeout, self.process)
                try:
                    self._let_know()
                    self._listen(wire)
                finally:
                    self._wire = None
                    self._begin_anew(self._listening)
                    wire.close()
            except Exception as error:  # noqa: BLE001 - who waits has no other thread
                self._fail(error)

    def _ends(self) -> bool:
        """Tell whether nobody needs it any more; if so, the next one starts another thread."""
        with self._changing:
            if self._places or self._stays:
                return False
            self._thread = None
            self._left.clear()  # the server lets a process leave that is gone
            return True

    def _let_know(self) -> None:
        """Join all queues again: who is there keeps his place, who has left may not be there."""
        self._left.clear()
        self._failure = None
        places = [*self._places.values()]
        for at in range(0, len(places), 100):
            some = places[at : at + 100]
            answers = self._server.ask_several(
                [place.request for place in some], self._new_deadline()
            )
            for answer in answers:
                if isinstance(answer, ServerError) and answer.code == "process":
                    raise ConnectionResetError(str(answer))
        self._listening.set_result(None)
        for place in places:
            if place.number not in self._places:
                self._left[place.number] = place
        self._let_leave()

    def _listen_anew(self, listening: Future[None]) -> None:
        """Have another connection, since the server has lost the one on which it listened."""
        wire = self._wire
        if self._begin_anew(listening) and wire is not None:
            wire.cut()

    def _begin_anew(self, listening: Future[None]) -> bool:
        """Have what tells that it listens tell that later; False if that isn't what tells it."""
        with self._changing:
            if listening is not self._listening or not listening.done():
                return False
            self._listening = Future()
            return True

    def _fail(self, error: Exception) -> None:
        """Listen anew, after a while; and say so once."""
        if self._failure is None and (self._places or self._stays):
            logger.warning(
                "%s can't be listened to; it is tried again and again: %s", self._server, error
            )
        self._failure = error
        time.sleep(PAUSE)

    def _listen(self, wire: ServerWire) -> None:
        """Pass offers on, until nobody has waited for a while."""
        last_used = last_said = last_heard = clocks.monotonic()
        says_every = min(wire.idle / 3, SAYS_EVERY)
        while True:
            now = clocks.monotonic()
            if self._places or self._stays:
                last_used = now
            elif now - last_used > IDLE:
                return
            if now - last_heard > says_every + self._server.timeout:
                raise TimeoutError(f"no answer in {self._server.timeout} seconds")
            if now - last_said >= says_every:
                wire.limit(self._server.timeout)
                wire.send([{"do": "ping"}])
                last_said = now
                self._let_leave()
            if wire.hears(max(0.0, min(last_said + says_every - now, IDLE))):
                message, last_heard = wire.receive(), clocks.monotonic()
                if isinstance(message, ServerError):
                    raise ConnectionResetError(str(message))
                if (number := message.get("offer")) is not None:
                    self._offer(number)

    def _offer(self, number: int) -> None:
        place = self._places.get(number)
        if place is not None and place.wake() is False:
            self._places.pop(number, None)
            self._left[number] = place
        self._let_leave()

    def _let_leave(self) -> None:
        """Tell the server who has left, and couldn't say so."""
        for number, place in [*self._left.items()]:
            self._server.ask(place.leaving, self._new_deadline())
            self._left.pop(number, None)

    def forget(self) -> None:
        """Let go of the parent's connection, in its child: it must end with the parent."""
        if (wire := self._wire) is not None:
            wire.close()


_listeners: dict[LockServer, Listener] = {}
_all: WeakSet[Listener] = WeakSet()


def listener(server: LockServer) -> Listener:
    """Return this process's listener for a server, which need not listen yet."""
    found = _listeners.get(server)
    return found or _listeners.setdefault(server, Listener(server))


def _forget_all() -> None:
    for each in list(_all):
        each.forget()
    _all.clear()
    _listeners.clear()


os.register_at_fork(after_in_child=_forget_all)
