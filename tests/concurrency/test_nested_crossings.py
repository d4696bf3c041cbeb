"""Ownership across several crossings, where only the innermost code has used a lock before."""

from __future__ import annotations

import asyncio
import sys
import threading
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import ThreadSensitiveContext, async_to_sync, sync_to_async

from django_distlock.concurrency.callers import Caller, set_caller
from django_distlock.runtime import SyncCall
from tests.support.concurrency import elsewhere
from tests.support.databases import committed
from tests.support.holders import acquire
from tests.support.tasks import aowns, get, owns

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    Use = Callable[[], Any]
    AsyncUse = Callable[[], Coroutine[Any, Any, Any]]

pytestmark = [committed, pytest.mark.usefixtures("scripted")]

in_pool = partial(sync_to_async, thread_sensitive=False)
THREADS: dict[str, Any] = {"own": sync_to_async, "pool": in_pool}
Way = tuple[str, ...]
WAYS: list[Way] = [
    (*threads, end)
    for length in range(3)
    for threads in product(THREADS, repeat=length)
    for end in ("sync", "async")
    if length or end == "async"
]
"""The kinds of thread that async code calls on the way, and the kind of the innermost code."""


def go(way: Way, use: Use, ause: AsyncUse) -> AsyncUse:
    """Return async code that goes this way, and uses a lock at its end."""
    first, *rest = way
    if first == "async":
        return ause
    cross = THREADS[first]
    made: AsyncUse = cross(use if rest == ["sync"] else async_to_sync(go(tuple(rest), use, ause)))
    return made


async def acquire_and_release(there: Way, back: Way) -> None:
    """Acquire by one way, and release by another; child tasks have nothing of it."""
    lease = await go(there, partial(acquire, "default"), partial(get, "default"))()
    for child in (aowns(), go(("pool", "sync"), owns, aowns)()):
        assert not await asyncio.create_task(child)
    assert await go(back, owns, aowns)()
    assert lease.released


@pytest.mark.parametrize("there", WAYS, ids="-".join)
def test_task_owns_what_it_acquired_by_any_way(there: Way) -> None:
    """As a request does whose view is async below a sync middleware."""

    async def main(back: Way) -> None:
        async with ThreadSensitiveContext():
            await acquire_and_release(there, back)

    for back in WAYS:
        asyncio.run(main(back))
        asyncio.run(acquire_and_release(there, back))


@pytest.mark.parametrize("there", WAYS, ids="-".join)
def test_thread_and_its_async_code_own_what_was_acquired_by_any_way(there: Way) -> None:
    """Each of them, and so does a task that this waits for."""

    async def main(back: Way) -> None:
        await acquire_and_release(there, back)
        await asyncio.create_task(acquire_and_release(there, back))

    def call() -> None:
        for back in WAYS:
            async_to_sync(main)(back)
        lease = async_to_sync(go(there, partial(acquire, "default"), partial(get, "default")))()
        assert owns()
        assert lease.released

    elsewhere(call)


@pytest.fixture
def hasty() -> Iterator[None]:
    """Switch threads all the time."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("hasty")
def test_callers_tasks_may_begin_while_a_thread_asks_them() -> None:
    """As those of a thread whose async code detaches releases, while its children call threads."""
    errors: list[Exception] = []
    caller, ended = Caller(), threading.Event()

    def ask(call: SyncCall) -> None:
        try:
            while not ended.is_set():
                caller.awaits(call)
        except Exception as error:  # noqa: BLE001 - it is compared
            errors.append(error)

    async def main() -> None:
        thread = threading.Thread(target=ask, args=[SyncCall(asyncio.get_running_loop(), [])])
        thread.start()
        for _ in range(2_000):
            for task in [asyncio.create_task(asyncio.sleep(0)) for _ in range(5)]:
                set_caller(task, caller)
                await task
        ended.set()
        await asyncio.to_thread(thread.join)

    asyncio.run(main())
    assert errors == []
