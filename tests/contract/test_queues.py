"""Who waits for a lock at a server: in which order, and what if somebody fails.

What holds for Redis and the lock server alike; what one of them alone has is in
test_redis_waiting.py and test_lock_server_waiting.py.
"""

from __future__ import annotations

import asyncio
import gc
import json
import random
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections import Counter
from concurrent.futures import as_completed
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
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
from django_distlock.backends.sockets.turns import AT_ONCE
from tests.support import holders
from tests.support.concurrency import elsewhere, run, until
from tests.support.holders import take_away
from tests.support.lock_servers import start_lock_server
from tests.support.processes import Workers, forked, strike, worker_environment
from tests.support.redis_stores import lasting_offers
from tests.support.store_queues import QueuedLockServer, QueuedRedis, QueuedStore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import ThreadPoolExecutor

    from django_distlock import Lease

JOB = "nightly report"
"""The lock that is waited for, where it is one only."""
once = pytest.mark.once
KINDS = [pytest.param(name, marks=pytest.mark.needs(name)) for name in ("redis", "lock_server")]


@contextmanager
def queued_store(request: pytest.FixtureRequest, *, lasting: bool) -> Iterator[QueuedStore]:
    """Let the locks be in the store of this kind; at the end nobody has one there, nor waits."""
    with ExitStack() as stack:
        found: QueuedStore
        if request.param == "redis":
            found = QueuedRedis(request.getfixturevalue("redis_server"), lasting=lasting)
            stack.enter_context(lasting_offers() if lasting else nullcontext())
        elif lasting:
            found = QueuedLockServer(request.getfixturevalue("patient_lock_server"))
        else:
            found = QueuedLockServer(stack.enter_context(start_lock_server()))
        stack.enter_context(found.locks())
        yield found
        until(found.is_unused)


@pytest.fixture(params=KINDS)
def queued(request: pytest.FixtureRequest) -> Iterator[QueuedStore]:
    """Return a store where nothing depends on the end of an offer: that is far away."""
    with queued_store(request, lasting=True) as found:
        yield found


@pytest.fixture
def attentive(queued: QueuedStore, monkeypatch: pytest.MonkeyPatch) -> QueuedStore:
    """Return that store, with waiters who try only when they are told to, or the lock ends."""
    monkeypatch.setattr(queued.places, "SAFETY", 600)
    return queued


@pytest.fixture(params=KINDS)
def hasty(request: pytest.FixtureRequest) -> Iterator[QueuedStore]:
    """Return a store where offers last as they do."""
    with queued_store(request, lasting=False) as found:
        yield found


def acquire(store: QueuedStore, semaphore: str = JOB, **arguments: Any) -> Lease:
    """Acquire what is free, or will be."""
    return holders.acquire(store.alias, semaphore, **arguments)


def take(store: QueuedStore, semaphore: str = JOB, **arguments: Any) -> float:
    """Wait for the lock, and give it back at once; return when it was granted."""
    with distributed_lock(semaphore, backend=store.alias, **{"timeout": 30, **arguments}):
        return time.monotonic_ns()


async def take_in_task(store: QueuedStore, **arguments: Any) -> int | None:
    """Do so in a task; return the token."""
    async with distributed_lock(JOB, backend=store.alias, **{"timeout": 30, **arguments}) as lease:
        return lease.token


# Order


@once
def test_threads_are_served_in_the_order_in_which_they_came(
    queued: QueuedStore, threads: ThreadPoolExecutor
) -> None:
    """Each is handed the lock by the one before."""
    with distributed_lock(JOB, backend=queued.alias):
        waits = []
        for number in range(10):
            waits.append(threads.submit(take, queued))
            until(partial(queued.is_waited_for_by, number + 1))
    times = [each.result(30) for each in waits]
    assert times == sorted(times)


def test_processes_threads_and_tasks_stand_in_one_line(
    queued: QueuedStore, threads: ThreadPoolExecutor
) -> None:
    """Whatever they are: each has a greater token than the one before."""

    def take_in_thread() -> int | None:
        with distributed_lock(JOB, backend=queued.alias, timeout=30) as lease:
            return lease.token

    with ExitStack() as stack:
        lease = acquire(queued)
        results: list[Any] = []
        for number, kind in enumerate(["thread", "task", "process", "task", "thread"], 1):
            if kind == "process":
                worker = queued.workers("stand_in_line", queued.alias, "1", JOB)
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
    """Not even when the lock has just expired, before anybody has looked."""
    lease = acquire(queued, ttl=0.3, renew=False)
    waits = threads.submit(acquire, queued, timeout=30)
    until(lambda: queued.waiting() == 1 or waits.done())  # done, if this machine stalled
    while not waits.done():
        assert acquire_lock(JOB, backend=queued.alias) is None
    assert not lease.held
    assert waits.result().release()


@once
def test_hundreds_of_tasks_are_served_fairly(queued: QueuedStore) -> None:
    """By one thread that listens, and those that make a handful of connections."""
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
    # who renews, who listens, who makes connections, and asyncio's own
    assert running - before < AT_ONCE + 4
    # the one that is listened on, and those on which that thread and this test's have asked
    assert open_connections <= AT_ONCE + 3
    assert processes == 1
    assert [*grants.values()] == [2] * 200
    assert most <= 1


@once
def test_process_waits_for_many_semaphores_at_once(
    queued: QueuedStore, threads: ThreadPoolExecutor
) -> None:
    """Each is handed on by itself, heard by one thread."""
    names = [f"lock {number}" for number in range(100)]
    leases = [acquire(queued, name) for name in names]
    waits = [threads.submit(take, queued, name) for name in names]
    until(lambda: queued.waiting() == len(names))
    for lease in reversed(leases):
        assert lease.release()
    assert [each.result(30) for each in waits]
    assert queued.listeners() == 1


# Those who die


@once
@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP])
def test_dead_process_costs_little_however_many_wait_in_it(
    hasty: QueuedStore, threads: ThreadPoolExecutor, fault: signal.Signals
) -> None:
    """The first who is alive is offered the lock next."""
    lease = acquire(hasty)  # before any of those who wait
    with hasty.workers("stand_in_line", hasty.alias, "50", JOB) as dead:
        until(lambda: hasty.waiting() == 50)
        waits = threads.submit(take, hasty)
        until(lambda: hasty.waiting() == 51)
        [process] = dead.processes
        strike(process, fault)
        released = time.monotonic_ns()
        assert lease.release()
        # About a second, where one for each would be fifty.
        assert waits.result(60) - released < 20e9
        if fault == signal.SIGSTOP:  # and when it goes on, it is served
            process.send_signal(signal.SIGCONT)
            [tokens] = dead.results()
            assert len(tokens) == 50


@once
def test_killed_process_is_passed_over_at_once(
    queued: QueuedStore, threads: ThreadPoolExecutor
) -> None:
    """Nothing is offered to who doesn't listen any more: that offer would last here."""
    lease = acquire(queued)
    with queued.workers("stand_in_line", queued.alias, "5", JOB) as dead:
        until(lambda: queued.waiting() == 5)
        waits = threads.submit(take, queued)
        until(lambda: queued.waiting() == 6)
        [process] = dead.processes
        strike(process, signal.SIGKILL)
        until(lambda: queued.processes() == 1)
        assert lease.release()
        assert waits.result(30)


@once
def test_dead_holders_lock_is_handed_on_when_its_ttl_ends(
    attentive: QueuedStore, threads: ThreadPoolExecutor
) -> None:
    """Not earlier, by the store's clock, which tokens tell."""
    with attentive.workers("hold", attentive.alias, "1.5") as holders:
        [holder] = holders.processes
        [token] = json.loads(holders.read(holder))
        waits = threads.submit(acquire, attentive, "held", timeout=120)
        until(lambda: attentive.waiting() == 1 or waits.done())
        strike(holder, signal.SIGKILL)
        lease = waits.result(60)
    assert lease.token - token > 1_400_000
    assert lease.release()


# Those who leave


def test_wait_ends_at_its_timeout(queued: QueuedStore) -> None:
    """And leaves no trace."""
    with distributed_lock(JOB, backend=queued.alias):
        before = clocks.monotonic()
        with pytest.raises(LockNotAcquired):
            elsewhere(lambda: take(queued, timeout=0.2))
        with pytest.raises(LockNotAcquired):
            run(take_in_task(queued, timeout=0.2))
        assert 0.4 <= clocks.monotonic() - before < 5
        assert queued.waiting() == 0


@once
def test_lock_goes_to_the_next_when_who_is_offered_it_leaves(queued: QueuedStore) -> None:
    """At once, and though both are of one process: that is alive."""
    lease = acquire(queued)
    offered = [threading.Event() for _ in range(3)]
    places = [queued.join(JOB, f"owner{number}", event.set) for number, event in enumerate(offered)]
    assert lease.release()
    for number, (each, event) in enumerate(zip(places, offered, strict=True)):
        assert event.wait(30), number
        queued.store.leave(each, False)


@once
def test_waiters_who_leave_as_they_are_offered_the_lock_leave_nothing(
    queued: QueuedStore, threads: ThreadPoolExecutor
) -> None:
    """However these meet: at the end nobody waits, and the lock is free."""
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
    """Nor as they join, or leave."""
    chance = random.Random(0)

    async def main() -> None:
        for _ in range(60):
            lease = await aacquire_lock(JOB, backend=queued.alias, timeout=5)
            assert lease
            tasks = [asyncio.create_task(take_in_task(queued)) for _ in range(4)]
            await asyncio.sleep(chance.random() * 0.02)  # so that it is handed on at any moment
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
    """Neither the lock that it has been granted, nor, if it gives up, its place."""
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
    """When it is its turn: the lock goes to the next."""
    lease = acquire(queued)
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)  # it is told of tasks that never end
    waits = aacquire_lock(JOB, backend=queued.alias, timeout=60)
    task = loop.create_task(waits)
    while not queued.waiting():
        loop.run_until_complete(asyncio.sleep(0.01))
    loop.close()
    assert lease.release()
    assert acquire(queued, timeout=30).release()
    until(lambda: not queued.waiting())
    waits.close()  # as it is when it is collected
    del task


@pytest.mark.parametrize("call", ["aacquire", "aleave"])
def test_event_loop_may_be_closed_in_the_midst_of_a_call(
    queued: QueuedStore, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """Its task asks for nothing more, and is in nobody's way."""
    begun = threading.Event()

    async def hang(*arguments: Any, **options: Any) -> None:
        begun.set()
        await asyncio.Event().wait()

    lease = acquire(queued)
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)  # it is told of tasks that never end
    with monkeypatch.context() as patch:
        patch.setattr(type(queued.store), call, hang)
        waits = aacquire_lock(JOB, backend=queued.alias, timeout=0.1)
        task = loop.create_task(waits)
        while not begun.is_set():
            loop.run_until_complete(asyncio.sleep(0.01))
        loop.close()
        waits.close()  # as it is when it is collected
    assert lease.release()
    assert acquire(queued, timeout=30).release()
    until(lambda: not queued.waiting())
    del task


def test_waiter_who_is_not_there_any_more_is_forgotten(queued: QueuedStore) -> None:
    """By the server and by this process, when it is his turn: he says so then."""
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
def test_join_that_is_not_answered_is_undone(hasty: QueuedStore) -> None:
    """In the time that a call has; and nobody else waits for who isn't there.

    A store with a time limit of its own listens by itself, for a while: not at a server whose
    listeners other tests count.
    """
    with hasty.locks(store_timeout=3):
        lease, other = acquire(hasty), acquire(hasty, "another report")
        waits = hasty.join(JOB, "owner")  # so that somebody listens
        with hasty.server.paused():  # it returns though the server doesn't
            with pytest.raises(LockBackendUnavailable):
                hasty.join("another report", "another owner")
        until(lambda: hasty.waiting() == 1)
        hasty.store.leave(waits, False)
        assert lease.release()
        assert other.release()
        until(hasty.is_unused)


# Threads, processes, ends


@once
def test_forked_child_listens_itself(queued: QueuedStore, threads: ThreadPoolExecutor) -> None:
    """Its parent goes on to."""

    def wait_in_child() -> None:
        assert take(queued)

    lease = acquire(queued)
    first = threads.submit(take, queued)
    until(lambda: queued.waiting() == 1)
    with forked(wait_in_child):
        until(lambda: queued.waiting() == 2)
        last = threads.submit(take, queued)
        until(lambda: queued.waiting() == 3)
        assert lease.release()
        assert first.result(30) < last.result(30)


@once
def test_process_that_ends_closes_its_idle_connections(queued: QueuedStore) -> None:
    """So Python has nothing to warn of, where it warns of resources."""
    work = f"""
import atexit
import psutil
def print_open():
    print(len(psutil.Process().net_connections()))
atexit.register(print_open)
import django
from django_distlock import acquire_lock
django.setup()
assert acquire_lock({JOB!r}, backend={queued.alias!r}).release()
print_open()
"""
    ended = subprocess.run(
        [sys.executable, "-c", work],
        env=worker_environment() | queued.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.stdout, ended.stderr) == ("1\n0\n", "")


@once
def test_who_comes_as_the_listener_ends_is_heard(
    queued: QueuedStore,
    threads: ThreadPoolExecutor,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It goes on for him, or another one begins."""
    monkeypatch.setattr("django_distlock.backends.listening.IDLE", 0)
    for _ in range(50):
        lease = acquire(queued, timeout=30)
        wait = threads.submit(take, queued)
        until(lambda: queued.waiting() == 1)
        assert lease.release()
        assert wait.result(30)
    assert caplog.text == ""


@once
@pytest.mark.parametrize("ttl", [1, None])
def test_any_ttl_can_be_waited_with(
    attentive: QueuedStore, threads: ThreadPoolExecutor, ttl: float | None
) -> None:
    """It counts from when the lock is taken, not from when it is offered."""
    terms: dict[str, Any] = {"ttl": ttl} if ttl or attentive.knows_no_end else {}
    lease = acquire(attentive)
    waits = [
        threads.submit(acquire, attentive, timeout=30, renew=False, **terms) for _ in range(10)
    ]
    until(lambda: attentive.waiting() == 10)
    assert lease.release()
    for each in as_completed(waits, timeout=60):
        each.result().release()


@once
def test_nobody_is_handed_the_lock_before_min_hold_is_over(
    attentive: QueuedStore, threads: ThreadPoolExecutor
) -> None:
    """Though it was released."""
    before = time.monotonic_ns()
    lease = acquire(attentive, min_hold=0.5)
    waits = threads.submit(take, attentive)
    until(lambda: attentive.waiting() == 1 or waits.done())
    assert lease.release()
    assert waits.result(30) - before >= 0.5e9


@once
def test_force_released_lock_is_handed_on(queued: QueuedStore, threads: ThreadPoolExecutor) -> None:
    """At once, to the first in line: it is never free."""
    lease = acquire(queued)
    waits = threads.submit(acquire, queued, timeout=30)
    until(lambda: queued.waiting() == 1)
    take_away(lease)
    assert acquire_lock(JOB, backend=queued.alias) is None
    assert waits.result(30).release()
    assert lease.release() is False
