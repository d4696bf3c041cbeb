"""The memory backend: threads and tasks of one process, in line, and woken at once."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from functools import partial
from itertools import count, islice
from typing import TYPE_CHECKING, Any

import pytest

from django_distlock import (
    Lease,
    LockLost,
    aacquire_lock,
    acquire_lock,
    clocks,
    distributed_lock,
    lock_backends,
    release_lock,
)
from django_distlock.backends import memory
from django_distlock.backends.memory import LATEST, SOONEST, MemoryBackend
from django_distlock.server import table
from django_distlock.server.table import LockTable
from tests.support.concurrency import elsewhere, run, until
from tests.support.holders import acquire, free_for_others, outlast
from tests.support.processes import forked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ALIAS = "memory"


@pytest.fixture(autouse=True)
def shared() -> Iterator[memory.SharedTable]:
    """Return what the threads share, with no locks of other tests."""
    running = memory._locks_of(ALIAS)
    running.begin_anew()
    yield running
    running.begin_anew()


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody who waits look by himself: he gets the lock if he is woken, or not at all."""
    monkeypatch.setattr(memory.MemoryPlace, "patience", 60)


class Clock:
    """Time that passes when it is told to."""

    now = 1000.0

    def __call__(self) -> float:
        """Return it."""
        return self.now


@pytest.fixture
def clock(shared: memory.SharedTable) -> Clock:
    """Let the table's time pass only when it is told to."""
    clock = Clock()
    shared.table = LockTable(monotonic=clock)
    return clock


def waiting(shared: memory.SharedTable, number: int) -> bool:
    """Tell whether so many wait."""
    return shared.table.waiters == number


async def stand(shared: memory.SharedTable, number: int) -> None:
    """Let the tasks run until so many wait."""
    while not waiting(shared, number):  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(0)


def take(**arguments: Any) -> float:
    """Wait for the lock, and give it back at once; return when it was granted."""
    with distributed_lock("a", backend=ALIAS, **{"timeout": 30, **arguments}):
        return time.monotonic_ns()


def backend() -> MemoryBackend:
    """Return this thread's."""
    found = lock_backends[ALIAS]
    assert isinstance(found, MemoryBackend)
    return found


# Order


@pytest.mark.usefixtures("unhurried")
def test_threads_are_served_in_the_order_in_which_they_came(
    shared: memory.SharedTable, threads: ThreadPoolExecutor
) -> None:
    """Each is handed the lock by the one before, and woken for it at once."""
    with distributed_lock("a", backend=ALIAS):
        waits = []
        for number in range(20):
            waits.append(threads.submit(take))
            until(partial(waiting, shared, number + 1))
    times = [each.result(30) for each in waits]
    assert times == sorted(times)
    assert len(shared.table) == 0


@pytest.mark.usefixtures("unhurried")
def test_tasks_are_served_in_the_order_in_which_they_came_without_a_thread(
    shared: memory.SharedTable,
) -> None:
    """Whatever they do with the lock is done in their event loop."""
    order: list[int] = []

    async def take_turn(number: int) -> None:
        async with distributed_lock("a", backend=ALIAS, timeout=30, renew=False):
            order.append(number)

    async def main() -> None:
        before = threading.active_count()
        lease = await aacquire_lock("a", backend=ALIAS, renew=False)
        assert lease is not None
        async with asyncio.TaskGroup() as group:
            for number in range(20):
                group.create_task(take_turn(number))
            await stand(shared, 20)
            assert await lease.arelease()
        assert threading.active_count() == before

    asyncio.run(main())
    assert order == list(range(20))
    assert len(shared.table) == 0


@pytest.mark.usefixtures("unhurried")
def test_threads_and_tasks_stand_in_one_line(
    shared: memory.SharedTable, threads: ThreadPoolExecutor
) -> None:
    """And wake each other."""
    order: list[str] = []

    def take_in_thread() -> None:
        with distributed_lock("a", backend=ALIAS, timeout=30):
            order.append("thread")

    async def take_in_task() -> None:
        async with distributed_lock("a", backend=ALIAS, timeout=30):
            order.append("task")

    with distributed_lock("a", backend=ALIAS):
        waits = []
        for number, work in enumerate([take_in_thread, lambda: asyncio.run(take_in_task())] * 3):
            waits.append(threads.submit(work))
            until(partial(waiting, shared, number + 1))
    for each in waits:
        each.result(30)
    assert order == ["thread", "task"] * 3


def test_counter_is_exact_though_many_threads_race(threads: ThreadPoolExecutor) -> None:
    """Threads and tasks, some of which wait only a moment and try again."""
    total, rounds = [0], 25

    def add() -> None:
        seen = total[0]
        time.sleep(0)  # so that others come in between if they can
        total[0] = seen + 1

    def in_thread(timeout: float) -> None:
        for _ in range(rounds):
            while (lease := acquire_lock("a", backend=ALIAS, timeout=timeout)) is None:
                pass
            add()
            assert lease.release()

    async def in_task() -> None:
        for _ in range(rounds):
            async with distributed_lock("a", backend=ALIAS, timeout=None):
                add()

    async def in_tasks() -> None:
        await asyncio.gather(*(in_task() for _ in range(5)))

    works: list[Callable[[], None]] = [partial(in_thread, timeout) for timeout in (30, 0.001) * 4]
    works += [lambda: asyncio.run(in_tasks())] * 2
    for each in [threads.submit(work) for work in works]:
        each.result(60)
    assert total == [(8 + 10) * rounds]


@pytest.mark.usefixtures("unhurried")
def test_waiter_of_a_closed_event_loop_is_passed_over(
    shared: memory.SharedTable, threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once: nobody can wake him, and nobody waits for the end of an offer to him."""
    monkeypatch.setattr(table, "OFFER", 60)
    lease = acquire(ALIAS)
    loop = asyncio.new_event_loop()

    async def wait_there() -> None:
        await aacquire_lock("a", backend=ALIAS, timeout=60)

    task = loop.create_task(wait_there())
    loop.run_until_complete(stand(shared, 1))
    loop.close()
    alive = threads.submit(take)
    until(partial(waiting, shared, 2))
    assert lease.release()
    assert alive.result(30)
    assert len(shared.table) == 0
    del task
    gc.collect()


# Time


def test_waiter_gets_the_lock_when_a_lease_that_is_not_renewed_ends(
    shared: memory.SharedTable, threads: ThreadPoolExecutor
) -> None:
    """With nobody's help: there is nobody else who asks for anything."""
    lease = acquire(ALIAS, ttl=0.3, renew=False)
    waits = threads.submit(take, ttl=None)
    until(partial(waiting, shared, 1))
    waits.result(30)
    assert not lease.held
    assert not lease.release()


def test_waiter_gets_the_lock_though_its_next_holder_has_it_for_shorter(
    shared: memory.SharedTable, threads: ThreadPoolExecutor
) -> None:
    """Who waits behind an endless lease doesn't sleep for ever when that is followed by another."""
    lease = acquire(ALIAS, ttl=None)

    def take_and_forget() -> Lease | None:
        return acquire_lock("a", backend=ALIAS, timeout=30, ttl=0.1, renew=False)

    forgets = threads.submit(take_and_forget)
    until(partial(waiting, shared, 1))
    waits = threads.submit(take)
    until(partial(waiting, shared, 2))
    assert lease.release()
    assert forgets.result(30)
    waits.result(30)


def test_waiter_looks_when_the_lease_ends_but_neither_at_once_nor_too_late(clock: Clock) -> None:
    """And at the latest after a second."""
    store = backend()
    store.acquire("a", "one", 0.5, "")
    place = store.join("a", "two", "", lambda: None)
    assert place.patience == 0.5
    clock.now += 0.4999
    assert place.patience == SOONEST
    store.acquire("a", "one", None, "")
    assert place.patience == LATEST
    place.check()
    place.leave(granted=False)
    clock.now += 1
    assert store.acquire("a", "two", 60, "") is None


def test_place_is_kept_by_who_was_granted_the_lock(clock: Clock) -> None:
    """What he leaves then is the queue, not the lock; who gave up is offered nothing."""
    store, woken = backend(), list[str]()
    first = store.join("a", "one", "", lambda: woken.append("one"))
    assert store.acquire("a", "one", 60, "")
    first.leave(granted=True)
    assert store.acquire("a", "two", 60, "") is None
    second = store.join("a", "two", "", lambda: woken.append("two"))
    second.leave(granted=False)
    clock.now += 60
    assert second.patience == SOONEST
    assert store.acquire("a", "three", 60, "")
    assert woken == ["one"]


# What a process's locks are


def test_two_aliases_have_different_locks(settings: Any) -> None:
    """Each has its own, which all threads share."""
    settings.DISTLOCK = {
        alias: {"BACKEND": "django_distlock.backends.memory.MemoryBackend"}
        for alias in ("default", ALIAS, "jobs")
    }
    with distributed_lock("a", backend=ALIAS):
        with distributed_lock("a", backend="jobs"):
            assert not free_for_others("jobs")
            assert not free_for_others(ALIAS)
        assert free_for_others("jobs")
        assert not free_for_others(ALIAS)


def test_forked_child_has_locks_of_its_own() -> None:
    """None at first; what it does with them is nothing to its parent."""

    def work() -> None:
        assert list(backend().held()) == []
        backend().clear()
        assert acquire_lock("a", backend=ALIAS)
        assert acquire_lock("b", backend=ALIAS)

    lease = acquire(ALIAS)
    with forked(work):
        pass
    assert not free_for_others(ALIAS)
    assert [each.semaphore for each in backend().held()] == ["a"]
    assert lease.release()


def test_child_that_is_forked_while_another_thread_is_at_it_waits_for_nobody(
    shared: memory.SharedTable, threads: ThreadPoolExecutor
) -> None:
    """That thread isn't in the child, and would never let go."""
    inside, done = threading.Event(), threading.Event()

    def be_at_it() -> None:
        with shared.changing:
            inside.set()
            done.wait(30)

    def work() -> None:
        signal.alarm(20)  # or else a failure would take for ever
        assert acquire_lock("a", backend=ALIAS)
        assert release_lock("a", backend=ALIAS)

    at_it = threads.submit(be_at_it)
    assert inside.wait(30)
    try:
        with forked(work):
            pass
    finally:
        done.set()
    at_it.result(30)


def test_clear_takes_all_locks_away(shared: memory.SharedTable) -> None:
    """Who holds one has lost it, and who waits gets it."""
    lease, other = acquire(ALIAS), acquire(ALIAS, "b", ttl=None)
    backend().clear()
    assert not lease.release()
    assert not other.release()
    assert len(shared.table) == 0
    assert free_for_others(ALIAS)


def test_system_check_warns_of_other_processes_unless_in_debug(settings: Any) -> None:
    """A site that is deployed is more than one process, most likely."""
    settings.DEBUG = True
    assert backend().check() == []
    settings.DEBUG = False
    [warning] = backend().check()
    assert warning.id == "distlock.W005"
    assert warning.msg.startswith("DISTLOCK['memory']: MemoryBackend keeps out nobody in another")
    assert warning.hint


def test_whatever_is_done_is_done_by_one_thread_at_a_time(
    shared: memory.SharedTable, threads: ThreadPoolExecutor
) -> None:
    """While one is at the table, all others wait; then each has its turn."""
    store, (held, other) = backend(), (acquire(ALIAS), acquire(ALIAS, "b"))
    place = store.join("a", "waits", "", lambda: None)
    assert held.token is not None
    calls: list[Callable[[], object]] = [
        partial(store.acquire, "c", "one", 60, ""),
        partial(store.join, "a", "one", "", lambda: None),
        partial(store.renew, [held]),
        partial(store.release, other),
        partial(store.force_release, "a", held.token),
        lambda: list(store.held()),
        lambda: place.patience,
        partial(place.leave, granted=False),
        store.clear,
    ]
    with shared.changing:
        under_way = [threads.submit(call) for call in calls]
        assert not wait(under_way, timeout=0.1).done
    assert not wait(under_way, timeout=30).not_done
    assert [each.exception() for each in under_way] == [None] * len(calls)


# Listing


def test_held_lists_in_order_by_prefix_and_up_to_a_limit(clock: Clock) -> None:
    """What has ended is not listed, and doesn't count."""
    store = backend()
    for number in (3, 1, 2):
        store.acquire(f"a{number}", "one", 60, f"host {number}")
    store.acquire("a0", "one", 1, "")
    store.acquire("b", "one", None, "")
    clock.now += 1
    assert [each.semaphore for each in store.held(limit=1)] == ["a1"]
    assert [each.semaphore for each in store.held()] == ["a1", "a2", "a3", "b"]
    assert [each.semaphore for each in store.held("a")] == ["a1", "a2", "a3"]
    assert [each.semaphore for each in store.held("a", 2)] == ["a1", "a2"]
    assert list(store.held("c")) == list(store.held(limit=0)) == []
    first, *_, endless = store.held()
    assert first.holder == "host 1"
    assert first.expires_at is not None
    assert (first.expires_at - first.seen_at).total_seconds() == 59
    assert endless.expires_at is None


def test_force_release_takes_the_lock_from_its_holder_and_wakes_who_waits(clock: Clock) -> None:
    """If it is his token; who comes later doesn't overtake."""
    store, woken = backend(), list[str]()
    grant = store.acquire("a", "one", 60, "")
    assert grant is not None
    assert grant.token is not None
    store.join("a", "two", "", lambda: woken.append("two"))
    assert not store.force_release("a", grant.token + 1)
    assert not woken
    assert store.force_release("a", grant.token)
    assert woken == ["two"]
    assert store.acquire("a", "three", 60, "") is None
    assert store.acquire("a", "two", 60, "")


# Interruptions


class Cycle:
    """What only the garbage collector gets rid of, and gives back a lock."""

    def __init__(self, lease: Lease) -> None:
        self.lease = lease
        self.itself = self

    def __del__(self) -> None:
        self.lease.release()


def test_lock_can_be_given_back_by_a_finalizer_in_the_midst_of_another_call(
    shared: memory.SharedTable,
) -> None:
    """The garbage collector runs in whatever thread, also in one that is at the table."""
    microseconds = shared.table.microseconds

    def collect() -> int:
        gc.collect()
        return microseconds()

    def work() -> None:
        for semaphore in ("b", "c"):
            Cycle(acquire(ALIAS, semaphore))
        shared.table.microseconds = collect
        with distributed_lock("a", backend=ALIAS):
            assert shared.table.names() == ["a"]

    thread = threading.Thread(target=work, daemon=True)
    gc.disable()
    try:
        thread.start()
        thread.join(30)
    finally:
        gc.enable()
    assert not thread.is_alive()
    assert len(shared.table) == 0


def test_exception_in_a_signal_handler_never_leaves_the_table_locked(
    shared: memory.SharedTable,
) -> None:
    """A time limit, say: whatever was under way, the other threads go on."""
    store, numbers = backend(), count()

    def ask(times: int) -> None:
        for number in islice(numbers, times):
            store.acquire(f"a{number % 10}", f"{number}", 0.0001, "")

    ask(1)
    earlier, trace = signal.signal(signal.SIGALRM, signal.default_int_handler), sys.gettrace()
    for each in range(200):
        sys.settrace(
            lambda *arguments: None
        )  # the measurement of coverage is not to be interrupted
        with suppress(KeyboardInterrupt):
            signal.setitimer(signal.ITIMER_REAL, 0.0005 + each * 0.000003)
            ask(5000)
            pytest.fail("it was not interrupted")
        sys.settrace(trace)
        assert elsewhere(partial(shared.changing.acquire, timeout=5)), each
        shared.begin_anew()
    signal.signal(signal.SIGALRM, earlier)


# The life of a lease, in tasks


def test_tasks_do_all_that_threads_do(shared: memory.SharedTable) -> None:
    """Acquire, renew, be contended, give up waiting, keep others out, release."""

    async def main() -> None:
        lease = await aacquire_lock("a", backend=ALIAS)
        assert lease is not None
        await lease.arenew()
        assert await aacquire_lock("a", backend=ALIAS) is None
        waits = asyncio.create_task(aacquire_lock("a", backend=ALIAS, timeout=60))
        await stand(shared, 1)
        waits.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waits
        assert waiting(shared, 0)
        assert await lease.arelease()
        kept = await aacquire_lock("a", backend=ALIAS, min_hold=30)
        assert kept is not None
        assert await kept.arelease()
        assert await aacquire_lock("a", backend=ALIAS) is None

    run(main())
    [described] = shared.table.describe(["a"])
    assert described.owner == ""
    assert 0 < described.left <= 30


def test_lease_is_renewed_in_the_background_and_lost_if_not(shared: memory.SharedTable) -> None:
    """One without an end is neither."""
    with distributed_lock("a", backend=ALIAS, ttl=0.3) as lease:
        end = clocks.monotonic() + 0.4
        until(lambda: clocks.monotonic() > end)
        lease.check()
        assert not free_for_others(ALIAS)
    lease = acquire(ALIAS, ttl=0.05, renew=False)
    outlast(lease)
    with pytest.raises(LockLost):
        lease.renew()
    assert free_for_others(ALIAS)
    with distributed_lock("a", backend=ALIAS, ttl=None) as lease:
        lease.renew()
        assert lease.expires_at is None
        assert shared.table.left("a") > 1e9
