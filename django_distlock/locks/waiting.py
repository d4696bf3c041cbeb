"""Wait for a lock: in which order, how long between two attempts, and what ends a pause early."""

import asyncio
import math
import random
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from functools import partial
from typing import Any, Final, TypeVar

from django_distlock import clocks
from django_distlock.backends.sync_driver import run_sync
from django_distlock.concurrency.process_queue import queues
from django_distlock.concurrency.store_calls import Policy, aask, ask
from django_distlock.concurrency.wakeups import Wakeup
from django_distlock.conf import lock_backends
from django_distlock.exceptions import LockBackendUnavailable
from django_distlock.leases.owned_lease import OwnedLease
from django_distlock.leases.release import release_quietly
from django_distlock.records import Place

from .acquisition import Acquisition

T = TypeVar("T")

FIRST_PAUSE: Final = 0.001
LONGEST_PAUSE: Final = 0.2


def wait(acquisition: Acquisition) -> OwnedLease | None:
    """Attempt to acquire until the deadline, in this thread."""
    return run_sync(_wait(acquisition, WaitingThread(acquisition.backend)))


async def await_turn(acquisition: Acquisition) -> OwnedLease | None:
    """See wait()."""
    return await _wait(acquisition, WaitingTask(acquisition.backend))


class WaitingThread:
    """A waiting thread, which other threads can wake. None of its coroutines suspends."""

    loop = None

    def __init__(self, backend: str) -> None:
        self._backend = backend
        self._wakeup = Wakeup()

    def wake(self) -> bool:
        """End the current pause, or the next one. Safe in a finalizer, where a release may run."""
        self._wakeup.set()
        return True

    async def pause(self, seconds: float) -> None:
        """Sleep for this many seconds, or until woken."""
        self._wakeup.wait(seconds)

    async def ask(self, policy: Policy[T], undo: Callable[[T], object] | None = None) -> T:
        """Run a policy."""
        return ask(lock_backends[self._backend], policy)


class WaitingTask:
    """A waiting task, which any thread can wake."""

    def __init__(self, backend: str) -> None:
        self._backend = backend
        self.loop = asyncio.get_running_loop()
        self._woken = asyncio.Event()

    def wake(self) -> bool:
        """End the current pause, or the next one. Return False if its event loop is closed."""
        try:
            self.loop.call_soon_threadsafe(self._woken.set)
        except RuntimeError:  # the loop is closed
            return False
        return True

    async def pause(self, seconds: float) -> None:
        """Sleep for this many seconds, or until woken."""
        with suppress(TimeoutError):
            async with asyncio.timeout(None if seconds == math.inf else seconds):
                await self._woken.wait()
        self._woken.clear()

    async def ask(self, policy: Policy[T], undo: Callable[[T], object] | None = None) -> T:
        """Run a policy. If the task is cancelled meanwhile, `undo` its result."""
        return await aask(self._backend, policy, undo)


Waiter = WaitingThread | WaitingTask


before_waits: Final[list[Callable[[Acquisition, Waiter], Coroutine[Any, Any, object]]]] = []
"""Awaited before each wait, in sync code as by run_sync(): the test kit lets the time pass."""


async def _wait(acquisition: Acquisition, waiter: Waiter) -> OwnedLease | None:
    """Attempt and pause in turn, until the deadline.

    If the store queues waiters itself, each has its place there. Otherwise only the first waiter of
    each queue of this process asks the store, and the others wait for their turn.
    """
    for prepare in before_waits:
        await prepare(acquisition, waiter)
    if acquisition.is_queued_by_store:
        return await _ask_again(acquisition, waiter)
    backend, semaphore = acquisition.backend, acquisition.semaphore
    try:
        queue = queues.join(backend, semaphore, waiter)
        while not queue.is_first(waiter):
            left = acquisition.deadline - clocks.monotonic()
            if left <= 0:
                return await _try_at_least_once(acquisition, waiter)
            await waiter.pause(left)
        return await _ask_again(acquisition, waiter)
    finally:
        queues.leave(backend, semaphore, waiter)


async def _ask_again(acquisition: Acquisition, waiter: Waiter) -> OwnedLease | None:
    """Attempt after each pause, which ends early when the store wakes the waiter."""
    place = await waiter.ask(
        partial(acquisition.join, wake=waiter.wake), partial(_leave, acquisition.backend)
    )
    lease: OwnedLease | None = None
    try:
        for pause in waits(acquisition.deadline, place):
            await waiter.pause(pause)
            if place is not None:
                place.check()
            try:
                lease = await waiter.ask(
                    partial(acquisition.try_once, place=place), release_cancelled
                )
            except LockBackendUnavailable:
                if place is None or acquisition.has_left:
                    raise
            if lease is not None:
                break
        else:
            lease = await _try_at_least_once(acquisition, waiter)
    except GeneratorExit:
        raise  # the event loop is closed: the store can't be asked
    except BaseException:
        if not acquisition.has_left:
            await _leave_with(place, None, waiter)
        await _undo(acquisition, waiter)
        raise
    await _leave_with(place, lease, waiter)
    if lease is None:
        await _undo(acquisition, waiter)
    return lease


async def _undo(acquisition: Acquisition, waiter: Waiter) -> None:
    """Undo an attempt that failed, now that no other one will find what it was granted."""
    if acquisition.must_undo:
        await waiter.ask(acquisition.undo)


async def _try_at_least_once(acquisition: Acquisition, waiter: Waiter) -> OwnedLease | None:
    """Attempt after the deadline, if there was no attempt before."""
    return (
        await waiter.ask(acquisition.try_once, release_cancelled) if acquisition.must_try else None
    )


async def _leave_with(place: Place | None, lease: OwnedLease | None, waiter: Waiter) -> None:
    """Leave the store's queue. If that is interrupted, release the lease, which is not returned."""
    if place is None:
        return
    try:
        with suppress(LockBackendUnavailable):  # the store drops waiters that don't answer
            await waiter.ask(lambda calls: calls.leave(place, lease is not None))
    except GeneratorExit:
        raise
    except BaseException:
        if lease is not None:
            await waiter.ask(partial(release_quietly, lease=lease, failed=True))
        raise


def waits(deadline: float, place: Place | None = None) -> Iterator[float]:
    """Yield the seconds to pause before each attempt, until the deadline.

    Exponential back-off with jitter, unless the store wakes the waiter. The last attempt is made at
    the deadline, by the local monotonic clock, so the time that attempts take is part of the wait.
    """
    longest = FIRST_PAUSE
    while (left := deadline - clocks.monotonic()) > 0:
        if place is None:
            pause = random.uniform(longest / 2, longest)  # noqa: S311 - not for secrets
            longest = min(2 * longest, LONGEST_PAUSE)
        else:
            pause = place.patience
        yield min(left, pause)


def release_cancelled(lease: OwnedLease | None) -> None:
    """Release at once a lease that was granted to a cancelled task."""
    if lease is not None:
        ask(lock_backends[lease.backend], partial(release_quietly, lease=lease, failed=True))


def _leave(backend: str, place: Place | None) -> None:
    """Leave the store's queue for a task that was cancelled."""
    if place is not None:
        ask(lock_backends[backend], lambda calls: calls.leave(place, False))
