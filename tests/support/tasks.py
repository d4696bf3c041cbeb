"""Tasks that hold locks, and that are cancelled while a store is slow to answer."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from django_distlock import Lease, LockNotHeld, aacquire_lock, arelease_lock, release_lock
from tests.support.concurrency import elsewhere
from tests.support.holders import free_for_others

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

T = TypeVar("T")


async def get(alias: str, semaphore: str = "1234collectPayment", **arguments: Any) -> Lease:
    """Acquire a lock that must be free."""
    lease = await aacquire_lock(semaphore, backend=alias, **arguments)
    assert lease is not None
    return lease


async def is_free(alias: str) -> bool:
    """Return whether the lock is free."""
    return await asyncio.to_thread(free_for_others, alias)


def owns() -> bool:
    """Release by name, and return whether that was possible."""
    try:
        return release_lock("1234collectPayment")
    except LockNotHeld:
        return False


async def aowns() -> bool:
    """Release by name in async code, and return whether that was possible."""
    try:
        return await arelease_lock("1234collectPayment")
    except LockNotHeld:
        return False


async def in_other_thread(call: Callable[..., T], *arguments: object) -> T:
    """Call in another thread, which closes what it opens."""
    return await asyncio.to_thread(elsewhere, lambda: call(*arguments))


class Stall:
    """A store's call that lasts until the test ends it."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.ended = threading.Event()

    def __call__(self) -> None:
        self.begun.set()
        assert self.ended.wait(60)

    async def has_begun(self) -> None:
        """Wait for the call."""
        assert await asyncio.to_thread(self.begun.wait, 60)


async def cancelled(task: asyncio.Task[Any]) -> None:
    """Wait for the end of a task that must have been cancelled."""
    with pytest.raises(asyncio.CancelledError):
        await task


async def cancel_during(stall: Stall, work: Coroutine[Any, Any, object]) -> None:
    """Cancel a task while this call of the store's is under way, and wait for the task's end."""
    task = asyncio.create_task(work)
    await stall.has_begun()
    task.cancel()
    stall.ended.set()
    await cancelled(task)


async def others_ended() -> None:
    """Wait for all other tasks of this event loop, though nobody refers to them."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    await asyncio.gather(*others, return_exceptions=True)
