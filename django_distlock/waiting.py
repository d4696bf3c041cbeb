"""Wait for a lock: how long between two tries, and which task's turn it is to try."""

import asyncio
import math
import random
import time
from collections.abc import Iterator
from typing import Final
from weakref import WeakKeyDictionary, WeakValueDictionary

from . import clocks
from .acquiring import Acquisition
from .leases import Lease
from .threads import in_thread

FIRST_PAUSE: Final = 0.001
LONGEST_PAUSE: Final = 0.2


def waits(deadline: float) -> Iterator[float]:
    """Yield how many seconds to pause before each next try, until the deadline has passed.

    Exponential back-off with jitter; the last try is made at the deadline. The clock is the local
    monotonic one, so that the time a try takes is part of the wait.
    """
    longest = FIRST_PAUSE
    while (left := deadline - clocks.monotonic()) > 0:
        yield min(left, random.uniform(longest / 2, longest))  # noqa: S311 - not for secrets
        longest = min(2 * longest, LONGEST_PAUSE)


def wait(acquisition: Acquisition) -> Lease | None:
    """Try until the deadline."""
    for pause in waits(acquisition.deadline):
        time.sleep(pause)
        if lease := acquisition.try_again():
            return lease
    return None


async def await_turn(acquisition: Acquisition) -> Lease | None:
    """Try until the deadline; of all tasks that wait in this loop, the first one alone does."""
    deadline = acquisition.deadline
    turn = _turn(acquisition)
    try:
        async with asyncio.timeout(None if deadline == math.inf else deadline - clocks.monotonic()):
            await turn.acquire()
    except TimeoutError:
        return None
    try:
        for pause in waits(deadline):
            await asyncio.sleep(pause)
            if lease := await in_thread(acquisition.backend, acquisition.try_again, give_up):
                return lease
    finally:
        turn.release()
    return None


_turns: WeakKeyDictionary[
    asyncio.AbstractEventLoop, WeakValueDictionary[tuple[str, str], asyncio.Lock]
] = WeakKeyDictionary()


def _turn(acquisition: Acquisition) -> asyncio.Lock:
    """Return what the tasks that wait for the same semaphore queue for, in their order."""
    name = acquisition.backend, acquisition.semaphore
    queues = _turns.setdefault(asyncio.get_running_loop(), WeakValueDictionary())
    return queues.setdefault(name, asyncio.Lock())


def give_up(lease: Lease | None) -> None:
    """Give back at once what a task that was cancelled is granted."""
    if lease is not None:
        lease.abandon(failed=True)
