"""The limit on how many tasks of an event loop ask a server at once."""

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final
from weakref import WeakKeyDictionary

from django_distlock import clocks

AT_ONCE: Final = 8
"""How many connections to a server the tasks of an event loop have at once."""


def seconds_until(deadline: float) -> float:
    """Return how many seconds are left; TimeoutError if none."""
    left = deadline - clocks.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


class Turns:
    """Lets AT_ONCE tasks of each event loop ask a server at once; the others wait."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._answered_at = -math.inf
        self._semaphores: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = (
            WeakKeyDictionary()
        )

    def answered(self) -> None:
        """Note that the server has just answered a task."""
        self._answered_at = clocks.monotonic()

    @asynccontextmanager
    async def take(self, deadline: float) -> AsyncIterator[float]:
        """Wait for a turn, and yield the deadline.

        It is later for a task that had to wait while the server answered others.
        """
        loop = asyncio.get_running_loop()
        semaphore = self._semaphores.get(loop)
        if semaphore is None:
            semaphore = self._semaphores[loop] = asyncio.Semaphore(AT_ONCE)
        if semaphore.locked():
            deadline = await self._wait(semaphore, deadline)
        else:
            await semaphore.acquire()
        try:
            yield deadline
        finally:
            semaphore.release()

    async def _wait(self, semaphore: asyncio.Semaphore, deadline: float) -> float:
        """Wait for a turn; return the deadline, which moves on while the server answers others."""
        while True:
            left = seconds_until(deadline)
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await semaphore.acquire()
                return max(deadline, self._answered_at + self._timeout)
            deadline = self._answered_at + self._timeout
