"""Who waits for a lock of a lock server: in which order, and what if somebody fails."""

from __future__ import annotations

import asyncio
import random
import signal
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from django_distlock import (
    Lease,
    LockBackendUnavailable,
    LockNotAcquired,
    aacquire_lock,
    acquire_lock,
    clocks,
    distributed_lock,
)
from django_distlock.backends.pools import AT_ONCE
from django_distlock.backends.server import listening
from django_distlock.backends.server.listening import QueuedPlace, listener
from tests.lock_servers import (
    ALIAS,
    is_unused,
    locks_at,
    locks_of,
    place,
    start_lock_server,
    waiting,
    workers_at,
)
from tests.others import acquire, elsewhere, run, take_away, until
from tests.processes import Workers, strike
from tests.proxies import LossyProxy
from tests.test_redis import forked
from tests.test_redis_faults import HoldingProxy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django_distlock.backends.server import ServerBackend
    from tests.servers import Server

pytestmark = pytest.mark.needs("lock_server")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Run a server whose offers don't end by themselves: so nothing depends on that."""
    with start_lock_server(settings="tests.lasting_offers_settings") as running:
        yield running


@pytest.fixture
def store(server: Server) -> Iterator[ServerBackend]:
    """Let the locks be there; at the end nobody has one, nor waits."""
    with locks_of(server) as running:
        yield running
        until(lambda: is_unused(running))


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    """Return threads for those who wait."""
    with ThreadPoolExecutor(100) as running:
        yield running


def stand(store: ServerBackend, number: int) -> bool:
    """Tell whether so many wait."""
    return waiting(store) == number


def take(semaphore: str = "a", **arguments: Any) -> float:
    """Wait for the lock, and give it back at once; return when it was granted."""
    with distributed_lock(semaphore, backend=ALIAS, **{"timeout": 30, **arguments}):
        return time.monotonic_ns()


async def take_in_task(**arguments: Any) -> int | None:
    """Do so in a task; return the token."""
    async with distributed_lock("a", backend=ALIAS, **{"timeout": 30, **arguments}) as lease:
        return lease.token


# Order


def test_threads_are_served_in_the_order_in_which_they_came(
    store: ServerBackend, threads: ThreadPoolExecutor
) -> None:
    """Each is handed the lock by the one before."""
    with distributed_lock("a", backend=ALIAS):
        waits = []
        for number in range(10):
            waits.append(threads.submit(take))
            until(partial(stand, store, number + 1))
    times = [each.result(30) for each in waits]
    assert times == sorted(times)


def test_processes_threads_and_tasks_stand_in_one_line(
    server: Server, store: ServerBackend, threads: ThreadPoolExecutor
) -> None:
    """Whatever they are: each has a greater token than the one before."""

    def take_in_thread() -> int | None:
        with distributed_lock("a", backend=ALIAS, timeout=30) as lease:
            return lease.token

    with ExitStack() as stack:
        lease = acquire(ALIAS)
        results: list[Any] = []
        for number in range(6):
            if number % 3 == 0:
                worker = workers_at(server, 1, "stand_in_line", ALIAS, "1")
                results.append(stack.enter_context(worker))
            elif number % 3 == 1:
                results.append(threads.submit(take_in_thread))
            else:
                results.append(threads.submit(lambda: asyncio.run(take_in_task())))
            until(partial(stand, store, number + 1))
        assert lease.release()
        tokens = [
            each.results()[0][0] if isinstance(each, Workers) else each.result(30)
            for each in results
        ]
    assert tokens == sorted(tokens)


def test_newcomer_does_not_overtake(store: ServerBackend, threads: ThreadPoolExecutor) -> None:
    """Not even when the lock has just expired."""
    lease = acquire(ALIAS, ttl=0.3, renew=False)
    waits = threads.submit(acquire, ALIAS, timeout=30)
    until(lambda: waiting(store) == 1)
    while not waits.done():
        assert acquire_lock("a", backend=ALIAS) is None
    assert not lease.held
    assert waits.result().release()


def test_hundreds_of_tasks_are_served_fairly(store: ServerBackend) -> None:
    """By one thread that listens, and a handful of connections."""
    grants: Counter[int] = Counter()
    most = 0

    async def work(number: int) -> None:
        nonlocal most
        for _ in range(3):
            async with distributed_lock("a", backend=ALIAS, timeout=60):
                grants[number] += 1
                most = max(most, max(grants.values()) - min(grants[each] for each in range(300)))

    async def main() -> dict[str, int]:
        lease = await aacquire_lock("a", backend=ALIAS)
        assert lease is not None
        tasks = [asyncio.create_task(work(number)) for number in range(300)]
        await asyncio.to_thread(until, lambda: waiting(store) == 300)
        seen = {**store.status(), "threads": threading.active_count()}
        await lease.arelease()
        await asyncio.gather(*tasks)
        return seen

    before = threading.active_count()
    seen = run(main())
    # who renews, who listens, who makes connections, and asyncio's own
    assert seen["threads"] - before < AT_ONCE + 4
    assert seen["processes"] == 1
    assert seen["connections"] <= AT_ONCE + 2
    assert [*grants.values()] == [3] * 300
    assert most <= 1


def test_process_waits_for_many_semaphores_at_once(
    store: ServerBackend, threads: ThreadPoolExecutor
) -> None:
    """Each is handed on by itself, heard by one thread."""
    names = [f"lock {number}" for number in range(100)]
    leases = [acquire(ALIAS, name) for name in names]
    waits = [threads.submit(take, name) for name in names]
    until(lambda: waiting(store) == len(names))
    for lease in reversed(leases):
        assert lease.release()
    assert [each.result(10) for each in waits]
    name = f"django_distlock listens to {store.address}"
    assert [each.name for each in threading.enumerate()].count(name) == 1


# Those who die


@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP])
def test_dead_process_costs_little_however_many_wait_in_it(
    threads: ThreadPoolExecutor, fault: signal.Signals
) -> None:
    """The first who is alive is offered the lock next, where an offer lasts as ever."""
    with start_lock_server() as server, locks_of(server) as store:
        with workers_at(server, 1, "stand_in_line", ALIAS, "50") as dead:
            lease = acquire(ALIAS)
            until(lambda: waiting(store) == 50)
            waits = threads.submit(take)
            until(lambda: waiting(store) == 51)
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
            until(lambda: is_unused(store))


def test_killed_process_is_passed_over_at_once(
    server: Server, store: ServerBackend, threads: ThreadPoolExecutor
) -> None:
    """Nothing is offered to who doesn't listen any more: that offer would last here."""
    with workers_at(server, 1, "stand_in_line", ALIAS, "5") as dead:
        lease = acquire(ALIAS)
        until(lambda: waiting(store) == 5)
        waits = threads.submit(take)
        until(lambda: waiting(store) == 6)
        [process] = dead.processes
        strike(process, signal.SIGKILL)
        until(lambda: waiting(store) == 1)
        assert lease.release()
        assert waits.result(30)


def test_dead_holders_lock_is_handed_on_when_its_ttl_ends(
    server: Server, store: ServerBackend, threads: ThreadPoolExecutor
) -> None:
    """Not earlier, and soon."""
    with workers_at(server, 1, "hold", ALIAS, "1.5") as holders:
        [holder] = holders.processes
        holders.read(holder)
        waits = threads.submit(take, "held")
        until(lambda: waiting(store) == 1)
        strike(holder, signal.SIGKILL)
        [lock] = store.held()
        asked = time.monotonic_ns()
        assert lock.expires_at is not None
        left = (lock.expires_at - lock.seen_at).total_seconds()
        assert left > 0.5
        assert left - 0.1 < (waits.result(30) - asked) / 1e9 < left + 1


# Those who leave


@pytest.mark.usefixtures("store")
def test_wait_ends_at_its_timeout() -> None:
    """And leaves no trace."""
    with distributed_lock("a", backend=ALIAS):
        before = clocks.monotonic()
        with pytest.raises(LockNotAcquired):
            elsewhere(lambda: take(timeout=0.2))
        with pytest.raises(LockNotAcquired):
            run(take_in_task(timeout=0.2))
        assert 0.4 <= clocks.monotonic() - before < 5


def test_lock_goes_to_the_next_when_who_is_offered_it_leaves(store: ServerBackend) -> None:
    """At once, and though both are of one process: that is alive."""
    lease = acquire(ALIAS)
    offered = [threading.Event() for _ in range(3)]
    places = [
        store.join("a", f"owner{number}", "", event.set) for number, event in enumerate(offered)
    ]
    assert lease.release()
    for number, (each, event) in enumerate(zip(places, offered, strict=True)):
        assert event.wait(30), number
        each.leave(granted=False)


def test_waiters_who_leave_as_they_are_offered_the_lock_leave_nothing(
    threads: ThreadPoolExecutor, store: ServerBackend
) -> None:
    """However these meet: at the end nobody waits, and the lock is free."""
    chance = random.Random(0)

    def try_for(seconds: float) -> None:
        if lease := acquire_lock("a", backend=ALIAS, timeout=seconds):
            assert lease.release()

    for _ in range(60):
        lease = acquire(ALIAS, timeout=5)
        waits = [threads.submit(try_for, 0.005 + chance.random() * 0.005) for _ in range(4)]
        time.sleep(0.005 + chance.random() * 0.005)
        assert lease.release()
        for each in waits:
            each.result(30)
        until(lambda: is_unused(store))  # nothing ends by itself here


def test_tasks_that_are_cancelled_as_they_are_offered_the_lock_leave_nothing(
    store: ServerBackend,
) -> None:
    """Nor as they join, or leave."""
    chance = random.Random(0)

    async def main() -> None:
        for _ in range(60):
            lease = await aacquire_lock("a", backend=ALIAS, timeout=5)
            assert lease
            tasks = [asyncio.create_task(take_in_task()) for _ in range(4)]
            await asyncio.sleep(chance.random() * 0.02)
            cancelling = asyncio.create_task(cancel(tasks))
            assert await lease.arelease()
            await asyncio.gather(cancelling, *tasks, return_exceptions=True)
            await asyncio.to_thread(until, lambda: is_unused(store))

    async def cancel(tasks: list[asyncio.Task[int | None]]) -> None:
        for task in tasks[:3]:
            task.cancel()

    run(main())


def test_task_that_is_cancelled_as_it_joins_leaves_nothing(
    server: Server, store: ServerBackend
) -> None:
    """Though the server hears of the join later: it is told that it is undone after that."""

    async def main(proxy: HoldingProxy) -> None:
        with locks_at(server, proxy.port) as behind:
            lease = await aacquire_lock("a", backend=ALIAS)
            assert lease is not None
            # When this is answered, the listener has begun: it doesn't say "join" by itself.
            first = await asyncio.to_thread(behind.join, "a", "first", "", lambda: None)
            proxy.marker = b'"join"'
            cancelled = asyncio.create_task(take_in_task())
            await asyncio.to_thread(until, lambda: proxy.marker == b"")
            proxy.may_go_on.set()  # when the connection ends
            cancelled.cancel()
            with pytest.raises(asyncio.CancelledError):
                await cancelled
            assert await asyncio.to_thread(proxy.delivered.wait, 30)
            await asyncio.to_thread(until, lambda: waiting(store) == 1)
            assert await lease.arelease()
            await asyncio.to_thread(first.leave, granted=False)

    with HoldingProxy(*place(server)) as proxy:
        run(main(proxy))


def cancelled_as_they_leave(monkeypatch: pytest.MonkeyPatch) -> list[asyncio.Task[Any]]:
    """Return where to put the task that is cancelled when somebody leaves the queue."""
    waits: list[asyncio.Task[Any]] = []
    leave = QueuedPlace.aleave

    async def cancel_and_leave(self: QueuedPlace, *, granted: bool) -> None:
        waits[0].cancel()
        await asyncio.sleep(0)
        await leave(self, granted=granted)

    monkeypatch.setattr(QueuedPlace, "aleave", cancel_and_leave)
    return waits


@pytest.mark.parametrize("granted", [True, False])
def test_task_that_is_cancelled_as_it_leaves_leaves_nothing(
    store: ServerBackend, monkeypatch: pytest.MonkeyPatch, granted: bool
) -> None:
    """Neither the lock that it has been granted, nor, if it gives up, its place."""
    waits = cancelled_as_they_leave(monkeypatch)

    async def main() -> None:
        lease = await aacquire_lock("a", backend=ALIAS)
        assert lease is not None
        waits.append(asyncio.create_task(aacquire_lock("a", backend=ALIAS, timeout=30)))
        await asyncio.to_thread(until, lambda: waiting(store) == 1)
        if not granted:
            waits[0].cancel()
            with pytest.raises(asyncio.CancelledError):
                await waits[0]
            await asyncio.to_thread(until, lambda: waiting(store) == 0)
        assert await lease.arelease()
        with pytest.raises(asyncio.CancelledError):
            await waits[0]

    run(main())


def test_task_whose_event_loop_is_closed_is_passed_over(store: ServerBackend) -> None:
    """When it is its turn: the lock goes to the next."""
    lease = acquire(ALIAS)
    loop = asyncio.new_event_loop()
    waits = aacquire_lock("a", backend=ALIAS, timeout=60)
    task = loop.create_task(waits)
    while not waiting(store):
        loop.run_until_complete(asyncio.sleep(0.01))
    loop.close()
    heard = listener(store.server)
    assert len(heard._places) == 1
    assert lease.release()
    assert acquire(ALIAS, timeout=30).release()
    until(lambda: not heard._places and not waiting(store))
    waits.close()  # as it is when it is collected
    task._log_destroy_pending = False  # type: ignore[attr-defined]


def test_who_could_not_leave_leaves_later(
    server: Server, store: ServerBackend, threads: ThreadPoolExecutor
) -> None:
    """Before anybody waits for who isn't there: that offer would last here."""
    with LossyProxy(*place(server)) as proxy, locks_at(server, proxy.port):
        lease = acquire(ALIAS)
        proxy.lose_requests(b'"leave"', 1)
        leaves = threads.submit(acquire_lock, "a", backend=ALIAS, timeout=0.3)
        until(lambda: waiting(store) == 1)
        stays = threads.submit(take)
        until(lambda: waiting(store) == 2)
        assert leaves.result(30) is None
        assert proxy.losses == 0
        assert waiting(store) == 2
        assert lease.release()
        assert stays.result(30)


def test_who_could_not_leave_is_forgotten_though_nothing_is_offered(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread goes on saying it, if that fails too, and loses nothing for that."""
    monkeypatch.setattr(listening, "SAYS_EVERY", 0.1)
    with LossyProxy(*place(server)) as proxy, locks_at(server, proxy.port) as store:
        lease = acquire(ALIAS)
        listened = listener(store.server)
        waits = store.join("a", "owner", "", print)
        wire = listened._wire
        proxy.lose_requests(b'"leave"', 3)
        with pytest.raises(LockBackendUnavailable):
            waits.leave(granted=False)
        until(lambda: waiting(store) == 0)
        assert proxy.losses == 0
        assert listened._wire is wire
        assert lease.release()


def test_join_that_is_not_answered_is_undone(server: Server) -> None:
    """In the time that a call has; and nobody else waits for who isn't there."""
    with locks_of(server, store_timeout=1) as store:
        lease, other = acquire(ALIAS), acquire(ALIAS, "b")
        waits = store.join("a", "owner", "", print)  # so that it listens
        with server.paused():
            before = clocks.monotonic()
            with pytest.raises(LockBackendUnavailable):
                store.join("b", "another", "", print)
            assert clocks.monotonic() - before < 5
        until(lambda: waiting(store) == 1)
        waits.leave(granted=False)
        assert lease.release()
        assert other.release()
        until(lambda: is_unused(store))


def test_who_gave_back_what_he_was_offered_stands_in_line_again(
    store: ServerBackend, threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one does whose try was answered too late, and who waits on."""
    monkeypatch.setattr(listening, "SAYS_EVERY", 0.1)
    lease = acquire(ALIAS)
    offers: list[int] = []
    waits = store.join("a", "owner", "", lambda: offers.append(1))
    assert lease.release()
    until(lambda: len(offers) == 1)
    successor = threads.submit(acquire, ALIAS, timeout=30)
    until(lambda: waiting(store) == 2)
    assert store.acquire("a", "owner", 60, "")
    [held] = store.held()
    assert store.force_release("a", held.token or 0)  # it has left the line by then
    lease = successor.result(30)
    until(lambda: waiting(store) == 1)
    assert lease.release()
    until(lambda: len(offers) == 2)
    waits.leave(granted=False)


def test_who_joined_again_as_he_was_granted_the_lock_waits_no_more(store: ServerBackend) -> None:
    """Else he would be offered it once more, after having given it back."""
    listened = listener(store.server)
    waits = store.join("a", "owner", "", print)
    assert store.acquire("a", "owner", 60, "")
    listened._join_again()
    assert waiting(store) == 1
    waits.leave(granted=True)
    listened._let_leave()
    assert waiting(store) == 0
    [lock] = store.held()
    assert store.force_release("a", lock.token or 0)


# Threads, processes, ends


def test_forked_child_listens_itself(store: ServerBackend, threads: ThreadPoolExecutor) -> None:
    """Its parent goes on to."""

    def wait_in_child() -> None:
        assert take()

    lease = acquire(ALIAS)
    first = threads.submit(take)
    until(lambda: waiting(store) == 1)
    with forked(wait_in_child):
        until(lambda: waiting(store) == 2)
        last = threads.submit(take)
        until(lambda: waiting(store) == 3)
        assert lease.release()
        assert first.result(30) < last.result(30)


def test_who_comes_as_the_listener_ends_is_heard(
    store: ServerBackend,
    threads: ThreadPoolExecutor,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It goes on for him, or another one begins."""
    monkeypatch.setattr(listening, "IDLE", 0)
    for _ in range(50):
        lease = acquire(ALIAS, timeout=30)
        wait = threads.submit(take)
        until(lambda: waiting(store) == 1)
        assert lease.release()
        assert wait.result(30)
    assert caplog.text == ""


def test_listener_ends_when_nobody_needs_it(
    store: ServerBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And with it its connection."""
    monkeypatch.setattr(listening, "IDLE", 0)
    monkeypatch.setattr(listening, "SAYS_EVERY", 0.1)
    with distributed_lock("a", backend=ALIAS):
        assert elsewhere(lambda: acquire_lock("a", backend=ALIAS, timeout=0.1)) is None
    until(lambda: store.status()["processes"] == 0 and listener(store.server)._thread is None)


@pytest.mark.parametrize("ttl", [0.2, 3])
def test_any_ttl_can_be_waited_with(
    store: ServerBackend, threads: ThreadPoolExecutor, ttl: float
) -> None:
    """It counts from when the lock is taken, not from when it is offered."""
    lease = acquire(ALIAS)
    waits = [threads.submit(acquire, ALIAS, timeout=30, ttl=ttl, renew=False) for _ in range(10)]
    until(lambda: waiting(store) == 10)
    assert lease.release()
    began = clocks.monotonic()
    remaining = {*waits}
    while remaining:
        for each in [each for each in remaining if each.done()]:
            each.result().release()
            remaining.remove(each)
    assert clocks.monotonic() - began < 5


def test_nobody_is_handed_the_lock_before_min_hold_is_over(
    store: ServerBackend, threads: ThreadPoolExecutor
) -> None:
    """Though it was released."""
    before = time.monotonic_ns()
    lease = acquire(ALIAS, min_hold=1)
    waits = threads.submit(take)
    until(lambda: waiting(store) == 1)
    assert lease.release()
    assert 1e9 <= waits.result(30) - before < 5e9


def test_force_released_lock_is_handed_on(
    store: ServerBackend, threads: ThreadPoolExecutor
) -> None:
    """At once, to the first in line: it is never free."""
    lease: Lease = acquire(ALIAS)
    waits = threads.submit(acquire, ALIAS, timeout=30)
    until(lambda: waiting(store) == 1)
    take_away(lease)
    assert acquire_lock("a", backend=ALIAS) is None
    assert waits.result(30).release()
    assert lease.release() is False
