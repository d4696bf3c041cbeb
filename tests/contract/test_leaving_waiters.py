"""Waiters that leave the queue before they have the lock, and those behind them."""

from __future__ import annotations

import asyncio
import gc
import random
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

import pytest

from django_distlock import (
    LockBackendUnavailable,
    LockNotAcquired,
    aacquire_lock,
    acquire_lock,
    clocks,
    distributed_lock,
)
from tests.support.concurrency import elsewhere, run, until
from tests.support.store_queues import JOB, acquire, take, take_in_task

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

    from tests.support.store_queues import QueuedStore

once = pytest.mark.once


def test_wait_ends_at_its_timeout(queued: QueuedStore) -> None:
    """The waiter leaves nothing in the queue."""
    with distributed_lock(JOB, backend=queued.alias):
        before = clocks.monotonic()
        with pytest.raises(LockNotAcquired):
            elsewhere(lambda: take(queued, timeout=0.2))
        with pytest.raises(LockNotAcquired):
            run(take_in_task(queued, timeout=0.2))
        assert 0.4 <= clocks.monotonic() - before < 5
        assert queued.waiting() == 0


@once
def test_lock_goes_to_the_next_waiter_when_the_offered_one_leaves(queued: QueuedStore) -> None:
    """At once, even if both are of one process, which is alive."""
    lease = acquire(queued)
    offered = [threading.Event() for _ in range(3)]
    places = [queued.join(JOB, f"owner{number}", event.set) for number, event in enumerate(offered)]
    assert lease.release()
    for number, (each, event) in enumerate(zip(places, offered, strict=True)):
        assert event.wait(30), number
        queued.store.leave(each, False)


@once
def test_waiters_that_leave_as_they_are_offered_the_lock_leave_nothing(
    queued: QueuedStore, threads: ThreadPoolExecutor
) -> None:
    """Whatever the timing: at the end nobody waits, and the lock is free."""
    chance = random.Random(0)

    def try_for(seconds: float) -> None:
        if lease := acquire_lock(JOB, backend=queued.alias, timeout=seconds):
            assert lease.release()

    for _ in range(60):
        lease = acquire(queued, timeout=5)
        waits = [threads.submit(try_for, 0.005 + chance.random() * 0.005) for _ in range(4)]
        time.sleep(0.005 + chance.random() * 0.005)  # so that some leave before, and some after
        assert lease.release()
        for each in waits:
            each.result(30)
        assert queued.is_unused()


def test_tasks_that_are_cancelled_as_they_are_offered_the_lock_leave_nothing(
    queued: QueuedStore,
) -> None:
    """Also if they are cancelled as they join or leave."""
    chance = random.Random(0)

    async def main() -> None:
        for _ in range(60):
            lease = await aacquire_lock(JOB, backend=queued.alias, timeout=5)
            assert lease
            tasks = [asyncio.create_task(take_in_task(queued)) for _ in range(4)]
            await asyncio.sleep(chance.random() * 0.02)  # so that it is handed over at any moment
            cancelling = asyncio.create_task(cancel(tasks))
            assert await lease.arelease()
            await asyncio.gather(cancelling, *tasks, return_exceptions=True)
            assert await asyncio.to_thread(queued.is_unused)

    async def cancel(tasks: list[asyncio.Task[int | None]]) -> None:
        for task in tasks[:3]:
            task.cancel()

    run(main())


@pytest.mark.parametrize("granted", [True, False])
@pytest.mark.parametrize("ttl", [60, None])
def test_task_that_is_cancelled_as_it_leaves_leaves_nothing(
    queued: QueuedStore, monkeypatch: pytest.MonkeyPatch, granted: bool, ttl: float | None
) -> None:
    """Neither its granted lock, nor, without a grant, its place."""
    waits: list[asyncio.Task[Any]] = []
    leave = type(queued.store).aleave
    terms: dict[str, Any] = {"ttl": ttl} if ttl or queued.knows_no_end else {}

    async def cancel_and_leave(*arguments: Any, **options: Any) -> None:
        waits[0].cancel()
        await asyncio.sleep(0)
        await leave(*arguments, **options)

    async def main() -> None:
        lease = await aacquire_lock(JOB, backend=queued.alias)
        assert lease is not None
        waiting = aacquire_lock(JOB, backend=queued.alias, timeout=30, **terms)
        waits.append(asyncio.create_task(waiting))
        await asyncio.to_thread(until, lambda: queued.waiting() == 1)
        if not granted:
            waits[0].cancel()
            with pytest.raises(asyncio.CancelledError):
                await waits[0]
            await asyncio.to_thread(until, lambda: queued.waiting() == 0)
        assert await lease.arelease()
        with pytest.raises(asyncio.CancelledError):
            await waits[0]

    monkeypatch.setattr(type(queued.store), "aleave", cancel_and_leave)
    run(main())
    assert queued.is_unused()


def test_task_whose_event_loop_is_closed_is_passed_over(queued: QueuedStore) -> None:
    """When its turn comes, the lock goes to the next waiter."""
    lease = acquire(queued)
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)  # it is called for tasks that never end
    waits = aacquire_lock(JOB, backend=queued.alias, timeout=60)
    task = loop.create_task(waits)
    while not queued.waiting():
        loop.run_until_complete(asyncio.sleep(0.01))
    loop.close()
    assert lease.release()
    assert acquire(queued, timeout=30).release()
    until(lambda: not queued.waiting())
    waits.close()  # as the garbage collector does
    del task


@pytest.mark.parametrize("call", ["aacquire", "aleave"])
def test_event_loop_may_be_closed_during_a_call(
    queued: QueuedStore, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """Its task sends no more requests, and holds nobody up."""
    begun = threading.Event()

    async def hang(*arguments: Any, **options: Any) -> None:
        begun.set()
        await asyncio.Event().wait()

    lease = acquire(queued)
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)  # it is called for tasks that never end
    with monkeypatch.context() as patch:
        patch.setattr(type(queued.store), call, hang)
        waits = aacquire_lock(JOB, backend=queued.alias, timeout=0.1)
        task = loop.create_task(waits)
        while not begun.is_set():
            loop.run_until_complete(asyncio.sleep(0.01))
        loop.close()
        waits.close()  # as the garbage collector does
    assert lease.release()
    assert acquire(queued, timeout=30).release()
    until(lambda: not queued.waiting())
    del task


def test_waiter_that_is_gone_is_forgotten(queued: QueuedStore) -> None:
    """By the server and by this process, when its turn comes and waking it fails."""
    lease = acquire(queued)

    def wake() -> bool:
        return False

    queued.join(JOB, "owner", wake)
    forgotten = weakref.ref(wake)
    del wake
    gc.collect()
    assert forgotten()
    assert lease.release()
    until(lambda: not queued.waiting() and not forgotten())


@once
def test_join_that_is_not_answered_is_undone(short_offers: QueuedStore) -> None:
    """Within the time of a call; later waiters don't wait for it.

    A store with its own time limit has its own listener, for a while: so this test doesn't use a
    server whose listeners other tests count.
    """
    with short_offers.locks(store_timeout=3):
        lease, other = acquire(short_offers), acquire(short_offers, "another report")
        waits = short_offers.join(JOB, "owner")  # so that this process listens
        with short_offers.server.paused():  # it returns though the server doesn't
            with pytest.raises(LockBackendUnavailable):
                short_offers.join("another report", "another owner")
        until(lambda: short_offers.waiting() == 1)
        short_offers.store.leave(waits, False)
        assert lease.release()
        assert other.release()
        until(short_offers.is_unused)
