"""The calls of an actor, in sync and async code: the workload is written once, as `async def`."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from asgiref.sync import sync_to_async

from django_distlock import (
    LockLost,
    LockNotAcquired,
    aacquire_lock,
    acquire_lock,
    distributed_lock,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from django_distlock import Lease
    from django_distlock.views.block import LockBlock

T = TypeVar("T")

FORKED_TIME = 5.0
"""Seconds after which a forked child is killed: another thread may have held a lock of Python's."""


class Calls(Protocol):
    """What an actor calls."""

    async def acquire(self, cancel_after: float | None, **arguments: Any) -> Lease | None: ...
    async def enter(self, cancel_after: float | None, **arguments: Any) -> Lease | None: ...
    async def release(self, lease: Lease) -> bool: ...
    async def renew(self, lease: Lease) -> None: ...
    async def sleep(self, seconds: float) -> None: ...
    async def run(self, work: Callable[[], T]) -> T: ...
    async def fork(self, lease: Lease) -> None: ...


class SyncCalls:
    """Calls that block: none of these coroutines suspends."""

    def __init__(self) -> None:
        self._block: LockBlock[None] | None = None

    async def acquire(self, cancel_after: float | None, **arguments: Any) -> Lease | None:
        return acquire_lock(**arguments)

    async def enter(self, cancel_after: float | None, **arguments: Any) -> Lease | None:
        """Acquire as a `with` block does: commits are guarded until the release."""
        block = distributed_lock(**arguments)
        try:
            lease = block.__enter__()
        except LockNotAcquired:
            return None
        self._block = block
        return lease

    async def release(self, lease: Lease) -> bool:
        block, self._block = self._block, None
        if block is None:
            return lease.release()
        try:
            block.__exit__(None, None, None)
        except LockLost:
            return False
        return True

    async def renew(self, lease: Lease) -> None:
        lease.renew()

    async def sleep(self, seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251 - in sync code

    async def run(self, work: Callable[[], T]) -> T:
        return work()

    async def fork(self, lease: Lease) -> None:
        check_fork(lease)


class AsyncCalls:
    """Calls that are awaited, in an event loop."""

    def __init__(self) -> None:
        self._block: LockBlock[None] | None = None

    async def acquire(self, cancel_after: float | None, **arguments: Any) -> Lease | None:
        async with asyncio.timeout(cancel_after):
            return await aacquire_lock(**arguments)

    async def enter(self, cancel_after: float | None, **arguments: Any) -> Lease | None:
        """See SyncCalls.enter()."""
        block = distributed_lock(**arguments)
        try:
            async with asyncio.timeout(cancel_after):
                lease = await block.__aenter__()
        except LockNotAcquired:
            return None
        self._block = block
        return lease

    async def release(self, lease: Lease) -> bool:
        block, self._block = self._block, None
        if block is None:
            return await lease.arelease()
        try:
            await block.__aexit__(None, None, None)
        except LockLost:
            return False
        return True

    async def renew(self, lease: Lease) -> None:
        await lease.arenew()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def run(self, work: Callable[[], T]) -> T:
        return await sync_to_async(work, thread_sensitive=False)()

    async def fork(self, lease: Lease) -> None:
        """Don't: a child with a copy of the event loop is nobody's."""


def check_fork(lease: Lease) -> None:
    """Fork: the child must neither hold nor release the parent's lease."""
    pid = os.fork()
    if not pid:
        try:
            os._exit(lease.held or lease.release())
        finally:
            os._exit(2)
    deadline = time.monotonic() + FORKED_TIME
    ended, status = 0, 0
    while not ended:
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return
        time.sleep(0.002)
        ended, status = os.waitpid(pid, os.WNOHANG)
    assert status == 0, f"a forked child had its parent's lease: {status}"
