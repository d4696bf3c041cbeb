"""What only waiters in Redis have to see to, and what they cost.

tests/contract/test_queues.py has what holds for all stores.
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import pytest
from redis import RedisCluster

from django_distlock import (
    LockBackendUnavailable,
    aacquire_lock,
    acquire_lock,
    clocks,
    distributed_lock,
)
from django_distlock.backends.redis import listening, scripts
from django_distlock.backends.redis.connections import Node
from django_distlock.backends.wires import ServerError
from django_distlock.leases import Extension
from tests.support.concurrency import elsewhere, run, until
from tests.support.holders import acquire
from tests.support.lossy_proxy import LossyProxy, chunks
from tests.support.ports import HOST
from tests.support.redis_servers import connect, node_of, place
from tests.support.redis_stores import (
    ALIAS,
    commands,
    hurry,
    key_of,
    lasting_offers,
    locks_at,
    locks_of,
    name_of,
    waiting,
)

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator
    from concurrent.futures import Future, ThreadPoolExecutor

    from django_distlock.backends.redis.backend import RedisBackend
    from django_distlock.backends.redis.listening import QueuedPlace
    from tests.support.redis_servers import Cluster
    from tests.support.servers import Server

pytestmark = [pytest.mark.needs("redis"), pytest.mark.once]


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


def join(store: RedisBackend, semaphore: str, owner: str, wake: Any = print) -> QueuedPlace:
    """Stand in the queue of a lock."""
    place = store.join(semaphore, owner, "", wake)
    assert place is not None
    return cast("QueuedPlace", place)


@contextmanager
def user(server: Server, name: str, *rules: str) -> Iterator[str]:
    """Let the server have a user who may do all but what these rules take away; return where."""
    rights = [">secret", "~*", "&*", "+@all", *rules]
    with connect(server) as client:
        client.execute_command("ACL SETUSER", name, "on", *rights)
        try:
            yield f"redis://{name}:secret@{HOST}:{server.port}/0"
        finally:
            client.acl_deluser(name)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return what Redis is asked: a script's digest, or a command's name."""
    found: list[Any] = []
    ask_all = Node.ask_all

    def note_and_ask(node: Node, requests: Any, *arguments: Any) -> list[Any]:
        answers = ask_all(node, requests, *arguments)
        found.extend(name_of(request) for request in requests)
        return answers

    monkeypatch.setattr(Node, "ask_all", note_and_ask)
    return found


@pytest.fixture
def untiring(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody who waits try by himself: he gets the lock if he is told, or not at all."""
    monkeypatch.setattr(listening, "SAFETY", 1_000)


@pytest.mark.needs("redis_cluster")
@pytest.mark.usefixtures("untiring")
def test_nodes_of_a_cluster_have_queues_of_their_own(
    redis_cluster: Cluster, threads: ThreadPoolExecutor
) -> None:
    """A process waits at each of them."""
    alias, names = "redis_cluster", [f"lock {number}" for number in range(12)]
    with RedisCluster(*place(redis_cluster.nodes[0])) as client:

        def is_waited_for(name: str) -> bool:
            return bool(client.zcard(f"{key_of(name, prefix='')}:queue"))

        assert len({node_of(client, key_of(name, prefix="")) for name in names}) == 3
        leases = [acquire(alias, name) for name in names]
        waits = [threads.submit(acquire, alias, name, timeout=60) for name in names]
        until(lambda: all(is_waited_for(name) for name in names))
        assert all(lease.release() for lease in leases)
        assert all(each.result(30).release() for each in waits)


# Those who leave


@lasting_offers()
def test_lock_goes_to_the_next_when_who_is_offered_it_gives_it_back(
    redis_store: RedisBackend,
) -> None:
    """As one does whose try was answered too late."""
    lease = acquire(ALIAS)
    offered = [threading.Event() for _ in range(2)]
    places = [
        join(redis_store, "a", f"owner{number}", event.set) for number, event in enumerate(offered)
    ]
    assert lease.release()
    assert offered[0].wait(30)
    assert redis_store.release(claim("a", "owner0"))
    assert offered[1].wait(30)
    for each in places:
        each.leave(granted=False)


@lasting_offers()
@pytest.mark.parametrize("gives_back", ["leave", "release", "force_release"])
def test_line_forgets_who_was_offered_the_lock_last(
    redis_store: RedisBackend, gives_back: str
) -> None:
    """Who comes next, in the same process, isn't taken for one who let the offer pass."""
    lease = acquire(ALIAS)
    offered = [threading.Event() for _ in range(2)]
    first = join(redis_store, "a", "owner0", offered[0].set)
    assert lease.release()
    assert offered[0].wait(30)
    if gives_back == "leave":
        first.leave(granted=False)
    elif gives_back == "release":
        assert redis_store.release(claim("a", "owner0"))
    else:
        [lock] = redis_store.held()
        assert redis_store.force_release("a", lock.token or 0)
    second = join(redis_store, "a", "owner1", offered[1].set)
    assert offered[1].wait(30)
    for each in (first, second):
        each.leave(granted=False)


def test_who_has_left_is_not_in_the_queue_though_it_was_joined_again(
    redis_server: Server,
    redis_store: RedisBackend,
    asked: list[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With the lock, in the meantime: it isn't taken from it."""
    assert redis_store.acquire("a", "holder", 60, "")
    waiter = join(redis_store, "a", "owner")
    ask_all, joins_again = Node.ask_all, threading.Lock()

    def leave_and_ask(node: Node, requests: Any, *arguments: Any) -> list[Any]:
        joins = name_of(requests[0]) == scripts.JOIN.digest
        if joins and joins_again.acquire(blocking=False):
            assert redis_store.release(claim("a", "holder"))
            assert redis_store.acquire("a", "owner", 60, "")
            waiter.leave(granted=True)
            assert redis_store.release(claim("a", "owner"))
            assert redis_store.acquire("a", "another", 60, "")
        return ask_all(node, requests, *arguments)

    monkeypatch.setattr(Node, "ask_all", leave_and_ask)
    with connect(redis_server) as client:
        client.client_kill_filter(_type="pubsub")
    until(lambda: "ZREM" in asked)
    assert asked.count(scripts.JOIN.digest) == 2
    assert waiting(redis_server) == 0
    assert redis_store.release(claim("a", "another"))


def test_who_missed_an_offer_for_good_joins_again(
    redis_server: Server, redis_store: RedisBackend, threads: ThreadPoolExecutor
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


@lasting_offers()
def test_offer_that_is_not_heard_is_found_out_at_the_next_look(
    redis_server: Server, redis_store: RedisBackend, threads: ThreadPoolExecutor
) -> None:
    """Long before it ends: who releases may be a user who may not publish."""
    with user(redis_server, "mute", "resetchannels") as location:
        lease = acquire(ALIAS)
        wait = threads.submit(take)
        until(lambda: waiting(redis_server) == 1)
        with locks_at("", location=location) as mute:
            assert mute is not redis_store
            assert mute.release(claim("a", str(lease.owner)))
            assert wait.result(30)
            assert lease.release() is False


# Connections and servers that fail


@pytest.mark.usefixtures("redis_store", "untiring")
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
    assert lease.release()
    assert all(each.result(30) for each in waits)
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


@pytest.mark.usefixtures("untiring")
def test_who_waits_is_told_when_the_server_is_killed(
    redis_server: Server, redis_store: RedisBackend, threads: ThreadPoolExecutor
) -> None:
    """And who comes when it is back waits as ever."""

    async def take_in_task() -> None:
        await aacquire_lock("a", backend=ALIAS, timeout=30)

    acquire(ALIAS, renew=False).leave_behind()
    waits: list[Future[Any]] = [threads.submit(take) for _ in range(5)]
    waits.append(threads.submit(lambda: run(take_in_task())))
    until(lambda: waiting(redis_server) == 6)
    redis_server.kill()
    try:
        for each in waits:
            with pytest.raises(LockBackendUnavailable):
                each.result(60)
    finally:
        redis_server.start()
    with distributed_lock("b", backend=ALIAS):
        wait = threads.submit(take, "b")
        until(lambda: waiting(redis_server, "b") == 1)
    assert wait.result(30)


@pytest.mark.usefixtures("untiring")
def test_who_waits_is_told_when_the_server_answers_nothing(
    redis_server: Server, threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the time that a call has, and that until the next look at the queue."""
    with locks_of(redis_server, store={"store_timeout": 20}):
        lease = acquire(ALIAS, renew=False)
        waits = [threads.submit(take) for _ in range(5)]
        until(lambda: waiting(redis_server) == 5)
        with redis_server.paused(), monkeypatch.context() as patch:
            hurry(patch, scripts.LOOK)
            for each in waits:
                with pytest.raises(LockBackendUnavailable):
                    each.result(60)
        assert lease.release()
        until(lambda: waiting(redis_server) == 0)
        assert acquire(ALIAS, timeout=30).release()


def test_server_that_nobody_waits_for_is_no_matter(
    redis_server: Server,
    redis_store: RedisBackend,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """That it can't be listened to is logged only if somebody waits."""
    monkeypatch.setattr(listening, "PAUSE", 0)
    assert redis_store.acquire("a", "holder", 60, "")
    waiter = join(redis_store, "a", "owner")
    ask_all = Node.ask_all

    def refuse_to_let_leave(node: Node, requests: Any, *arguments: Any) -> list[Any]:
        if name_of(requests[0]) == scripts.LEAVE.digest:
            raise LockBackendUnavailable("it is down")
        return ask_all(node, requests, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Node, "ask_all", refuse_to_let_leave)
        with pytest.raises(LockBackendUnavailable):
            waiter.leave(granted=False)
        until(lambda: not listens(redis_server))
    assert "can't be listened to" not in caplog.text


def listens(server: Server) -> bool:
    """Tell whether a thread of this process listens to the server."""
    name = f"django_distlock listens to Redis at {HOST}:{server.port}"
    return any(thread.name == name for thread in threading.enumerate())


def test_who_is_granted_the_lock_as_the_server_fails_need_not_leave_later(
    redis_store: RedisBackend, asked: list[Any]
) -> None:
    """The grant has taken him out of the queue."""
    waiter = join(redis_store, "a", "owner")
    assert redis_store.acquire("a", "owner", 60, "")
    assert redis_store.acquire("b", "holder", 60, "")
    stays = join(redis_store, "b", "stays")  # so that the thread goes on
    waiter.failure = LockBackendUnavailable("it was down for a moment")
    waiter.leave(granted=True)
    for _ in range(2):  # one look may be under way
        asked.clear()
        until(lambda: scripts.LOOK.digest in asked)
        assert scripts.LEAVE.digest not in asked
    stays.leave(granted=False)


def test_who_waits_asks_again_and_again_when_nobody_may_listen_any_more(
    redis_server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """As when the user's rights are taken away meanwhile."""
    with user(redis_server, "downgraded") as location, connect(redis_server) as client:
        with locks_at("", location=location) as store:
            lease = acquire(ALIAS)
            woken = threading.Event()
            waiter = join(store, "a", "owner", woken.set)
            client.execute_command("ACL SETUSER downgraded resetchannels")
            until(lambda: waiter.alone)
            assert woken.wait(30)
            assert waiter.patience == listening.ALONE
            assert "lets nobody listen" in caplog.text
            waiter.leave(granted=False)
            assert lease.release()


def test_who_comes_when_the_server_answers_nothing_is_told(redis_server: Server) -> None:
    """Also if he is the first for whom this process would listen."""
    with locks_of(redis_server, store={"store_timeout": 0.3}) as store, redis_server.paused():
        with pytest.raises(LockBackendUnavailable, match="can't listen"):
            store.join("a", "owner", "", print)


@pytest.mark.usefixtures("redis_store", "untiring")
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
        client.flushall()
    assert all(each.result(30) for each in waits)
    assert lease.release() is False


def test_user_who_may_not_subscribe_asks_again_and_again(
    redis_server: Server, threads: ThreadPoolExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    """He gets the lock all the same."""

    async def take_in_task() -> int | None:
        async with distributed_lock("a", backend=ALIAS, timeout=30) as lease:
            return lease.token

    with user(redis_server, "modest", "resetchannels") as location:
        with locks_at("", location=location):
            lease = acquire(ALIAS)
            waits: list[Future[Any]] = [
                threads.submit(take),
                threads.submit(lambda: run(take_in_task())),
            ]
            until(lambda: "lets nobody listen" in caplog.text)
            assert lease.release()
            assert all(each.result(60) for each in waits)
            many = [threads.submit(take) for _ in range(50)]
            assert all(each.result(60) for each in many)
            assert caplog.text.count("lets nobody listen") == 1


def test_who_waits_where_the_lock_is_no_more_asks_again_and_again(
    redis_server: Server,
    redis_store: RedisBackend,
    threads: ThreadPoolExecutor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The node of a cluster that has it by now knows nothing of the queue."""
    lease = acquire(ALIAS)
    place = join(redis_store, "a", "owner")
    wait = threads.submit(take)
    until(lambda: waiting(redis_server) == 2)
    say_when_looked_at(monkeypatch, ServerError("MOVED 1 127.0.0.1:1", "MOVED"))
    until(lambda: place.alone)
    assert place.patience == listening.ALONE
    place.leave(granted=False)
    with connect(redis_server) as client:
        client.delete(f"{key_of()}:queue")
    assert lease.release()
    assert wait.result(30)


@pytest.mark.usefixtures("redis_store")
def test_who_waits_is_told_what_the_server_says_of_the_queue(
    redis_server: Server, threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
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
    ask_all = Node.ask_all

    def ask(node: Node, requests: Any, *arguments: Any) -> list[Any]:
        if name_of(requests[0]) == scripts.LOOK.digest:
            return [answer] * len(requests)
        return ask_all(node, requests, *arguments)

    monkeypatch.setattr(Node, "ask_all", ask)


# Cost


@pytest.mark.parametrize(("left", "most"), [(60_000, 2), (600, 10)])
@pytest.mark.usefixtures("redis_store")
def test_waiting_costs_few_commands(
    redis_server: Server,
    threads: ThreadPoolExecutor,
    monkeypatch: pytest.MonkeyPatch,
    left: int,
    most: int,
) -> None:
    """Per second and waiter, while a lock is held for long: also if it is always about to end."""
    ask_all = Node.ask_all

    def ask_and_say(node: Node, requests: Any, *arguments: Any) -> list[Any]:
        answers = ask_all(node, requests, *arguments)
        if name_of(requests[0]) != scripts.LOOK.digest:
            return answers
        # Or that the server doesn't know the script yet.
        return [[left, each[1]] if isinstance(each, list) else each for each in answers]

    monkeypatch.setattr(Node, "ask_all", ask_and_say)
    with distributed_lock("a", backend=ALIAS):
        waits = [threads.submit(take) for _ in range(32)]
        until(lambda: waiting(redis_server) == 32)
        with commands(redis_server) as seen:
            began = clocks.monotonic()
            time.sleep(1)  # what is counted is counted per second
            seconds = clocks.monotonic() - began
    assert all(each.result(30) for each in waits)
    assert seen.total() / 32 / seconds < most
