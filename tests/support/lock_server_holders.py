"""Threads and tasks that wait for a lock of a lock server, and release it at once."""

from __future__ import annotations

from typing import Any

from django_distlock import distributed_lock
from tests.support.lock_servers import ALIAS


def take(**arguments: Any) -> int | None:
    """Wait for the lock, and release it at once; return the token."""
    with distributed_lock(
        "1234collectPayment", backend=ALIAS, **{"timeout": 60, **arguments}
    ) as lease:
        return lease.token


async def take_in_task() -> int | None:
    """Do so in a task."""
    async with distributed_lock("1234collectPayment", backend=ALIAS, timeout=60) as lease:
        return lease.token
