"""The scope of a task, as the integrations of task queues use it."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

import pytest

from django_distlock import aacquire_lock, acquire_lock, distributed_lock, lock_backends
from django_distlock.backends.memory import MemoryBackend
from django_distlock.concurrency.background import background
from django_distlock.integrations.tasks import task_scope
from django_distlock.leases.registry import current_registry
from tests.support.concurrency import Interrupted
from tests.support.leaving_views import about_leases, names
from tests.support.task_queues import LEFT, label_of, leave, leaving_behind

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.once


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Check that each test ends without a lock."""
    yield
    assert names("default") == []


async def aleave(semaphore: str) -> str:
    """See leave()."""
    assert await aacquire_lock(semaphore)
    return label_of(semaphore)


async def leave_in_child(semaphore: str) -> str:
    """Do so in a child task of asyncio."""
    return await asyncio.create_task(aleave(semaphore))


@distributed_lock("report")
def decorated() -> str:
    """Return the label under the lock."""
    return label_of("report")


def test_name_is_the_default_label() -> None:
    """The innermost one, until the end of its block."""
    with task_scope("shop.outer"):
        with task_scope("shop.inner"):
            assert decorated() == "shop.inner"
        assert decorated() == "shop.outer"
    assert decorated() == f"{__name__}.decorated"


def test_lock_is_released_at_the_end() -> None:
    """Also if the task fails. Locks from before the block are not the task's."""

    def fail() -> None:
        with task_scope("shop.task"):
            leave("report")
            raise ZeroDivisionError

    earlier = acquire_lock("earlier")
    assert earlier is not None
    with pytest.raises(ZeroDivisionError), pytest.warns(ResourceWarning, match=LEFT):
        fail()
    assert names("default") == ["earlier"]
    assert earlier.release()


def test_async_task_waits_for_the_release() -> None:
    """It is made at the end of the block, also when the task is cancelled."""

    async def work() -> None:
        async with task_scope("shop.task"):
            assert await aleave("report") == "shop.task"
            working.set()
            await asyncio.Event().wait()

    async def cancel() -> list[str]:
        task = asyncio.create_task(work())
        await asyncio.wait_for(working.wait(), 30)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return names("default")

    working = asyncio.Event()
    with leaving_behind():
        assert asyncio.run(cancel()) == []


def test_event_loops_in_a_task_are_part_of_it() -> None:
    """Those of asyncio.run(), and their child tasks, even if these are collected by then."""
    with leaving_behind(3), task_scope("shop.task"):
        labels = [asyncio.run(aleave("a")), asyncio.run(aleave("b"))]
        labels += [asyncio.run(leave_in_child("c"))]
        assert names("default") == ["a", "b", "c"]
    assert labels == ["shop.task"] * 3


def test_event_loop_in_another_thread_is_part_of_it() -> None:
    """As Dramatiq's: it inherits the context of the task."""
    with leaving_behind(), task_scope("shop.task"), ThreadPoolExecutor(1) as thread:
        label = thread.submit(copy_context().run, asyncio.run, aleave("report")).result()
    assert label == "shop.task"


def test_child_task_that_goes_on_keeps_its_lock() -> None:
    """It may need it."""

    async def work() -> list[str]:
        async with task_scope("shop.task"):
            child = asyncio.create_task(hold())
            await asyncio.wait_for(holding.wait(), 30)
        held = names("default")
        go_on.set()
        await child
        return held

    async def hold() -> None:
        async with distributed_lock("report"):
            holding.set()
            await go_on.wait()

    holding, go_on = asyncio.Event(), asyncio.Event()
    assert asyncio.run(work()) == ["report"]


def test_scope_without_an_end_does_not_affect_the_outer_one() -> None:
    """As when a process is interrupted between two hooks."""
    with leaving_behind(), task_scope("shop.outer"):
        task_scope("shop.inner").__enter__()
        leave("report")
    assert decorated() == f"{__name__}.decorated"


def test_interrupted_release_leaves_no_lock_that_is_renewed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As by a time limit that raises in the thread: both locks end with their ttl."""

    def interrupt(*args: object) -> None:
        raise Interrupted

    def work() -> None:
        with task_scope("shop.task"):
            leave("a")
            leave("b")

    monkeypatch.setattr(MemoryBackend, "release", interrupt)
    with pytest.warns(ResourceWarning, match="was never released") as caught:
        with pytest.raises(Interrupted):
            work()
    assert len(about_leases(caught)) == 1  # the failure of the other release is logged
    assert current_registry().leases() == []
    assert len(background("default").renewals) == 0
    assert names("default") == ["a", "b"]
    store: Any = lock_backends["default"]
    store.clear()
