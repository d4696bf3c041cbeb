"""Undocumented attributes may disappear: each has a slower, public fallback."""

from __future__ import annotations

import asyncio
import inspect
import threading
from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import ThreadSensitiveContext, async_to_sync, sync_to_async
from django.db import connections, transaction

from django_distlock import (
    LockNotHeld,
    acquire_lock,
    arelease_lock,
    release_lock,
    runtime,
)
from django_distlock.concurrency.sync_transactions import has_open_transaction
from tests.support.concurrency import elsewhere, run
from tests.support.databases import committed
from tests.support.holders import acquire
from tests.support.tasks import get

if TYPE_CHECKING:
    from tests.support.scripted_store import ScriptedBackend

pytestmark = committed

OF_ASGIREF = [
    "_threads",
    "_work_thread",
    "context_to_thread_executor",
    "current",
    "executors",
    "loop_thread_executors",
    "single_thread_executor",
    "thread_sensitive_context",
]
OF_PYTHON = ["_current_frames", "frames", "running loop"]
OF_FRAMES = {
    "task_context": "MARK",
    "args": "WORK",
    "awaitable": "AWAITABLE",
    "FutureIter": "WAITING_FOR_FUTURE",
}


class Without:
    """A module without one of its names."""

    def __init__(self, module: Any, name: str) -> None:
        self._module = module
        self._name = name

    def __getattr__(self, name: str) -> Any:
        if name == self._name:
            raise AttributeError(name)
        return getattr(self._module, name)


@pytest.fixture(params=[*OF_ASGIREF, *OF_PYTHON, *OF_FRAMES])
def removed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Remove what a library doesn't document, and return its name."""
    name: str = request.param
    read = runtime.read_private

    names = {name} if name != "frames" else {"_current_frames"}

    def read_less(owner: object, each: str, default: Any = None) -> Any:
        return default if each in names else read(owner, each, default)

    monkeypatch.setattr(runtime, "read_private", read_less)

    if name == "running loop":
        monkeypatch.setattr(runtime, "asyncio", Without(asyncio, "_get_running_loop"))
    elif name == "frames":
        monkeypatch.setattr(inspect, "currentframe", lambda: None)
    elif name in OF_FRAMES:
        monkeypatch.setattr(runtime, OF_FRAMES[name], "gone")
    return name


async def cross_to_sync() -> None:
    """Acquire and release across each crossing from async to sync code."""
    await get("default")
    assert await sync_to_async(release_lock)("1234collectPayment") is True
    await sync_to_async(acquire)("default")
    assert await arelease_lock("1234collectPayment") is True
    await sync_to_async(async_to_sync(get))("default")
    assert await sync_to_async(async_to_sync(arelease_lock))("1234collectPayment") is True


def test_lease_is_the_callers_across_every_crossing(
    removed: str, scripted: ScriptedBackend
) -> None:
    """From a task, in a request's context and outside, and from a thread."""

    async def main() -> None:
        await cross_to_sync()
        async with ThreadSensitiveContext():
            await cross_to_sync()

    def cross_to_async() -> None:
        acquire("default")
        assert async_to_sync(arelease_lock)("1234collectPayment") is True
        async_to_sync(get)("default")
        assert release_lock("1234collectPayment") is True

    run(main())
    elsewhere(cross_to_async)
    elsewhere(async_to_sync(cross_to_sync))


def test_child_does_not_own_the_lease(removed: str, scripted: ScriptedBackend) -> None:
    """Neither a task that the owner starts, nor a thread."""

    def refused() -> None:
        with pytest.raises(LockNotHeld):
            release_lock("1234collectPayment")

    async def main() -> None:
        await get("default")
        with pytest.raises(LockNotHeld):
            await asyncio.gather(arelease_lock("1234collectPayment"))
        if removed != "frames":  # otherwise a thread can't find its caller
            await asyncio.to_thread(refused)
        assert await arelease_lock("1234collectPayment") is True

    run(main())


def test_open_transaction_of_sync_code_is_found(removed: str) -> None:
    """It may be the task's own, or that of the thread that waits for the task."""
    alias = "default"
    found: list[bool] = []

    async def look() -> None:
        found.append(await has_open_transaction())

    def enter() -> Any:
        block = transaction.atomic(using=alias)
        block.__enter__()
        return block

    async def main() -> None:
        connection = await sync_to_async(lambda: connections[alias])()
        await sync_to_async(connection.ensure_connection)()
        await look()
        block = await sync_to_async(enter)()
        await look()
        await sync_to_async(block.__exit__)(None, None, None)
        await look()

    def call() -> None:
        with transaction.atomic(using=alias):
            async_to_sync(look)()

    run(main())
    elsewhere(call)
    assert found == [False, True, False, True]


def test_thread_owns_no_lease_of_another(removed: str, scripted: ScriptedBackend) -> None:
    """Even if it is the next thread after one that held a lock."""
    acquire("default")

    def look() -> None:
        assert acquire_lock("1234collectPayment", reentrant=True) is None

    thread = threading.Thread(target=look)
    thread.start()
    thread.join(60)
    assert release_lock("1234collectPayment") is True
