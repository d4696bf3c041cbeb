"""The life cycle of the threads that listen to a lock store's server.

Some servers keep a queue of waiters for each lock, and notify a process when the turn of one of its
waiters has come. A daemon thread per process and server receives that. It starts with the first
waiter, reconnects when its connection is lost, and ends when there has been no waiter for a while.
Each kind of server has a subclass with its protocol.
"""

import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from contextlib import AbstractContextManager
from typing import Any, ClassVar, Final, Generic, Protocol, Self, TypeVar, cast

from django_distlock import clocks
from django_distlock.exceptions import LockBackendUnavailable
from django_distlock.logs import room_logger
from django_distlock.threads import NoThread, start_daemon

from .sockets.calls import Calls, running_future

logger = room_logger("listening")

IDLE: Final = 60.0
"""Seconds without a waiter after which the thread ends, and its connection with it."""
FIRST_PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 1.0
"""Seconds between two attempts to connect: after the first one that failed, and at most."""
STOPPING: Final = 5.0
"""Seconds that close() waits for the thread."""

on_lost_connection: Final[list[Callable[[str], object]]] = []
"""Called with a store's alias when leases of this process may have ended with its connection."""


class CannotListen(Exception):
    """The server forbids listening, or something in between keeps its messages back."""


class Waiter(Protocol):
    """A waiter's place in a queue, as its listener knows it."""

    @property
    def number(self) -> int:
        """Identifies the waiter among those of this process."""
        ...

    @property
    def wake(self) -> Callable[[], object]:
        """Makes the waiter try to acquire the lock."""
        ...


S = TypeVar("S", bound=Hashable)
W = TypeVar("W", bound=Waiter)
C = TypeVar("C")
Ready = Future[Exception | None]
"""Set once the thread listens (None), or why it can't."""


class Listener(ABC, Generic[S, W, C]):
    """This process's listening thread for one server, and the waiters that it wakes."""

    suspensions: ClassVar[tuple[float, ...]] = (60.0,)
    """Seconds until the next attempt where listening is refused: the first time, and later."""

    def __init__(self, server: S) -> None:
        self.server = server
        self._places: dict[int, W] = {}
        # Reentrant: while it is held, a signal handler or a finalizer may wait for a lock, too.
        self._changing = threading.RLock()
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._ready: Ready = running_future()
        self._failure: Exception | None = None
        """Why the last attempt to connect failed; None since one succeeded."""
        self._suspended_until = -1.0
        self._times_suspended = 0

    @classmethod
    def of(cls, server: S) -> Self:
        """Return this process's listener for a server; it need not run yet."""
        key = cls, server
        found = listeners.get(key)
        return cast("Self", found or listeners.setdefault(key, cls(server)))

    # The protocol, in the thread

    @abstractmethod
    def connect(self) -> AbstractContextManager[C]:
        """Return a context with a new connection, on which all waiters are in their queues.

        Raise CannotListen where an attempt that is made soon would fail, too.
        """

    @abstractmethod
    def attend(self, connection: C) -> float:
        """Do what is due, such as a sign of life; return the seconds until more is."""

    @abstractmethod
    def receive(self, connection: C, seconds: float) -> None:
        """Wait for messages for so many seconds at most, and act on them."""

    def is_needed(self) -> bool:
        """Return whether there is a waiter."""
        return bool(self._places)

    def failed(self, error: Exception, *, was_listening: bool) -> None:
        """React to a connection that was lost or can't be made; some waiters have to know."""

    # Callers' side

    def add(self, place: W) -> Ready:
        """Wake this waiter from now on; return what is set when the thread listens.

        NoThread if no thread can be started.
        """
        with self._changing:
            try:
                self._places[place.number] = place
                return self.start()
            except BaseException:
                self.remove(place)
                raise

    def remove(self, place: W) -> None:
        """Stop waking this waiter."""
        with self._changing:
            self._places.pop(place.number, None)

    def places(self) -> list[W]:
        """Return the places of all waiters, as they are now."""
        with self._changing:
            return [*self._places.values()]

    def start(self) -> Ready:
        """Start the thread unless it runs; return what is set when it listens. See add()."""
        with self._changing:
            if self._thread is None or not self._thread.is_alive():
                self._ready = running_future()
                self._stopping.clear()
                name = f"django_distlock listener: {self.server}"
                # Assigned before the start: an exception in a signal handler may interrupt that.
                self._thread = threading.Thread(target=self._run, name=name)
                try:
                    start_daemon(self._thread)
                except NoThread:
                    self._thread = None
                    raise
            return self._ready

    async def until_ready(self, calls: Calls, ready: Ready, deadline: float) -> None:
        """Return once the thread listens; raise LockBackendUnavailable if it can't by then.

        CannotListen if listening is refused.
        """
        await calls.wait(ready, deadline - clocks.monotonic())
        reason = ready.result() if ready.done() else self._failure or TimeoutError("no answer")
        if isinstance(reason, CannotListen):
            raise reason
        if reason is not None:
            raise LockBackendUnavailable(f"{self.server}: can't listen: {reason}") from reason

    @property
    def is_listening(self) -> bool:
        """Whether the waiters are woken at the moment."""
        return self._ready.done() and self._ready.result() is None

    def may_listen(self) -> bool:
        """Return whether it is worth an attempt: listening isn't suspended."""
        return self._suspended_until < 0 or clocks.monotonic() >= self._suspended_until

    def suspend(self) -> float:
        """Make no attempt for a while; return how many seconds.

        They are more each time, unless the last one is long ago.
        """
        now = clocks.monotonic()
        if now - self._suspended_until > self.suspensions[-1]:
            self._times_suspended = 0
        seconds = self.suspensions[min(self._times_suspended, len(self.suspensions) - 1)]
        self._times_suspended += 1
        self._suspended_until = now + seconds
        return seconds

    def reset(self, ready: Ready) -> bool:
        """Make callers wait until it listens again; False if they already do."""
        with self._changing:
            if ready is not self._ready or not ready.done():
                return False
            self._ready = running_future()
            return True

    def close(self) -> None:
        """Stop listening until the next waiter comes."""
        thread = self._thread
        if thread is None or thread is threading.current_thread():
            return
        self._stopping.set()
        thread.join(STOPPING)

    # The thread

    def _run(self) -> None:
        failures = 0
        while not self._ended():
            connected_at = None
            try:
                with self.connect() as connection:
                    connected_at = clocks.monotonic()
                    self._failure = None
                    self._ready.set_result(None)
                    self._listen(connection)
                failures, pause = 0, 0.0
            except CannotListen as error:
                pause = self.suspend()
                self.reset(self._ready)
                self._ready.set_result(error)
                self.failed(error, was_listening=False)
            except Exception as error:  # noqa: BLE001 - the waiters depend on this thread
                if connected_at is not None and _since(connected_at) > LONGEST_PAUSE:
                    # A connection that lasted is replaced at once.
                    failures, pause = 0, 0.0
                else:
                    pause = min(FIRST_PAUSE * 2**failures, LONGEST_PAUSE)
                    failures += 1
                if connected_at is None:
                    self._report(error, failures)
                self.reset(self._ready)
                self.failed(error, was_listening=connected_at is not None)
            self.pause(pause)
            self.reset(self._ready)

    def _report(self, error: Exception, failures: int) -> None:
        """Log a failure to connect once. Report it to callers unless it is the first in a row.

        A single failure may happen to any connection.
        """
        if self._failure is None and self.is_needed():
            logger.warning(
                "%s: can't listen, retrying: %s",
                self.server,
                error,
                extra={"reason": f"{self.server}: {error}"},
            )
        self._failure = error
        if failures > 1:
            self._ready.set_result(error)

    def pause(self, seconds: float) -> None:
        """Pause for so many seconds, or until there is no waiter any more."""
        ends_at = clocks.monotonic() + seconds
        while self.is_needed() and (left := ends_at - clocks.monotonic()) > 0:
            if self._stopping.wait(min(left, LONGEST_PAUSE)):
                return

    def _ended(self) -> bool:
        """Return whether the thread is no longer needed; the next waiter starts another one."""
        with self._changing:
            if self.is_needed() and not self._stopping.is_set():
                return False
            self._thread = None
            return True

    def _listen(self, connection: C) -> None:
        """Listen until there has been no waiter for IDLE seconds."""
        used_at = clocks.monotonic()
        while not self._stopping.is_set():
            now = clocks.monotonic()
            if self.is_needed():
                used_at = now
            elif now - used_at >= IDLE:
                return
            self.receive(connection, max(0.0, self.attend(connection)))


def _since(moment: float) -> float:
    return clocks.monotonic() - moment


listeners: Final[dict[Hashable, Listener[Any, Any, Any]]] = {}
"""Those of this process, by class and server: see Listener.of()."""


def _forget_all() -> None:
    """Forget them in a forked child: their threads and connections are the parent's."""
    listeners.clear()


os.register_at_fork(after_in_child=_forget_all)
