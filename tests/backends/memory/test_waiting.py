"""Waiting for a lock in memory: order, wake-ups, and time."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from functools import partial
from typing import TYPE_CHECKING

import pytest

from django_distlock import Lease, aacquire_lock, acquire_lock, distributed_lock
from django_distlock.backends import memory
from django_distlock.backends.memory import LONGEST_PATIENCE, SHORTEST_PATIENCE
from django_distlock.server import transitions
from tests.support.concurrency import until
from tests.support.holders import acquire
from tests.support.memory_stores import (
    ALIAS,
    TableClock,
    memory_store,
    take,
    until_waiting,
    waiting,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import ThreadPoolExecutor

# Order


@pytest.mark.usefixtures("only_when_woken")
def test_threads_are_served_in_the_order_in_which_they_came(
    shared_table: memory.SharedTable, threads: ThreadPoolExecutor
) -> None:
    """Each release hands the lock to the next waiter, and wakes it at once."""
    with distributed_lock("1234collectPayment", backend=ALIAS):
        waits = []
        for number in range(20):
            waits.append(threads.submit(take))
            until(partial(waiting, shared_table, number + 1))
    times = [each.result(30) for each in waits]
    assert times == sorted(times)
    assert len(shared_table.table) == 0


@pytest.mark.usefixtures("only_when_woken")
def test_tasks_are_served_in_the_order_in_which_they_came_without_a_thread(
    shared_table: memory.SharedTable,
) -> None:
    """All their calls to the store run in their event loop."""
    order: list[int] = []

    async def take_turn(number: int) -> None:
        async with distributed_lock("1234collectPayment", backend=ALIAS, timeout=100, renew=False):
            order.append(number)

    async def main() -> None:
        before = threading.active_count()
        lease = await aacquire_lock("1234collectPayment", backend=ALIAS, renew=False)
        assert lease is not None
        async with asyncio.TaskGroup() as group:
            for number in range(20):
                group.create_task(take_turn(number))
            await until_waiting(shared_table, 20)
            assert await lease.arelease()
        assert threading.active_count() == before

    asyncio.run(main())
    assert order == list(range(20))
    assert len(shared_table.table) == 0


@pytest.mark.usefixtures("only_when_woken")
def test_threads_and_tasks_share_one_queue(
    shared_table: memory.SharedTable, threads: ThreadPoolExecutor
) -> None:
    """They wake each other, too."""
    order: list[str] = []

    def take_in_thread() -> None:
        with distributed_lock("1234collectPayment", backend=ALIAS, timeout=100):
            order.append("thread")

    async def take_in_task() -> None:
        async with distributed_lock("1234collectPayment", backend=ALIAS, timeout=100):
            order.append("task")

    with distributed_lock("1234collectPayment", backend=ALIAS):
        waits = []
        for number, work in enumerate([take_in_thread, lambda: asyncio.run(take_in_task())] * 3):
            waits.append(threads.submit(work))
            until(partial(waiting, shared_table, number + 1))
    for each in waits:
        each.result(30)
    assert order == ["thread", "task"] * 3


def test_counter_is_exact_though_many_threads_race(threads: ThreadPoolExecutor) -> None:
    """Threads and tasks, some of which wait only a moment and try again."""
    total, rounds = [0], 25

    def add() -> None:
        seen = total[0]
        time.sleep(0)  # so that other threads can interfere if exclusion fails
        total[0] = seen + 1

    def in_thread(timeout: float) -> None:
        for _ in range(rounds):
            while (
                lease := acquire_lock("1234collectPayment", backend=ALIAS, timeout=timeout)
            ) is None:
                pass
            add()
            assert lease.release()

    async def in_task() -> None:
        for _ in range(rounds):
            async with distributed_lock("1234collectPayment", backend=ALIAS, timeout=None):
                add()

    async def in_tasks() -> None:
        await asyncio.gather(*(in_task() for _ in range(5)))

    works: list[Callable[[], None]] = [partial(in_thread, timeout) for timeout in (30, 0.001) * 4]
    works += [lambda: asyncio.run(in_tasks())] * 2
    for each in [threads.submit(work) for work in works]:
        each.result(60)
    assert total == [(8 + 10) * rounds]


@pytest.mark.usefixtures("only_when_woken")
def test_waiter_of_a_closed_event_loop_is_passed_over(
    shared_table: memory.SharedTable, threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once: it can't be woken, and the next waiter doesn't wait for an offer to it to expire."""
    monkeypatch.setattr(transitions, "OFFER_SECONDS", 60)
    lease = acquire(ALIAS)
    loop = asyncio.new_event_loop()

    async def wait_there() -> None:
        await aacquire_lock("1234collectPayment", backend=ALIAS, timeout=60)

    task = loop.create_task(wait_there())
    loop.run_until_complete(until_waiting(shared_table, 1))
    loop.close()
    alive = threads.submit(take)
    until(partial(waiting, shared_table, 2))
    assert lease.release()
    assert alive.result(30)
    assert len(shared_table.table) == 0
    del task
    gc.collect()


# Time


def test_waiter_gets_the_lock_when_a_lease_that_is_not_renewed_ends(
    threads: ThreadPoolExecutor,
) -> None:
    """By itself: nobody else calls the store."""
    lease = acquire(ALIAS, ttl=0.3, renew=False)
    threads.submit(take, ttl=None).result(30)
    assert not lease.held
    assert not lease.release()


def test_waiter_gets_the_lock_though_its_next_holder_has_it_for_shorter(
    shared_table: memory.SharedTable, threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A waiter behind an unlimited lease doesn't sleep for ever if a limited one follows."""
    monkeypatch.setattr(memory, "LONGEST_PATIENCE", 0.1)
    lease = acquire(ALIAS, ttl=None)

    def take_and_forget() -> Lease | None:
        return acquire_lock("1234collectPayment", backend=ALIAS, timeout=30, ttl=0.1, renew=False)

    forgets = threads.submit(take_and_forget)
    until(partial(waiting, shared_table, 1))
    waits = threads.submit(take)
    until(partial(waiting, shared_table, 2))
    assert lease.release()
    assert forgets.result(30)
    waits.result(30)


def test_waiter_looks_when_the_lease_ends_but_neither_at_once_nor_too_late(
    table_clock: TableClock,
) -> None:
    """It looks after a second at the latest."""
    store = memory_store()
    store.acquire("1234collectPayment", "one", 0.5, "")
    place = store.join("1234collectPayment", "two", "", lambda: None)
    assert place.patience == 0.5
    table_clock.now += 0.4999
    assert place.patience == SHORTEST_PATIENCE
    store.acquire("1234collectPayment", "one", None, "")
    assert place.patience == LONGEST_PATIENCE
    place.check()
    store.leave(place, False)
    table_clock.now += 1
    assert not store.acquire("1234collectPayment", "two", 60, "")


def test_leaving_the_queue_after_a_grant_keeps_the_lock(table_clock: TableClock) -> None:
    """It leaves the queue, not the lock; a waiter that gave up is offered nothing."""
    store, woken = memory_store(), list[str]()
    first = store.join("1234collectPayment", "one", "", lambda: woken.append("one"))
    assert store.acquire("1234collectPayment", "one", 60, "")
    store.leave(first, True)
    assert not store.acquire("1234collectPayment", "two", 60, "")
    second = store.join("1234collectPayment", "two", "", lambda: woken.append("two"))
    store.leave(second, False)
    table_clock.now += 60
    assert second.patience == SHORTEST_PATIENCE
    assert store.acquire("1234collectPayment", "three", 60, "")
    assert woken == ["one"]
