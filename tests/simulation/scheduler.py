"""Virtual time: events in the order of their times, and simulated threads that wait for them.

One greenlet, the hub, takes the next event and sets the time to it. A simulated thread is another
greenlet: it runs until it waits, and no time passes meanwhile. So the same seed gives the same run.
"""

from __future__ import annotations

import threading
from collections import deque
from functools import partial
from heapq import heappop, heappush
from itertools import count
from random import Random
from typing import TYPE_CHECKING, ClassVar, Final

from greenlet import GreenletExit, getcurrent, greenlet

if TYPE_CHECKING:
    from collections.abc import Callable

    from .machines import Process

MOST_EVENTS: Final = 200_000
"""How many events a universe may have: one with more makes no progress."""
LATENESS: Final = 0.0002
"""Seconds, at most, from the moment when something can run until it runs."""


class SimulationError(Exception):
    """The simulation itself can't go on: the code did what it doesn't simulate."""


class Scheduler:
    """The time of one universe, in seconds since its beginning, and its only source of chance."""

    current: ClassVar[Scheduler]
    """That of the universe that runs now."""

    def __init__(self, seed: int | str) -> None:
        self.random = Random(seed)
        self.now = 0.0
        self.process: Process | None = None
        """The process whose code runs now."""
        self.thread: SimulatedThread | None = None
        """The simulated thread that runs now; None in an event loop."""
        self.is_over = False
        self.real_thread = threading.get_ident()
        """The one in which all of it runs."""
        self._hub = getcurrent()
        self._events: list[tuple[float, int, Callable[[], object]]] = []
        self._numbers = count()

    def call_at(self, time: float, call: Callable[[], object]) -> None:
        """Call this at a time, after what was scheduled for the same time before."""
        heappush(self._events, (time, next(self._numbers), call))

    def call_later(self, seconds: float, call: Callable[[], object]) -> None:
        """Call this in so many seconds."""
        self.call_at(self.now + seconds, call)

    def call_soon(self, call: Callable[[], object]) -> None:
        """Call this as soon as a processor is free."""
        self.call_at(self.now + LATENESS * self.random.random(), call)

    def run_until(self, end: float) -> None:
        """Let the time pass until then."""
        events = self._events
        while events and events[0][0] <= end:
            self.now, number, call = heappop(events)
            if number > MOST_EVENTS:
                raise SimulationError(f"no progress: {MOST_EVENTS} events until {self.now} s")
            call()
        self.now = end

    def wait(self, seconds: float | None = None) -> None:
        """Let the running thread wait for wake(), or for so many seconds."""
        thread = self.thread
        if self.is_over:
            raise GreenletExit
        if thread is None:
            raise SimulationError("code in an event loop waits for something outside of it")
        if seconds is not None:
            self.call_later(seconds, partial(thread.resume, thread.wait_number))
        self.thread, self.process = None, None
        self._hub.switch()
        self.thread, self.process = thread, thread.process

    def wake(self, thread: SimulatedThread) -> None:
        """End the thread's current wait."""
        self.call_soon(partial(thread.resume, thread.wait_number))

    def sleep(self, seconds: float) -> None:
        """Let the running thread wait for so many seconds."""
        self.wait(seconds)

    def new_greenlet(self, run: Callable[[], object]) -> greenlet:
        """Return a greenlet that ends in the hub."""
        return greenlet(run, self._hub)

    def end(self, threads: list[SimulatedThread]) -> None:
        """End all threads: whatever they still do, they can't wait."""
        self.is_over = True
        for thread in threads:
            thread.throw()


class SimulatedThread:
    """A thread of a simulated process."""

    def __init__(self, process: Process, run: Callable[[], object]) -> None:
        self.process = process
        self.wait_number = 0
        """Counts its waits: what was to end an earlier one comes too late."""
        self.has_ended = False
        self._run = run
        self._scheduler = Scheduler.current
        self._greenlet = self._scheduler.new_greenlet(self._run_to_end)

    def _run_to_end(self) -> None:
        try:
            self._run()
        except GreenletExit:
            pass
        finally:
            self.has_ended = True

    def start(self) -> None:
        """Run soon."""
        self._scheduler.wake(self)

    def resume(self, wait_number: int) -> None:
        """Go on after this wait, when the process may run."""
        if wait_number == self.wait_number:
            self.process.run(partial(self._switch, wait_number))

    def _switch(self, wait_number: int) -> None:
        if wait_number == self.wait_number and not self.has_ended:
            self.wait_number += 1
            self._scheduler.thread, self._scheduler.process = self, self.process
            self._greenlet.switch()
            self._scheduler.thread = None

    def throw(self) -> None:
        """End it, from outside of it."""
        if self._greenlet:
            self._scheduler.thread, self._scheduler.process = self, self.process
            self._greenlet.throw(GreenletExit)
            self._scheduler.thread = None
        self.has_ended = True


class Waiters:
    """Threads that wait for the same thing, first come first."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[SimulatedThread, list[bool]]] = deque()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait for wake_first() or wake_all(); return False if the time is over before."""
        scheduler = Scheduler.current
        thread, woken = scheduler.thread, [False]
        if thread is None:
            scheduler.wait(seconds)  # raises
            return False
        place = thread, woken
        self._waiting.append(place)
        try:
            scheduler.wait(seconds)
        finally:
            if not woken[0] and place in self._waiting:
                self._waiting.remove(place)
        return woken[0]

    def wake_first(self) -> bool:
        """Wake the first thread; return False if none waits."""
        if not self._waiting:
            return False
        thread, woken = self._waiting.popleft()
        woken[0] = True
        Scheduler.current.wake(thread)
        return True

    def wake_all(self) -> None:
        """Wake all threads."""
        while self.wake_first():
            pass
