"""What only waiters in Redis have to see to, and what they cost. test_queues.py has the rest."""

from __future__ import annotations

import math
import threading
import time
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import pytest

from django_distlock import (
    LockBackendUnavailable,
    aacquire_lock,
    acquire_lock,
    clocks,
    distributed_lock,
    lock_backends,
)
from django_distlock.backends.redis import listening, scripts
from django_distlock.backends.wires import ServerError
from django_distlock.leases import Extension
from tests.support.concurrency import elsewhere, run, until
from tests.support.holders import acquire
from tests.support.lossy_proxy import LossyProxy, chunks
from tests.support.ports import HOST
from tests.support.redis_servers import connect, place
from tests.support.redis_stores import (
    ALIAS,
    commands,
    key_of,
    lasting_offers,
    locks_at,
    locks_of,
    waiting,
)

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator
    from concurrent.futures import Future, ThreadPoolExecutor

    from django_distlock.backends.redis.backend import RedisBackend
    from django_distlock.backends.redis.listening import QueuedPlace
    from django_distlock.backends.redis.scripts import Script
    from tests.support.servers import Server

pytestmark = pytest.mark.needs("redis", "redis_cluster")


@pytest.fixture
def store(redis_server: Server) -> Iterator[RedisBackend]:
    """Let the locks be in a server of our own."""
    with locks_of(redis_server) as running:
        yield running


def stand(server: Server, number: int) -> bool:
    """Tell whether so many wait."""
    return waiting(server) == number


def take(semaphore: str = "a", **arguments: Any) -> float:
    """Wait for the lock, and give it back at once; return when it was granted."""
    with distributed_lock(semaphore, backend=ALIAS, **{"timeout": 30, **arguments}):
        return time.monotonic_ns()


def claim(semaphore: str, owner: str) -> Extension:
    """Return the claim of an owner who has no lease yet."""
    return Extension(semaphore, owner, 60)


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


# Those who leave


@lasting_offers()
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


@lasting_offers()
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


def test_who_has_left_is_not_in_the_queue_though_it_was_joined_again(
    redis_server: Server, store: RedisBackend
) -> None:
    """With the lock, in the meantime: it isn't taken from it."""
    place = cast("QueuedPlace", store.join("a", "owner", "", print))
    assert store.acquire("a", "owner", 60, "")
    place.leave(granted=True)
    place.offered = -math.inf  # as long ago
    listening.listener(store._servers.all()[0])._join_again([place])
    assert waiting(redis_server) == 0
    assert store.release(claim("a", "owner"))


@lasting_offers()
def test_offer_that_was_not_heard_is_found_out(
    redis_server: Server,
    store: RedisBackend,
    threads: ThreadPoolExecutor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At the next look, long before the offer ends."""
    lease = acquire(ALIAS)
    wait = threads.submit(take)
    until(lambda: waiting(redis_server) == 1)
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
    redis_server: Server, store: RedisBackend, threads: ThreadPoolExecutor
) -> None:
    """His process counted as silent then, but does so no more."""
    lease = acquire(ALIAS)
    waits = [threads.submit(take) for _ in range(3)]
    until(lambda: waiting(redis_server) == 3)
    with connect(redis_server) as client:
        [first, *_] = client.zrange(f"{key_of()}:queue", 0, 0)
        channel = first.split()[0]
        client.zadd(f"{key_of()}:queue", {channel: 0})  # as if it had been offered the lock
    assert lease.release()
    assert [each.result(30) for each in waits]
    until(lambda: waiting(redis_server) == 0)


def test_user_who_may_not_publish_releases_all_the_same(
    redis_server: Server, threads: ThreadPoolExecutor
) -> None:
    """Who waits as another user finds out at his next look."""
    with connect(redis_server) as client:
        client.acl_setuser(
            "mute", enabled=True, passwords=["+secret"], keys=["*"], channels=[], commands=["+@all"]
        )
    try:
        with locks_of(redis_server) as store, ExitStack() as stack:
            lease = acquire(ALIAS)
            wait = threads.submit(take)
            until(lambda: waiting(redis_server) == 1)
            location = f"redis://mute:secret@{HOST}:{place(redis_server)[1]}/0"
            mute = stack.enter_context(locks_at("", location=location))
            assert mute is not store
            assert mute.release(claim("a", str(lease.owner)))
            assert wait.result(30)
            assert lease.release() is False
    finally:
        with connect(redis_server) as client:
            client.acl_deluser("mute")


# Connections and servers that fail


@pytest.mark.usefixtures("store")
def test_who_waits_is_told_though_the_connection_to_listen_was_lost(
    redis_server: Server, threads: ThreadPoolExecutor
) -> None:
    """The line is as it was."""
    lease = acquire(ALIAS)
    waits = []
    for number in range(5):
        waits.append(threads.submit(take))
        until(partial(stand, redis_server, number + 1))
    with connect(redis_server) as client:
        client.client_kill_filter(_type="pubsub")
    released = time.monotonic_ns()
    assert lease.release()
    times = [each.result(30) for each in waits]
    assert max(times) - released < 4e9
    until(lambda: waiting(redis_server) == 0)


class ForgettingProxy(LossyProxy):
    """Loses the server's end of the first connection on which somebody listens, who isn't told."""

    forgets = 1

    def _pass_on(self, client: socket.socket, server: socket.socket, reset: int | None) -> None:
        for source, data in chunks(client, server):
            if self.forgets and b"SUBSCRIBE" in data:
                self.forgets -= 1
                server.sendall(data)
                client.sendall(server.recv(65536))
                server.close()
                assert not client.recv(65536)  # when the client closes it
                return
            (client if source is server else server).sendall(data)


def test_process_that_the_server_has_lost_listens_anew(
    redis_server: Server, threads: ThreadPoolExecutor
) -> None:
    """Though nothing tells it, but that it is dropped from the queue."""
    with (
        ForgettingProxy(*place(redis_server)) as proxy,
        locks_at(proxy.port),
        connect(redis_server) as client,
    ):
        lease = acquire(ALIAS)
        wait = threads.submit(take)
        until(lambda: waiting(redis_server) == 1 and not client.pubsub_channels())
        assert lease.release()  # to nobody
        until(lambda: wait.done() or len(client.pubsub_channels()) == 1)
        assert wait.result(30)
        with distributed_lock("a", backend=ALIAS):
            wait = threads.submit(take)
            until(lambda: waiting(redis_server) == 1 and len(client.pubsub_channels()) == 1)
        assert wait.result(30)


def test_who_could_not_leave_leaves_later(
    redis_server: Server, threads: ThreadPoolExecutor
) -> None:
    """Or else the lock would be offered to nobody, and the others of its process pay for that."""
    with LossyProxy(*place(redis_server)) as proxy, locks_at(proxy.port):
        lease = acquire(ALIAS)
        stays = threads.submit(take)
        until(lambda: waiting(redis_server) == 1)
        proxy.lose_requests(scripts.LEAVE.digest.encode(), 1)
        assert elsewhere(lambda: acquire_lock("a", backend=ALIAS, timeout=0.3)) is None
        assert proxy.losses == 0
        until(lambda: waiting(redis_server) == 1)
        assert not stays.done()
        assert lease.release()
        assert stays.result(30)


def test_who_waits_is_told_when_the_server_is_killed(
    redis_server: Server, threads: ThreadPoolExecutor, store: RedisBackend
) -> None:
    """And who comes when it is back waits as ever."""

    async def take_in_task() -> None:
        await aacquire_lock("a", backend=ALIAS, timeout=30)

    acquire(ALIAS, renew=False).leave_behind()
    waits: list[Future[Any]] = [threads.submit(take) for _ in range(5)]
    waits.append(threads.submit(lambda: run(take_in_task())))
    until(lambda: waiting(redis_server) == 6)
    killed = time.monotonic_ns()
    redis_server.kill()
    try:
        for each in waits:
            with pytest.raises(LockBackendUnavailable):
                each.result(30)
        assert time.monotonic_ns() - killed < 4e9
    finally:
        redis_server.start()
    with distributed_lock("b", backend=ALIAS):
        wait = threads.submit(take, "b")
        until(lambda: waiting(redis_server, "b") == 1)
        released = time.monotonic_ns()
    assert wait.result(30) - released < 4e9


def test_who_waits_is_told_when_the_server_answers_nothing(
    redis_server: Server, threads: ThreadPoolExecutor
) -> None:
    """In the time that a call has, and that until the next look at the queue."""
    with locks_of(redis_server, store={"store_timeout": 0.3}):
        lease = acquire(ALIAS, renew=False)
        waits = [threads.submit(take) for _ in range(5)]
        until(lambda: waiting(redis_server) == 5)
        before = clocks.monotonic()
        with redis_server.paused():
            for each in waits:
                with pytest.raises(LockBackendUnavailable):
                    each.result(30)
            assert clocks.monotonic() - before < 4
        assert lease.release()
        until(lambda: waiting(redis_server) == 0)
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


def test_who_comes_when_the_server_answers_nothing_is_told(redis_server: Server) -> None:
    """Also if he is the first for whom this process would listen."""
    with locks_of(redis_server, store={"store_timeout": 0.3}) as store, redis_server.paused():
        with pytest.raises(LockBackendUnavailable, match="can't listen"):
            store.join("a", "owner", "", print)


@pytest.mark.usefixtures("store")
def test_who_waits_joins_again_when_the_queue_is_lost(
    redis_server: Server, threads: ThreadPoolExecutor
) -> None:
    """Alone, or with all else: then the lock is free."""
    lease = acquire(ALIAS)
    waits = [threads.submit(take) for _ in range(5)]
    until(lambda: waiting(redis_server) == 5)
    with connect(redis_server) as client:
        client.delete(f"{key_of()}:queue")
        until(lambda: waiting(redis_server) == 5)
        flushed = time.monotonic_ns()
        client.flushall()
    times = [each.result(30) for each in waits]
    assert max(times) - flushed < 4e9
    assert lease.release() is False


def test_user_who_may_not_subscribe_asks_again_and_again(
    redis_server: Server, threads: ThreadPoolExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    """He gets the lock all the same."""

    async def take_in_task() -> int | None:
        async with distributed_lock("a", backend=ALIAS, timeout=30) as lease:
            return lease.token

    with connect(redis_server) as client:
        client.acl_setuser(
            "modest",
            enabled=True,
            passwords=["+secret"],
            keys=["*"],
            channels=[],
            commands=["+@all"],
        )
    location = f"redis://modest:secret@{HOST}:{place(redis_server)[1]}/0"
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
        with connect(redis_server) as client:
            client.acl_deluser("modest")


def test_who_waits_where_the_lock_is_no_more_asks_again_and_again(
    redis_server: Server,
    store: RedisBackend,
    threads: ThreadPoolExecutor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The node of a cluster that has it by now knows nothing of the queue."""
    lease = acquire(ALIAS)
    wait = threads.submit(take)
    until(lambda: waiting(redis_server) == 1)
    [place] = listening.listener(store._servers.all()[0])._places.values()
    say_when_looked_at(monkeypatch, ServerError("MOVED 1 127.0.0.1:1", "MOVED"))
    until(lambda: place.alone)
    assert place.patience == listening.ALONE
    with connect(redis_server) as client:
        client.delete(f"{key_of()}:queue")
    assert lease.release()
    assert wait.result(30)


def test_who_waits_is_told_what_the_server_says_of_the_queue(
    redis_server: Server,
    store: RedisBackend,
    threads: ThreadPoolExecutor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It can't be asked any more, nobody knows for how long."""
    lease = acquire(ALIAS)
    wait = threads.submit(take)
    until(lambda: waiting(redis_server) == 1)
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


# Cost


@pytest.mark.parametrize(("ttl", "most"), [(60, 2), (0.6, 10)])
@pytest.mark.usefixtures("store")
def test_waiting_costs_few_commands(
    redis_server: Server, threads: ThreadPoolExecutor, ttl: float, most: int
) -> None:
    """Per second and waiter, while a lock is held for long."""
    with distributed_lock("a", backend=ALIAS, ttl=ttl):
        waits = [threads.submit(acquire_lock, "a", backend=ALIAS, timeout=3) for _ in range(32)]
        until(lambda: waiting(redis_server) == 32)
        with commands(redis_server) as seen:
            time.sleep(1)
        [*map(str, waits)]
    assert seen.total() / 32 < most
    for each in waits:
        if lease := each.result(30):
            lease.release()
