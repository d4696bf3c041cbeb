"""Waiters get a lock first come, first served, in processes, threads and tasks."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from django_distlock import (
    aacquire_lock,
    acquire_lock,
    distributed_lock,
)
from django_distlock.backends.sockets.turns import AT_ONCE
from tests.support.concurrency import run, until
from tests.support.processes import Workers
from tests.support.store_queues import JOB, acquire, take, take_in_task

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

    from tests.support.store_queues import QueuedStore

once = pytest.mark.once


@once
def test_threads_are_served_in_the_order_in_which_they_came(
    queued: QueuedStore, threads: ThreadPoolExecutor
) -> None:
    """Each gets the lock from the one before."""
    with distributed_lock(JOB, backend=queued.alias):
        waits = []
        for number in range(10):
            waits.append(threads.submit(take, queued))
            until(partial(queued.is_waited_for_by, number + 1))
    times = [each.result(30) for each in waits]
    assert times == sorted(times)


def test_processes_threads_and_tasks_share_one_queue(
    queued: QueuedStore, threads: ThreadPoolExecutor
) -> None:
    """Each grant has a greater token than the one before."""

    def take_in_thread() -> int | None:
        with distributed_lock(JOB, backend=queued.alias, timeout=30) as lease:
            return lease.token

    with ExitStack() as stack:
        lease = acquire(queued)
        results: list[Any] = []
        for number, kind in enumerate(["thread", "task", "process", "task", "thread"], 1):
            if kind == "process":
                worker = queued.workers("wait_in_queue", queued.alias, "1", JOB)
                results.append(stack.enter_context(worker))
            elif kind == "thread":
                results.append(threads.submit(take_in_thread))
            else:
                results.append(threads.submit(lambda: asyncio.run(take_in_task(queued))))
            until(partial(queued.is_waited_for_by, number))
        assert lease.release()
        tokens = [
            each.results()[0][0] if isinstance(each, Workers) else each.result(30)
            for each in results
        ]
    assert tokens == sorted(tokens)


@once
def test_newcomer_does_not_overtake(queued: QueuedStore, threads: ThreadPoolExecutor) -> None:
    """Not even when the lock has just expired, before a waiter has tried."""
    lease = acquire(queued, ttl=0.3, renew=False)
    waits = threads.submit(acquire, queued, timeout=30)
    until(lambda: queued.waiting() == 1 or waits.done())  # done, if this machine stalled
    while not waits.done():
        assert acquire_lock(JOB, backend=queued.alias) is None
    assert not lease.held
    assert waits.result().release()


@once
def test_hundreds_of_tasks_are_served_fairly(queued: QueuedStore) -> None:
    """With one listening thread, and the threads that open a handful of connections."""
    grants: Counter[int] = Counter()
    most = 0

    async def work(number: int) -> None:
        nonlocal most
        for _ in range(2):
            async with distributed_lock(JOB, backend=queued.alias, timeout=60):
                grants[number] += 1
                most = max(most, max(grants.values()) - min(grants[each] for each in range(200)))

    async def main() -> tuple[int, int, int]:
        lease = await aacquire_lock(JOB, backend=queued.alias)
        assert lease is not None
        tasks = [asyncio.create_task(work(number)) for number in range(200)]
        await asyncio.to_thread(until, lambda: queued.waiting() == 200)
        seen = threading.active_count(), queued.connections(), queued.processes()
        await lease.arelease()
        await asyncio.gather(*tasks)
        return seen

    before = threading.active_count()
    running, open_connections, processes = run(main())
    # to renew, to listen, to connect, and asyncio's own
    assert running - before < AT_ONCE + 4
    # the listening one, and those of that thread's and this test's requests
    assert open_connections <= AT_ONCE + 3
    assert processes == 1
    assert [*grants.values()] == [2] * 200
    assert most <= 1


@once
def test_process_waits_for_many_semaphores_at_once(
    queued: QueuedStore, threads: ThreadPoolExecutor
) -> None:
    """Each is handed over by itself; one thread listens for all."""
    names = [f"lock {number}" for number in range(100)]
    leases = [acquire(queued, name) for name in names]
    waits = [threads.submit(take, queued, name) for name in names]
    until(lambda: queued.waiting() == len(names))
    for lease in reversed(leases):
        assert lease.release()
    assert [each.result(30) for each in waits]
    assert queued.listeners() == 1
