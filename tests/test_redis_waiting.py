"""Who waits for a lock in Redis: in which order, at what cost, and what if somebody fails."""

from __future__ import annotations

import asyncio
import json
import math
import random
import signal
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import pytest

from django_distlock import (
    Lease,
    LockBackendUnavailable,
    LockNotAcquired,
    aacquire_lock,
    acquire_lock,
    clocks,
    distributed_lock,
    lock_backends,
)
from django_distlock.backends.pools import AT_ONCE
from django_distlock.backends.redis import listening, scripts
from django_distlock.backends.redis.listening import QueuedPlace
from django_distlock.backends.wires import ServerError
from django_distlock.leases import Extension
from tests.others import acquire, elsewhere, run, take_away, until
from tests.processes import Workers, strike
from tests.proxies import LossyProxy, _chunks
from tests.redis_locks import (
    ALIAS,
    commands,
    key_of,
    let_offers_last,
    locks_at,
    locks_of,
    vary,
    waiting,
)
from tests.redis_servers import connect, place
from tests.servers import HOST
from tests.test_redis import forked

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future

    from django_distlock.backends.redis.backend import RedisBackend
    from django_distlock.backends.redis.scripts import Script
    from tests.servers import Server

pytestmark = pytest.mark.needs("redis", "redis_cluster")


@pytest.fixture
def store(server: Server) -> Iterator[RedisBackend]:
    """Let the locks be in a server of our own."""
    with locks_of(server) as running:
        yield running


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    """Return threads for those who wait."""
    with ThreadPoolExecutor(100) as running:
        yield running


def workers_at(server: Server, number: int, *command: str) -> Workers:
    """Let processes use this server; the alias "redis" is in its database 1."""
    host, port = place(server)
    variable = json.dumps({"HOST": host, "PORT": str(port)})
    return Workers(number, *command, DISTLOCK_TEST_REDIS=variable)


@pytest.fixture
def lasting_offers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let no offer end by itself, however slow this machine is; nor those of workers."""
    monkeypatch.setenv("DISTLOCK_TEST_LASTING_OFFERS", "1")
    sources = let_offers_last()
    yield
    for script, source in sources.items():
        vary(script, source)


@contextmanager
def shared_with_workers(server: Server) -> Iterator[None]:
    """Have the locks where the workers have them."""
    with locks_at("", location=f"redis://{HOST}:{place(server)[1]}/1"):
        yield


def in_line(server: Server, db: int = 1) -> int:
    """Return how many wait, where the workers have their locks."""
    with connect(server, db) as client:
        return int(client.zcard(f"{key_of()}:queue"))


def stand(server: Server, number: int, count: Callable[[Server], int] = waiting) -> bool:
    """Tell whether so many wait."""
    return count(server) == number


def take(semaphore: str = "a", **arguments: Any) -> float:
    """Wait for the lock, and give it back at once; return when it was granted."""
    with distributed_lock(semaphore, backend=ALIAS, **{"timeout": 30, **arguments}):
        return time.monotonic_ns()


def claim(semaphore: str, owner: str) -> Extension:
    """Return the claim of an owner who has no lease yet."""
    return Extension(semaphore, owner, 60)


# Order


@pytest.mark.usefixtures("store", "lasting_offers")
def test_threads_are_served_in_the_order_in_which_they_came(
    server: Server, threads: ThreadPoolExecutor
) -> None:
    """Each is handed the lock by the one before."""
    with distributed_lock("a", backend=ALIAS):
        waits = []
        for number in range(10):
            waits.append(threads.submit(take))
            until(partial(stand, server, number + 1))
    times = [each.result(30) for each in waits]
    assert times == sorted(times)


@pytest.mark.usefixtures("lasting_offers")
def test_processes_threads_and_tasks_stand_in_one_line(
    server: Server, threads: ThreadPoolExecutor
) -> None:
    """Whatever they are: each has a greater token than the one before."""

    def take_in_thread() -> int | None:
        with distributed_lock("a", backend=ALIAS, timeout=30) as lease:
            return lease.token

    async def take_in_task() -> int | None:
        async with distributed_lock("a", backend=ALIAS, timeout=30) as lease:
            return lease.token

    with shared_with_workers(server), ExitStack() as stack:
        lease = acquire(ALIAS)
        results: list[Any] = []
        for number in range(6):
            if number % 3 == 0:
                results.append(
                    stack.enter_context(workers_at(server, 1, "stand_in_line", ALIAS, "1"))
                )
            elif number % 3 == 1:
                results.append(threads.submit(take_in_thread))
            else:
                results.append(threads.submit(lambda: asyncio.run(take_in_task())))
            until(partial(stand, server, number + 1, in_line))
        assert lease.release()
        tokens = [
            each.results()[0][0] if isinstance(each, Workers) else each.result(30)
            for each in results
        ]
    assert tokens == sorted(tokens)


@pytest.mark.usefixtures("store")
def test_newcomer_does_not_overtake(server: Server, threads: ThreadPoolExecutor) -> None:
    """Not even when the lock has just expired, before anybody has looked."""
    lease = acquire(ALIAS, ttl=0.3, renew=False)
    waits = threads.submit(acquire, ALIAS, timeout=30)
    until(lambda: waiting(server) == 1)
    while not waits.done():
        assert acquire_lock("a", backend=ALIAS) is None
    assert not lease.held
    assert waits.result().release()


@pytest.mark.usefixtures("store", "lasting_offers")
def test_hundreds_of_tasks_are_served_fairly(server: Server) -> None:
    """By a handful of threads."""
    grants: Counter[int] = Counter()
    most = 0

    async def work(number: int) -> None:
        nonlocal most
        for _ in range(3):
            async with distributed_lock("a", backend=ALIAS, timeout=60):
                grants[number] += 1
                most = max(most, max(grants.values()) - min(grants[each] for each in range(200)))

    async def main() -> int:
        lease = await aacquire_lock("a", backend=ALIAS)
        assert lease is not None
        tasks = [asyncio.create_task(work(number)) for number in range(200)]
        await asyncio.to_thread(until, lambda: waiting(server) == 200)
        running = threading.active_count()
        await lease.arelease()
        await asyncio.gather(*tasks)
        return running

    before = threading.active_count()
    assert run(main()) - before < AT_ONCE + 4  # who renews, who listens, and asyncio's own
    assert [*grants.values()] == [3] * 200
    assert most <= 1


def test_process_waits_for_many_semaphores_at_once(
    threads: ThreadPoolExecutor, store: RedisBackend
) -> None:
    """Each is handed on by itself, heard by one thread."""
    names = [f"lock {number}" for number in range(100)]
    leases = [acquire(ALIAS, name) for name in names]
    waits = [threads.submit(take, name) for name in names]
    until(lambda: len(listening.listener(store._servers.all()[0])._places) == len(names))
    for lease in reversed(leases):
        assert lease.release()
    assert [each.result(10) for each in waits]
    name = f"django_distlock listens to {store._servers.all()[0]}"
    assert [each.name for each in threading.enumerate()].count(name) == 1


def test_nodes_of_a_cluster_have_queues_of_their_own(threads: ThreadPoolExecutor) -> None:
    """A process waits at each of them."""
    store: Any = lock_backends["redis_cluster"]
    names = [f"lock {number}" for number in range(12)]
    assert len({str(store._servers.of(store._key(name))) for name in names}) == 3
    leases = [acquire("redis_cluster", name) for name in names]
    waits = [threads.submit(acquire, "redis_cluster", name, timeout=30) for name in names]
    until(lambda: all(queued(store, name) for name in names))
    before = clocks.monotonic()
    assert all(lease.release() for lease in leases)
    assert all(each.result(30).release() for each in waits)
    assert clocks.monotonic() - before < 4


def queued(store: Any, name: str) -> int:
    """Return how many wait for it."""
    key = store._keys(name)[2]
    [answer] = store._servers.of(key).ask_all([("ZCARD", key)], clocks.monotonic() + 2)
    return int(answer)


# Those who die


@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP])
def test_dead_process_costs_little_however_many_wait_in_it(
    server: Server, threads: ThreadPoolExecutor, fault: signal.Signals
) -> None:
    """The first who is alive is offered the lock next."""
    with shared_with_workers(server), workers_at(server, 1, "stand_in_line", ALIAS, "50") as dead:
        lease = acquire(ALIAS)
        until(lambda: in_line(server) == 50)
        waits = threads.submit(take)
        until(lambda: in_line(server) == 51)
        [process] = dead.processes
        strike(process, fault)
        released = time.monotonic_ns()
        assert lease.release()
        assert waits.result(30) - released < 20e9
        if fault == signal.SIGSTOP:  # and when it goes on, it is served
            process.send_signal(signal.SIGCONT)
            [tokens] = dead.results()
            assert len(tokens) == 50
        until(lambda: in_line(server) == 0)


@pytest.mark.usefixtures("lasting_offers")
def test_killed_process_is_passed_over_at_once(server: Server, threads: ThreadPoolExecutor) -> None:
    """Nothing is offered to who doesn't listen any more: that offer would last here."""
    with shared_with_workers(server), workers_at(server, 1, "stand_in_line", ALIAS, "5") as dead:
        lease = acquire(ALIAS)
        until(lambda: in_line(server) == 5)
        waits = threads.submit(take)
        until(lambda: in_line(server) == 6)
        [process] = dead.processes
        strike(process, signal.SIGKILL)
        with connect(server) as client:
            until(lambda: len(client.pubsub_channels("distlock:*")) == 1)
        assert lease.release()
        assert waits.result(30)


def test_dead_holders_lock_is_handed_on_when_its_ttl_ends(
    server: Server, threads: ThreadPoolExecutor
) -> None:
    """Not earlier, and soon."""
    with shared_with_workers(server), workers_at(server, 1, "hold", ALIAS, "1.5") as holders:
        [holder] = holders.processes
        holders.read(holder)
        waits = threads.submit(take, "held")
        strike(holder, signal.SIGKILL)
        with connect(server, 1) as client:
            left = client.pttl(key_of("held")) / 1000
            asked = time.monotonic_ns()
        assert left > 0.5
        assert left - 0.1 < (waits.result(30) - asked) / 1e9 < left + 1


# Those who leave


@pytest.mark.usefixtures("lasting_offers")
def test_lock_goes_to_the_next_when_who_is_offered_it_leaves(store: RedisBackend) -> None:
    """At once, and though both are of one process: that is alive."""
    lease = acquire(ALIAS)
    offered = [threading.Event() for _ in range(3)]
    places = [
        store.join("a", f"owner{number}", "", event.set) for number, event in enumerate(offered)
    ]
    assert lease.release()
    for number, (each, event) in enumerate(zip(places, offered, strict=True)):
        assert event.wait(30), number
        assert each is not None
        each.leave(granted=False)
    assert acquire_lock("a", backend=ALIAS)


@pytest.mark.usefixtures("lasting_offers")
def test_lock_goes_to_the_next_when_who_is_offered_it_gives_it_back(store: RedisBackend) -> None:
    """As one does whose try was answered too late."""
    lease = acquire(ALIAS)
    offered = [threading.Event() for _ in range(2)]
    places = [
        store.join("a", f"owner{number}", "", event.set) for number, event in enumerate(offered)
    ]
    assert lease.release()
    assert offered[0].wait(5)
    assert store.release(claim("a", "owner0"))
    assert offered[1].wait(30)
    for each in places:
        assert each is not None
        each.leave(granted=False)


@pytest.mark.usefixtures("lasting_offers")
@pytest.mark.parametrize("gives_back", ["leave", "release", "force_release"])
def test_line_forgets_who_was_offered_the_lock_last(store: RedisBackend, gives_back: str) -> None:
    """Who comes next, in the same process, isn't taken for one who let the offer pass."""
    lease = acquire(ALIAS)
    offered = [threading.Event() for _ in range(2)]
    first = store.join("a", "owner0", "", offered[0].set)
    assert first is not None
    assert lease.release()
    assert offered[0].wait(5)
    if gives_back == "leave":
        first.leave(granted=False)
    elif gives_back == "release":
        assert store.release(claim("a", "owner0"))
    else:
        [lock] = store.held()
        assert store.force_release("a", lock.token or 0)
    second = store.join("a", "owner1", "", offered[1].set)
    assert offered[1].wait(30)
    for each in (first, second):
        assert each is not None
        each.leave(granted=False)


def test_waiters_who_leave_as_they_are_offered_the_lock_leave_nothing(
    server: Server, threads: ThreadPoolExecutor, store: RedisBackend
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
        assert waiting(server) == 0
        assert [*store.held()] == []


def test_tasks_that_are_cancelled_as_they_are_offered_the_lock_leave_nothing(
    server: Server, store: RedisBackend
) -> None:
    """Likewise."""
    chance = random.Random(0)

    async def try_for() -> None:
        async with distributed_lock("a", backend=ALIAS, timeout=30):
            pass

    async def main() -> None:
        for _ in range(60):
            lease = await aacquire_lock("a", backend=ALIAS, timeout=5)
            assert lease
            tasks = [asyncio.create_task(try_for()) for _ in range(4)]
            await asyncio.sleep(chance.random() * 0.02)
            cancelling = asyncio.create_task(cancel(tasks))
            assert await lease.arelease()
            await asyncio.gather(cancelling, *tasks, return_exceptions=True)
            assert await asyncio.to_thread(waiting, server) == 0
            assert await asyncio.to_thread(lambda: [*store.held()]) == []

    async def cancel(tasks: list[asyncio.Task[None]]) -> None:
        for task in tasks[:3]:
            task.cancel()

    run(main())


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


@pytest.mark.parametrize("ttl", [60, None])
def test_task_that_is_cancelled_as_it_leaves_with_the_lock_leaves_nothing(
    server: Server, store: RedisBackend, monkeypatch: pytest.MonkeyPatch, ttl: float | None
) -> None:
    """It has been granted it, and nobody will ever know."""
    waits = cancelled_as_they_leave(monkeypatch)

    async def main() -> None:
        lease = await aacquire_lock("a", backend=ALIAS)
        assert lease is not None
        waits.append(asyncio.create_task(aacquire_lock("a", backend=ALIAS, timeout=30, ttl=ttl)))
        await asyncio.to_thread(until, lambda: waiting(server) == 1)
        assert await lease.arelease()
        with pytest.raises(asyncio.CancelledError):
            await waits[0]

    run(main())
    assert [*store.held()] == []
    assert waiting(server) == 0


def test_task_that_is_cancelled_again_as_it_leaves_leaves_nothing(
    server: Server, store: RedisBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a lock nor a place."""
    waits = cancelled_as_they_leave(monkeypatch)

    async def main() -> None:
        lease = await aacquire_lock("a", backend=ALIAS)
        assert lease is not None
        waits.append(asyncio.create_task(aacquire_lock("a", backend=ALIAS, timeout=30)))
        await asyncio.to_thread(until, lambda: waiting(server) == 1)
        waits[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await waits[0]
        assert await asyncio.to_thread(waiting, server) == 0
        assert await lease.arelease()

    run(main())
    assert [*store.held()] == []


def test_who_has_left_is_not_in_the_queue_though_it_was_joined_again(
    server: Server, store: RedisBackend
) -> None:
    """With the lock, in the meantime: it isn't taken from it."""
    place = cast("QueuedPlace", store.join("a", "owner", "", print))
    assert store.acquire("a", "owner", 60, "")
    place.leave(granted=True)
    place.offered = -math.inf  # as long ago
    listening.listener(store._servers.all()[0])._join_again([place])
    assert waiting(server) == 0
    assert store.release(claim("a", "owner"))


def test_task_whose_event_loop_is_closed_is_forgotten(server: Server, store: RedisBackend) -> None:
    """When it is its turn: the lock goes to the next."""
    lease = acquire(ALIAS)
    loop = asyncio.new_event_loop()
    waits = aacquire_lock("a", backend=ALIAS, timeout=60)
    task = loop.create_task(waits)
    while not waiting(server):
        loop.run_until_complete(asyncio.sleep(0.01))
    loop.close()
    heard = listening.listener(store._servers.all()[0])
    assert len(heard._places) == 1
    assert lease.release()
    assert acquire(ALIAS, timeout=30).release()
    until(lambda: not heard._places and not waiting(server))
    waits.close()  # as it is when it is collected
    task._log_destroy_pending = False  # type: ignore[attr-defined]


def test_join_that_is_not_answered_is_undone(server: Server, threads: ThreadPoolExecutor) -> None:
    """In the time that a call has; and nobody else waits for who isn't there."""
    with locks_of(server, store={"store_timeout": 0.5}) as store:
        lease = acquire(ALIAS)
        other = acquire(ALIAS, "b")
        wait = threads.submit(take)  # so that somebody listens
        until(lambda: waiting(server) == 1)
        with server.paused():
            before = clocks.monotonic()
            with pytest.raises(LockBackendUnavailable):
                store.join("b", "owner", "", print)
            assert clocks.monotonic() - before < 5
        assert lease.release()
        with suppress(LockBackendUnavailable):  # the look at the queue may have found that, too
            wait.result(30)
        until(lambda: waiting(server, "b") == 0)
        assert other.release()
        assert acquire(ALIAS, "b", timeout=0).release()


@pytest.mark.usefixtures("lasting_offers")
def test_offer_that_was_not_heard_is_found_out(
    server: Server,
    store: RedisBackend,
    threads: ThreadPoolExecutor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At the next look, long before the offer ends."""
    lease = acquire(ALIAS)
    wait = threads.submit(take)
    until(lambda: waiting(server) == 1)
    heard: list[int] = []

    def miss(self: listening.Listener, number: int) -> None:
        heard.append(number)
        if len(heard) > 1:
            offer(self, number)

    offer = listening.Listener._offer
    monkeypatch.setattr(listening.Listener, "_offer", miss)
    assert lease.release()
    assert wait.result(30)
    assert len(heard) == 2


def test_who_missed_an_offer_for_good_joins_again(
    server: Server, store: RedisBackend, threads: ThreadPoolExecutor
) -> None:
    """His process counted as silent then, but does so no more."""
    lease = acquire(ALIAS)
    waits = [threads.submit(take) for _ in range(3)]
    until(lambda: waiting(server) == 3)
    with connect(server) as client:
        [first, *_] = client.zrange(f"{key_of()}:queue", 0, 0)
        channel = first.split()[0]
        client.zadd(f"{key_of()}:queue", {channel: 0})  # as if it had been offered the lock
    assert lease.release()
    assert [each.result(30) for each in waits]
    until(lambda: waiting(server) == 0)


def test_user_who_may_not_publish_releases_all_the_same(
    server: Server, threads: ThreadPoolExecutor
) -> None:
    """Who waits as another user finds out at his next look."""
    with connect(server) as client:
        client.acl_setuser(
            "mute", enabled=True, passwords=["+secret"], keys=["*"], channels=[], commands=["+@all"]
        )
    try:
        with locks_of(server) as store, ExitStack() as stack:
            lease = acquire(ALIAS)
            wait = threads.submit(take)
            until(lambda: waiting(server) == 1)
            location = f"redis://mute:secret@{HOST}:{place(server)[1]}/0"
            mute = stack.enter_context(locks_at("", location=location))
            assert mute is not store
            assert mute.release(claim("a", str(lease.owner)))
            assert wait.result(30)
            assert lease.release() is False
    finally:
        with connect(server) as client:
            client.acl_deluser("mute")


# Connections and servers that fail


@pytest.mark.usefixtures("store")
def test_who_waits_is_told_though_the_connection_to_listen_was_lost(
    server: Server, threads: ThreadPoolExecutor
) -> None:
    """The line is as it was."""
    lease = acquire(ALIAS)
    waits = []
    for number in range(5):
        waits.append(threads.submit(take))
        until(partial(stand, server, number + 1))
    with connect(server) as client:
        client.client_kill_filter(_type="pubsub")
    released = time.monotonic_ns()
    assert lease.release()
    times = [each.result(30) for each in waits]
    assert max(times) - released < 4e9
    until(lambda: waiting(server) == 0)


class ForgettingProxy(LossyProxy):
    """Loses the server's end of the first connection on which somebody listens, who isn't told."""

    forgets = 1

    def _pass_on(self, client: socket.socket, server: socket.socket, reset: int | None) -> None:
        for source, data in _chunks(client, server):
            if self.forgets and b"SUBSCRIBE" in data:
                self.forgets -= 1
                server.sendall(data)
                client.sendall(server.recv(65536))
                server.close()
                assert not client.recv(65536)  # when the client closes it
                return
            (client if source is server else server).sendall(data)


def test_process_that_the_server_has_lost_listens_anew(
    server: Server, threads: ThreadPoolExecutor
) -> None:
    """Though nothing tells it, but that it is dropped from the queue."""
    with ForgettingProxy(*place(server)) as proxy, locks_at(proxy.port), connect(server) as client:
        lease = acquire(ALIAS)
        wait = threads.submit(take)
        until(lambda: waiting(server) == 1 and not client.pubsub_channels())
        assert lease.release()  # to nobody
        until(lambda: wait.done() or len(client.pubsub_channels()) == 1)
        assert wait.result(30)
        with distributed_lock("a", backend=ALIAS):
            wait = threads.submit(take)
            until(lambda: waiting(server) == 1 and len(client.pubsub_channels()) == 1)
        assert wait.result(30)


def test_who_could_not_leave_leaves_later(server: Server, threads: ThreadPoolExecutor) -> None:
    """Or else the lock would be offered to nobody, and the others of its process pay for that."""
    with LossyProxy(*place(server)) as proxy, locks_at(proxy.port):
        lease = acquire(ALIAS)
        stays = threads.submit(take)
        until(lambda: waiting(server) == 1)
        proxy.lose_requests(scripts.LEAVE.digest.encode(), 1)
        assert elsewhere(lambda: acquire_lock("a", backend=ALIAS, timeout=0.3)) is None
        assert proxy.losses == 0
        until(lambda: waiting(server) == 1)
        assert not stays.done()
        assert lease.release()
        assert stays.result(30)


def test_who_waits_is_told_when_the_server_is_killed(
    server: Server, threads: ThreadPoolExecutor, store: RedisBackend
) -> None:
    """And who comes when it is back waits as ever."""

    async def take_in_task() -> None:
        await aacquire_lock("a", backend=ALIAS, timeout=30)

    acquire(ALIAS, renew=False).let_end()
    waits: list[Future[Any]] = [threads.submit(take) for _ in range(5)]
    waits.append(threads.submit(lambda: run(take_in_task())))
    until(lambda: waiting(server) == 6)
    killed = time.monotonic_ns()
    server.kill()
    try:
        for each in waits:
            with pytest.raises(LockBackendUnavailable):
                each.result(30)
        assert time.monotonic_ns() - killed < 4e9
    finally:
        server.start()
    with distributed_lock("b", backend=ALIAS):
        wait = threads.submit(take, "b")
        until(lambda: waiting(server, "b") == 1)
        released = time.monotonic_ns()
    assert wait.result(30) - released < 4e9


def test_who_waits_is_told_when_the_server_answers_nothing(
    server: Server, threads: ThreadPoolExecutor
) -> None:
    """In the time that a call has, and that until the next look at the queue."""
    with locks_of(server, store={"store_timeout": 0.3}):
        lease = acquire(ALIAS, renew=False)
        waits = [threads.submit(take) for _ in range(5)]
        until(lambda: waiting(server) == 5)
        before = clocks.monotonic()
        with server.paused():
            for each in waits:
                with pytest.raises(LockBackendUnavailable):
                    each.result(30)
            assert clocks.monotonic() - before < 4
        assert lease.release()
        until(lambda: waiting(server) == 0)
        assert acquire(ALIAS, timeout=10).release()


def test_server_that_nobody_waits_for_is_no_matter(
    store: RedisBackend, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """That it can't be listened to is logged only if somebody waits."""
    monkeypatch.setattr(listening, "PAUSE", 0)
    [node] = store._servers.all()
    listening.Listener(node)._fail(LockBackendUnavailable("it is down"))
    assert not caplog.records


def test_who_is_granted_the_lock_as_the_server_fails_need_not_leave_later(
    store: RedisBackend,
) -> None:
    """The grant has taken him out of the queue."""
    waiter = cast("QueuedPlace", store.join("a", "owner", "", print))
    assert store.acquire("a", "owner", 60, "")
    waiter.failure = LockBackendUnavailable("it was down for a moment")
    waiter.leave(granted=True)
    assert waiter not in waiter._listener._left


def test_who_waits_asks_again_and_again_when_nobody_may_listen_any_more(
    store: RedisBackend, caplog: pytest.LogCaptureFixture
) -> None:
    """As when the user's rights are taken away meanwhile."""
    lease = acquire(ALIAS)
    woken: list[str] = []
    waiter = cast("QueuedPlace", store.join("a", "owner", "", lambda: woken.append("yes")))
    another = listening.Listener(waiter._listener._node)
    another._places[waiter.number] = waiter
    another._refuse()
    waiter.leave(granted=False)
    assert lease.release()
    assert waiter.alone
    assert "yes" in woken
    assert "lets nobody listen" in caplog.text


def test_who_comes_when_the_server_answers_nothing_is_told(server: Server) -> None:
    """Also if he is the first for whom this process would listen."""
    with locks_of(server, store={"store_timeout": 0.3}) as store, server.paused():
        with pytest.raises(LockBackendUnavailable, match="can't listen"):
            store.join("a", "owner", "", print)


@pytest.mark.usefixtures("store")
def test_who_waits_joins_again_when_the_queue_is_lost(
    server: Server, threads: ThreadPoolExecutor
) -> None:
    """Alone, or with all else: then the lock is free."""
    lease = acquire(ALIAS)
    waits = [threads.submit(take) for _ in range(5)]
    until(lambda: waiting(server) == 5)
    with connect(server) as client:
        client.delete(f"{key_of()}:queue")
        until(lambda: waiting(server) == 5)
        flushed = time.monotonic_ns()
        client.flushall()
    times = [each.result(30) for each in waits]
    assert max(times) - flushed < 4e9
    assert lease.release() is False


def test_user_who_may_not_subscribe_asks_again_and_again(
    server: Server, threads: ThreadPoolExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    """He gets the lock all the same."""

    async def take_in_task() -> int | None:
        async with distributed_lock("a", backend=ALIAS, timeout=30) as lease:
            return lease.token

    with connect(server) as client:
        client.acl_setuser(
            "modest",
            enabled=True,
            passwords=["+secret"],
            keys=["*"],
            channels=[],
            commands=["+@all"],
        )
    location = f"redis://modest:secret@{HOST}:{place(server)[1]}/0"
    try:
        with locks_at("", location=location):
            lease = acquire(ALIAS)
            waits: list[Future[Any]] = [
                threads.submit(take),
                threads.submit(lambda: run(take_in_task())),
            ]
            until(lambda: "lets nobody listen" in caplog.text)
            assert lease.release()
            assert all(each.result(30) for each in waits)
            many = [threads.submit(take) for _ in range(50)]
            assert all(each.result(30) for each in many)
            assert caplog.text.count("lets nobody listen") == 1
    finally:
        with connect(server) as client:
            client.acl_deluser("modest")


@pytest.mark.usefixtures("store")
def test_forked_child_listens_itself(server: Server, threads: ThreadPoolExecutor) -> None:
    """Its parent goes on to."""

    def wait_in_child() -> None:
        assert take()

    with distributed_lock("b", backend=ALIAS):
        lease = acquire(ALIAS)
        first = threads.submit(take)
        until(lambda: waiting(server) == 1)
        with forked(wait_in_child):
            until(lambda: waiting(server) == 2)
            last = threads.submit(take)
            until(lambda: waiting(server) == 3)
            assert lease.release()
            assert first.result(30) < last.result(30)


@pytest.mark.usefixtures("store")
def test_who_comes_as_the_listener_ends_is_heard(
    server: Server,
    threads: ThreadPoolExecutor,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It goes on for him, or another one begins."""
    monkeypatch.setattr(listening, "IDLE", 0)
    for _ in range(50):
        lease = acquire(ALIAS, timeout=30)
        wait = threads.submit(take)
        until(lambda: waiting(server) == 1)
        assert lease.release()
        assert wait.result(30)
    assert caplog.text == ""


def test_who_waits_where_the_lock_is_no_more_asks_again_and_again(
    server: Server,
    store: RedisBackend,
    threads: ThreadPoolExecutor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The node of a cluster that has it by now knows nothing of the queue."""
    lease = acquire(ALIAS)
    wait = threads.submit(take)
    until(lambda: waiting(server) == 1)
    [place] = listening.listener(store._servers.all()[0])._places.values()
    say_when_looked_at(monkeypatch, ServerError("MOVED 1 127.0.0.1:1", "MOVED"))
    until(lambda: place.alone)
    assert place.patience == listening.ALONE
    with connect(server) as client:
        client.delete(f"{key_of()}:queue")
    assert lease.release()
    assert wait.result(30)


def test_who_waits_is_told_what_the_server_says_of_the_queue(
    server: Server,
    store: RedisBackend,
    threads: ThreadPoolExecutor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It can't be asked any more, nobody knows for how long."""
    lease = acquire(ALIAS)
    wait = threads.submit(take)
    until(lambda: waiting(server) == 1)
    say_when_looked_at(monkeypatch, ServerError("LOADING it reads its disk", "LOADING"))
    with pytest.raises(LockBackendUnavailable, match="LOADING"):
        wait.result(30)
    assert lease.release()


def say_when_looked_at(monkeypatch: pytest.MonkeyPatch, answer: ServerError) -> None:
    """Let the server say so of each queue that is looked at."""
    ask_all = listening.Listener._ask_all

    def ask(self: listening.Listener, script: Script, places: list[QueuedPlace]) -> list[Any]:
        answers = ask_all(self, script, places)
        return [answer] * len(places) if script is scripts.LOOK else answers

    monkeypatch.setattr(listening.Listener, "_ask_all", ask)


# Ends of leases


@pytest.mark.parametrize("ttl", [0.2, 3, None])
@pytest.mark.usefixtures("store")
def test_any_ttl_can_be_waited_with(
    server: Server, threads: ThreadPoolExecutor, ttl: float | None
) -> None:
    """It counts from when the lock is taken, not from when it is offered."""
    lease = acquire(ALIAS)
    waits = [threads.submit(acquire, ALIAS, timeout=30, ttl=ttl, renew=False) for _ in range(10)]
    until(lambda: waiting(server) == 10)
    assert lease.release()
    began = clocks.monotonic()
    remaining: set[Future[Lease]] = {*waits}
    while remaining:
        for each in [each for each in remaining if each.done()]:
            each.result().release()
            remaining.remove(each)
    assert clocks.monotonic() - began < 4


@pytest.mark.usefixtures("store")
def test_nobody_is_handed_the_lock_before_min_hold_is_over(
    server: Server, threads: ThreadPoolExecutor
) -> None:
    """Though it was released."""
    before = time.monotonic_ns()
    lease = acquire(ALIAS, min_hold=1)
    waits = threads.submit(take)
    until(lambda: waiting(server) == 1)
    assert lease.release()
    assert 1e9 <= waits.result(30) - before < 4e9


@pytest.mark.usefixtures("store", "lasting_offers")
def test_force_released_lock_is_handed_on(server: Server, threads: ThreadPoolExecutor) -> None:
    """At once, to the first in line: it is never free."""
    lease = acquire(ALIAS, ttl=None)
    waits = threads.submit(acquire, ALIAS, timeout=30)
    until(lambda: waiting(server) == 1)
    take_away(lease)
    with connect(server) as client:
        assert client.exists(key_of())
    assert waits.result(30).release()
    assert lease.release() is False


# Cost


@pytest.mark.parametrize(("ttl", "most"), [(60, 2), (0.6, 10)])
@pytest.mark.usefixtures("store")
def test_waiting_costs_few_commands(
    server: Server, threads: ThreadPoolExecutor, ttl: float, most: int
) -> None:
    """Per second and waiter, while a lock is held for long."""
    with distributed_lock("a", backend=ALIAS, ttl=ttl):
        waits = [threads.submit(acquire_lock, "a", backend=ALIAS, timeout=3) for _ in range(32)]
        until(lambda: waiting(server) == 32)
        with commands(server) as seen:
            time.sleep(1)
        [*map(str, waits)]
    assert seen.total() / 32 < most
    for each in waits:
        if lease := each.result(30):
            lease.release()


@pytest.mark.usefixtures("store")
def test_wait_ends_at_its_timeout(server: Server) -> None:
    """And leaves no trace."""
    with distributed_lock("a", backend=ALIAS):
        with pytest.raises(LockNotAcquired):
            elsewhere(lambda: take(timeout=0.2))
        assert waiting(server) == 0
