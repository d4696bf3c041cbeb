"""Crossings between sync and async code, where only the far side has used a lock."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from asgiref.sync import async_to_sync, sync_to_async

from tests.support.concurrency import elsewhere
from tests.support.databases import committed
from tests.support.holders import acquire
from tests.support.leases import internals
from tests.support.tasks import aowns, get, owns

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    from django_distlock import Lease


pytestmark = [committed, pytest.mark.usefixtures("scripted")]

T = TypeVar("T")


def take() -> Lease:
    """Acquire in sync code."""
    return acquire("default")


async def atake() -> Lease:
    """Acquire in async code."""
    return await get("default")


def in_pool(call: Callable[[], T]) -> Callable[[], Coroutine[Any, Any, T]]:
    """Call in a thread of a pool."""
    return sync_to_async(call, thread_sensitive=False)


async def child(work: Coroutine[Any, Any, T]) -> T:
    """Run this in a new task."""
    return await asyncio.create_task(work)


both_threads = pytest.mark.parametrize("cross", [sync_to_async, in_pool])


def test_thread_owns_what_its_async_code_acquired_first() -> None:
    """A child task of that code does not."""

    async def main() -> Lease:
        lease = await atake()
        assert not await child(aowns())
        return lease

    def call() -> bool:
        lease = async_to_sync(main)()
        return owns() and internals(lease).released

    assert elsewhere(call)


@both_threads
def test_thread_owns_what_was_acquired_three_crossings_away(cross: Any) -> None:
    """No code on the way has used a lock."""

    async def main() -> Lease:
        lease: Lease = await cross(async_to_sync(atake))()
        return lease

    def call() -> bool:
        lease = async_to_sync(main)()
        return owns() and internals(lease).released

    assert elsewhere(call)


@both_threads
def test_task_owns_what_was_acquired_three_crossings_away(cross: Any) -> None:
    """In any thread; a child of the code that acquired it does not own it."""

    async def far() -> Lease:
        lease = await atake()
        assert not await child(aowns())
        return lease

    async def main() -> None:
        lease = await cross(async_to_sync(far))()
        assert await aowns()
        assert lease.released
        lease = await cross(async_to_sync(cross(take)))()
        assert await aowns()
        assert lease.released

    asyncio.run(main())


def test_thread_is_known_in_every_thread_of_its_async_code() -> None:
    """Even if the thread has not used a lock itself."""

    async def main() -> bool:
        return await in_pool(owns)()

    def call() -> bool:
        lease = take()
        return async_to_sync(main)() and internals(lease).released

    assert elsewhere(call)


@both_threads
def test_event_loop_of_a_thread_has_nothing_of_it(cross: Any) -> None:
    """A server's requests own no lock of its main thread."""

    async def main() -> bool:
        found: bool = await cross(owns)()
        return found

    def call() -> bool:
        lease = take()
        return asyncio.run(main()) or not lease.release()

    assert not elsewhere(call)


@both_threads
def test_requests_share_nothing_of_a_servers_thread(cross: Any) -> None:
    """However many crossings are between the request's task and the lock."""

    async def generate() -> AsyncIterator[bool]:
        yield await cross(async_to_sync(aowns))()

    async def main() -> list[bool]:
        near = [each async for each in generate()]
        far = await cross(async_to_sync(cross(async_to_sync(aowns))))()
        return [*near, far]

    def call() -> bool:
        lease = take()
        return asyncio.run(main()) == [False, False] and lease.release()

    assert elsewhere(call)


@both_threads
def test_thread_is_known_three_crossings_away(cross: Any) -> None:
    """Even if no code on the way has used a lock."""

    async def main() -> bool:
        found: bool = await cross(async_to_sync(aowns))()
        return found

    def call() -> bool:
        lease = take()
        return async_to_sync(main)() and internals(lease).released

    assert elsewhere(call)


@both_threads
@pytest.mark.parametrize(
    "first", [atake, sync_to_async(take), in_pool(take)], ids=["async", "sync", "pool"]
)
def test_child_that_calls_sync_code_first_has_nothing_of_its_parent(first: Any, cross: Any) -> None:
    """Whether or not its parent has used a lock itself."""

    async def ask() -> bool:
        found: bool = await cross(owns)()
        return found

    async def main() -> None:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        lease = await first()
        asked = [aowns(), cross(owns)(), ask(), asyncio.to_thread(owns)]
        assert await asyncio.gather(*asked) == [False] * 4
        assert await cross(owns)()
        assert lease.released

    asyncio.run(main())


def test_child_whose_parent_is_in_sync_code_has_nothing_of_it() -> None:
    """As when a worker awaits the next job in a thread while its tasks do the earlier ones."""
    ended = threading.Event()

    async def main() -> None:
        lease = await atake()
        task = asyncio.create_task(in_pool(owns)())
        task.add_done_callback(lambda _: ended.set())
        assert await in_pool(lambda: ended.wait(60))()
        assert not await task
        assert await lease.arelease()

    asyncio.run(main())


def test_thread_with_a_copied_context_has_nothing_of_it() -> None:
    """Nor does its async code."""

    def call() -> list[bool]:
        lease, context = take(), copy_context()
        found = [elsewhere(partial(context.run, ask)) for ask in (owns, async_to_sync(aowns))]
        return [*found, lease.release()]

    async def main() -> list[bool]:
        lease = await atake()
        return [await asyncio.to_thread(async_to_sync(aowns)), await lease.arelease()]

    assert elsewhere(call) == [False, False, True]
    assert asyncio.run(main()) == [False, True]


def test_task_owns_what_it_acquires_in_sync_code_of_an_async_generator() -> None:
    """Async generators can't be inspected: the task is known when it uses a lock itself."""

    async def generate() -> AsyncIterator[bool]:
        await sync_to_async(take)()
        yield await sync_to_async(owns)()
        await sync_to_async(take)()
        yield True

    async def main() -> None:
        assert [each async for each in generate()] == [True, True]
        assert await aowns()

    asyncio.run(main())


def test_event_loop_that_is_forced_to_be_a_new_one_is_its_callers() -> None:
    """It runs in a thread of its own."""

    async def main() -> None:
        await atake()
        assert await sync_to_async(async_to_sync(aowns, force_new_loop=True))()

    asyncio.run(main())


def test_children_in_the_thread_that_waits_for_them_count_as_it() -> None:
    """A limit: their sync code runs in their caller's thread, one after the other."""

    async def main() -> bool:
        return await child(sync_to_async(owns)())

    def call() -> bool:
        lease = take()
        return async_to_sync(main)() and internals(lease).released

    assert elsewhere(call)


def test_child_counts_as_a_parent_that_waits_in_an_async_generator() -> None:
    """A limit: they can't be distinguished unless the child has used a lock in async code."""

    async def ask(*, is_known: bool) -> bool:
        if is_known:
            assert not await aowns()
        return await in_pool(owns)()

    async def generate(*, is_known: bool) -> AsyncIterator[bool]:
        yield await child(ask(is_known=is_known))

    async def main() -> None:
        lease = await atake()
        assert [each async for each in generate(is_known=True)] == [False]
        assert [each async for each in generate(is_known=False)] == [not lease.held]
        assert internals(lease).released or await lease.arelease()

    asyncio.run(main())
