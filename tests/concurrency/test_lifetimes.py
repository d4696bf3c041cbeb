"""Leases and objects that outlast a task, and those that must not."""

from __future__ import annotations

import asyncio
import gc
import math
import threading
import warnings
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from weakref import ref

import pytest
from django.db import connections

from django_distlock import (
    Lease,
    LockBackendUnavailable,
    distributed_lock,
)
from django_distlock.concurrency import callers, executors
from django_distlock.concurrency.background import background
from django_distlock.leases.cleanup import cleanup_release
from django_distlock.leases.registry import current_registry
from tests.support.concurrency import run, until
from tests.support.databases import committed, on_each_database, on_each_server
from tests.support.holders import due_now, free_for_others, renewed_since
from tests.support.leases import internals
from tests.support.tasks import get, in_other_thread, is_free, others_ended

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.scripted_store import ScriptedBackend


pytestmark = committed


@on_each_server
def test_generator_keeps_its_lease_in_another_task(alias: str) -> None:
    """The task that began it has ended by then, as in Python 3.11's wait_for()."""

    async def generate() -> AsyncIterator[Lease]:
        async with distributed_lock("1234collectPayment", backend=alias) as lease:
            yield lease

    async def main() -> None:
        generator: Any = generate()
        lease = await asyncio.create_task(anext(generator))
        gc.collect()
        is_renewed = renewed_since([lease])
        due_now([lease])
        await asyncio.to_thread(until, is_renewed)
        assert lease.held
        await generator.aclose()
        assert lease.released

    run(main())


@on_each_database
def test_block_may_be_left_by_another_task(alias: str) -> None:
    """A task that has entered the same object itself leaves its own block first."""

    async def main() -> None:
        block = distributed_lock("1234collectPayment", backend=alias)
        lease = await asyncio.create_task(block.__aenter__())
        assert await block.__aexit__(None, None, None) is False
        assert internals(lease).released
        entered, leave = asyncio.Event(), asyncio.Event()

        async def enter_and_wait() -> None:
            await block.__aenter__()
            entered.set()
            await leave.wait()

        task = asyncio.create_task(enter_and_wait())
        await entered.wait()
        await block.__aexit__(None, None, None)
        leave.set()
        await task

    run(main())
    assert free_for_others(alias)


def test_child_does_not_keep_its_parents_lease(scripted: ScriptedBackend) -> None:
    """A lease of an ended task has no owner, even if a child has a copy of the context."""
    children = []

    async def parent() -> None:
        await get("default")
        children.append(asyncio.create_task(asyncio.Event().wait()))

    async def main() -> None:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            await asyncio.create_task(parent())
            await asyncio.sleep(0)  # till then the event loop has the task
            gc.collect()
        assert any("was never released" in str(each.message) for each in caught)
        assert background("default").renewals.next_due() == math.inf
        children[0].cancel()

    run(main())


@pytest.mark.parametrize("action", ["release", "renew"])
def test_error_keeps_nothing_alive(scripted: ScriptedBackend, action: str) -> None:
    """There is no reference cycle that only the garbage collector would free."""

    def fail() -> None:
        raise LockBackendUnavailable("down")

    async def main() -> ref[Any]:
        lease = await get("default")
        current_registry().remove(internals(lease))
        scripted.answer(action, fail)
        with suppress(LockBackendUnavailable):
            await (lease.arelease() if action == "release" else lease.arenew())
        return ref(lease)

    gc.collect()
    gc.disable()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a lease whose release failed stays
            weakly = run(main())
            assert weakly() is None
    finally:
        gc.enable()


@on_each_database
def test_hundreds_of_acquisitions_leave_nothing_behind(alias: str) -> None:
    """Neither threads nor leases, nor entries about them."""

    async def use(number: int) -> None:
        async with distributed_lock(f"{number % 20}", backend=alias, timeout=60):
            pass

    async def main() -> tuple[int, int]:
        for first in range(0, 200, 20):
            await asyncio.gather(*(use(first + number) for number in range(20)))
        return threading.active_count(), alive()

    run(main())
    gc.collect()
    gc.freeze()  # what exists already doesn't count
    before = threading.active_count()
    try:
        during, in_loop = run(main())
        left = alive()
    finally:
        gc.unfreeze()
    assert during <= before + 2
    assert in_loop <= 2 * (1 + 20)  # for the task, and for the last ones that it waited for
    assert left == 0
    assert len(background(alias).renewals) == 0


def alive() -> int:
    """Count the tasks, and the package's entries about tasks and threads."""
    gc.collect()
    return sum(type(each) in (asyncio.Task, callers.Caller) for each in gc.get_objects())


def test_detached_work_is_referred_to(scripted: ScriptedBackend) -> None:
    """Otherwise the event loop might drop it before it is done."""
    done = []

    async def main() -> None:
        async def work() -> None:
            await asyncio.sleep(0)
            gc.collect()
            done.append(1)

        executors.detach(work())
        await others_ended()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(main())
    assert done == [1]


@on_each_database
def test_cleanup_release_does_not_block_the_loop(alias: str) -> None:
    """A release that nobody awaits is done in a thread."""

    async def main() -> None:
        lease = await get(alias)
        cleanup_release(internals(lease))
        assert lease.held
        await others_ended()
        assert internals(lease).released
        assert await is_free(alias)
        await in_other_thread(connections.close_all)

    run(main())
