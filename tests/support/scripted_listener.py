"""A listener with a scripted protocol, and its waiters."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from django_distlock import clocks
from django_distlock.backends.listening import Listener
from django_distlock.backends.sockets.calls import BLOCKING, IN_LOOP
from django_distlock.backends.sync_driver import run_sync
from tests.support.concurrency import run

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE = 30.0
"""Seconds within which what takes none is done, on a busy machine."""


class Waiting:
    """A waiter that can be woken."""

    def __init__(self, number: int = 1) -> None:
        self.number = number
        self.woken = threading.Event()

    def wake(self) -> None:
        """Note that it was woken."""
        self.woken.set()


class Scripted(Listener[str, Waiting, int]):
    """A protocol that connects as its `outcomes` say, and then always; connections are numbers."""

    suspensions = (600.0,)

    def __init__(self, server: str) -> None:
        super().__init__(server)
        self.outcomes: list[Exception] = []
        self.connections: list[list[int]] = []
        """The numbers of those who waited when each connection was made."""
        self.closed: list[int] = []
        self.failures: list[tuple[str, bool]] = []
        self.breaks = threading.Event()

    @contextmanager
    def connect(self) -> Iterator[int]:
        if self.outcomes:
            raise self.outcomes.pop(0)
        number = len(self.connections)
        self.connections.append([place.number for place in self.places()])
        try:
            yield number
        finally:
            self.closed.append(number)

    def attend(self, connection: int) -> float:
        return 0.01

    def receive(self, connection: int, seconds: float) -> None:
        if self.breaks.wait(seconds):
            self.breaks.clear()
            raise ConnectionResetError("it is broken")
        for place in self.places():
            place.wake()

    def failed(self, error: Exception, *, was_listening: bool) -> None:
        self.failures.append((str(error), was_listening))


def ready(listener: Scripted, *, in_task: bool = False) -> None:
    """Wait until it listens, in a thread or a task."""
    deadline = clocks.monotonic() + PATIENCE
    calls = IN_LOOP if in_task else BLOCKING
    waiting = listener.until_ready(calls, listener.start(), deadline)
    run(waiting) if in_task else run_sync(waiting)


def threads() -> int:
    """Return how many threads listen to the server."""
    return sum(
        thread.name == "django_distlock listener: The server" for thread in threading.enumerate()
    )
