"""Locks in this process's memory, and who waits for them."""

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
    """Time that passes when it is told to."""

    now = 1000.0

    def __call__(self) -> float:
        """Return it."""
        return self.now


def memory_store() -> MemoryBackend:
    """Return this thread's."""
    found = lock_backends[ALIAS]
    assert isinstance(found, MemoryBackend)
    return found


def waiting(shared: SharedTable, number: int) -> bool:
    """Tell whether so many wait."""
    return len(shared.table.waiters) == number


async def until_waiting(shared: SharedTable, number: int) -> None:
    """Let the tasks run until so many wait."""
    while not waiting(shared, number):  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(0)


def take(**arguments: Any) -> float:
    """Wait for the lock, and give it back at once; return when it was granted."""
    with distributed_lock("1234collectPayment", backend=ALIAS, **{"timeout": 100, **arguments}):
        return time.monotonic_ns()
