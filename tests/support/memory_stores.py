"""Locks in this process's memory, and their waiters."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from django_distlock import distributed_lock, lock_backends
from django_distlock.backends.memory import MemoryBackend

if TYPE_CHECKING:
    from django_distlock.backends.memory import SharedTable

ALIAS = "memory"


class TableClock:
    """A clock that the test advances."""

    now = 1000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


def memory_store() -> MemoryBackend:
    """Return this thread's store."""
    found = lock_backends[ALIAS]
    assert isinstance(found, MemoryBackend)
    return found


def waiting(shared: SharedTable, number: int) -> bool:
    """Return whether so many wait."""
    return len(shared.table.waiters) == number


async def until_waiting(shared: SharedTable, number: int) -> None:
    """Run the other tasks until so many wait."""
    while not waiting(shared, number):  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(0)


def take(**arguments: Any) -> float:
    """Wait for the lock, and release it at once; return the time of the grant."""
    with distributed_lock("1234collectPayment", backend=ALIAS, **{"timeout": 100, **arguments}):
        return time.monotonic_ns()
