"""Wait for a lock: in which order, how long between two tries, and what ends a pause early."""

import asyncio
import math
import random
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Final, NamedTuple

from . import clocks
from .acquiring import Acquisition
from .asking import Questions, aask, ask
from .backends.base import Place
from .exceptions import LockBackendUnavailable
from .handler import lock_backends
from .leases import Lease
from .queues import queues

FIRST_PAUSE: Final = 0.001
LONGEST_PAUSE: Final = 0.2


class Step(NamedTuple):
    """What begins to ask the store, and how to undo that for a task that is cancelled."""

    begin: Callable[[], Questions[Any]]
    undo: Callable[[Any], object] | None = None


Steps = Generator[float | Step, Any, Lease | None]


def wait(acquisition: Acquisition) -> Lease | None:
    """Try until the deadline, in this thread."""
    waiter = WaitingThread()
    steps = _wait(acquisition, waiter)
    try:
        step = next(steps)
        while True:
            try:
                answer = None
                if isinstance(step, Step):
                    answer = ask(lock_backends[acquisition.backend], step.begin())
                else:
                    waiter.pause(step)
            except BaseException as error:  # noqa: BLE001 - thrown where it is to be handled
                step = steps.throw(error)
            else:
                step = steps.send(answer)
    except StopIteration as end:
        lease: Lease | None = end.value
        return lease


async def await_turn(acquisition: Acquisition) -> Lease | None:
    """Try until the deadline, in this task. See wait()."""
    waiter = WaitingTask()
    steps = _wait(acquisition, waiter)
    try:
        step = next(steps)
        while True:
            try:
                answer = None
                if isinstance(step, Step):
                    answer = await aask(acquisition.backend, step.begin, step.undo)
                else:
                    await waiter.pause(step)
            except BaseException as error:  # noqa: BLE001 - thrown where it is to be handled
                step = steps.throw(error)
            else:
                step = steps.send(answer)
    except StopIteration as end:
        lease: Lease | None = end.value
        return lease


class WaitingThread:
    """A thread that waits; any other one can wake it."""

    loop = None

    def __init__(self) -> None:
        self._wakes: SimpleQueue[None] = SimpleQueue()

    def wake(self) -> bool:
        """End its pause, or its next one. Safe in a finalizer, as a release is."""
        self._wakes.put(None)
        return True

    def pause(self, seconds: float) -> None:
        """Return after so many seconds, or when woken."""
        with suppress(Empty):
            self._wakes.get(timeout=min(seconds, threading.TIMEOUT_MAX))
            while True:
                self._wakes.get_nowait()


class WaitingTask:
    """A task that waits; any thread can wake it."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._woken = asyncio.Event()

    def wake(self) -> bool:
        """End its pause, or its next one; False if it is gone with its loop."""
        try:
            self.loop.call_soon_threadsafe(self._woken.set)
        except RuntimeError:  # the loop is closed
            return False
        return True

    async def pause(self, seconds: float) -> None:
        """Return after so many seconds, or when woken."""
        with suppress(TimeoutError):
            async with asyncio.timeout(None if seconds == math.inf else seconds):
                await self._woken.wait()
        self._woken.clear()


def _wait(acquisition: Acquisition, waiter: WaitingThread | WaitingTask) -> Steps:
    """Yield how long to pause and what to ask the store, until the deadline has passed.

    Each waits in its store's own queue, if that has one for all; else the first one in each queue
    of this process asks the store, and the others wait for their turn.
    """
    if acquisition.is_queued_by_store:
        return (yield from _ask_again(acquisition, waiter))
    with queues.waiting(acquisition.backend, acquisition.semaphore, waiter) as queue:
        while not queue.is_first(waiter):
            left = acquisition.deadline - clocks.monotonic()
            if left <= 0:
                return None
            yield left
        return (yield from _ask_again(acquisition, waiter))


def _ask_again(acquisition: Acquisition, waiter: WaitingThread | WaitingTask) -> Steps:
    """Try after each pause, or when the store tells that it is time to."""
    place: Place | None = yield Step(partial(acquisition.join, waiter.wake), _leave)
    lease: Lease | None = None
    try:
        for pause in waits(acquisition.deadline, place):
            yield pause
            if place is not None:
                place.check()
            try:
                lease = yield Step(acquisition.try_once, give_up)
            except LockBackendUnavailable:
                if place is None or not place.outlasts_failures or acquisition.is_over():
                    raise
            if lease is not None:
                break
    except GeneratorExit:
        raise  # its event loop is closed: nobody asks any more
    except BaseException:
        yield from _leave_with(place, None)
        raise
    yield from _leave_with(place, lease)
    return lease


def _leave_with(place: Place | None, lease: Lease | None) -> Generator[Step, Any, None]:
    """Give up the place; if that is interrupted, the lease as well, which nobody gets then."""
    if place is None:
        return
    try:
        with suppress(LockBackendUnavailable):  # who is gone from a store is forgotten there
            yield Step(partial(_leaving, place, lease is not None))
    except BaseException:
        if lease is not None:
            yield Step(partial(lease.abandoning, failed=True))
        raise


def waits(deadline: float, place: Place | None = None) -> Iterator[float]:
    """Yield how many seconds to pause before each next try, until the deadline has passed.

    Exponential back-off with jitter, unless the store tells when to try; the last try is made at
    the deadline. The clock is the local monotonic one, so that the time a try takes is part of the
    wait.
    """
    longest = FIRST_PAUSE
    while (left := deadline - clocks.monotonic()) > 0:
        if place is None:
            pause = random.uniform(longest / 2, longest)  # noqa: S311 - not for secrets
            longest = min(2 * longest, LONGEST_PAUSE)
        else:
            pause = place.patience
        yield min(left, pause)


def give_up(lease: Lease | None) -> None:
    """Give back at once what a task that was cancelled is granted."""
    if lease is not None:
        ask(lock_backends[lease.backend], lease.abandoning(failed=True))


def _leaving(place: Place, granted: bool) -> Questions[None]:
    yield "leave", (place, granted)


def _leave(place: Place | None) -> None:
    """Give up the place of a task that was cancelled."""
    if place is not None:
        place.leave(granted=False)
