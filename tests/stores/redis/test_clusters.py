"""Clusters that keep locks: their nodes die, and their slots move."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import Future
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any

import pytest
from redis import Redis, RedisCluster
from redis.exceptions import ClusterError, RedisClusterException, SlotNotCoveredError
from redis.exceptions import ConnectionError as RedisConnectionError

from django_distlock import LockBackendUnavailable, aacquire_lock, acquire_lock, clocks
from django_distlock.backends.redis import servers as module
from django_distlock.backends.redis.nodes import Moved, Node
from django_distlock.backends.sockets.calls import BLOCKING, IN_LOOP, Calls, run_sync
from django_distlock.leases.request import new_owner
from django_distlock.records import LeaseClaim
from tests.support.concurrency import elsewhere, run, until
from tests.support.holders import acquire, due_now, renewed_since
from tests.support.ports import HOST
from tests.support.redis_servers import (
    await_replica,
    connect,
    node_of,
    place,
    start_cluster_replica,
    start_redis_cluster,
)
from tests.support.redis_stores import (
    ALIAS,
    DJANGO,
    DJANGO_REDIS,
    client_path,
    key_of,
    locks_at,
    locks_by,
    why_not,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django_distlock import Lease
    from django_distlock.backends.redis import RedisBackend
    from tests.support.moved_clock import MovedClock
    from tests.support.redis_servers import Cluster
    from tests.support.servers import Server

pytestmark = [pytest.mark.needs("redis", "redis_cluster"), pytest.mark.once]
LOOKS_UP = "django_distlock looks up a cluster"
"""The thread that does."""


def key_in_cluster(semaphore: str = "1234collectPayment") -> str:
    """Return the key of a lock in the cluster."""
    return key_of(semaphore, prefix="")


def at(client: RedisCluster, node: Server, number: int) -> list[str]:
    """Return so many semaphores that the node has."""
    names = map(str, range(10_000))
    found = (name for name in names if node_of(client, key_in_cluster(name)) == place(node))
    return [*islice(found, number)]


def looked_up() -> None:
    """Wait until no look-up is under way."""
    for thread in threading.enumerate():
        if thread.name == LOOKS_UP:
            thread.join(60)


# A node dies


def test_cluster_goes_on_when_one_of_its_nodes_dies(lost: dict[Lease, str]) -> None:
    """The others' leases are held all the while, and the replica that is promoted is found."""
    with start_redis_cluster() as cluster:
        healthy, _, victim = cluster.nodes
        replica = start_cluster_replica(cluster, victim)
        client = RedisCluster(*place(healthy))
        with locks_by(client=client_path(lambda: client)), connect(replica) as promoted:
            *spared, there = [acquire(ALIAS, name, ttl=60) for name in at(client, healthy, 6)]
            inherited, forgotten, unused = at(client, victim, 3)
            heirs = acquire(ALIAS, inherited, ttl=60)
            forgets = acquire(ALIAS, forgotten, ttl=60, renew=False)
            with connect(victim) as master:
                await_replica(master)
            victim.kill()
            be_renewed(spared, due=[*spared, heirs])
            assert not lost
            assert heirs.held
            assert there.release() is True
            for name in (inherited, unused):
                with pytest.raises(LockBackendUnavailable, match=f"Redis at {HOST}:"):
                    acquire_lock(name, backend=ALIAS)

            promoted.execute_command("CLUSTER FAILOVER TAKEOVER")
            until(lambda: not why_not(unused))
            assert acquire_lock(inherited, backend=ALIAS) is None
            be_renewed([heirs])
            key = key_in_cluster(forgotten)
            promoted.delete(key, f"{key}:token")  # as if it had not heard of them
            successor = elsewhere(lambda: acquire(ALIAS, forgotten, renew=False))
            assert (successor.token or 0) > (forgets.token or 0)
            assert successor.release() is True
            be_renewed(spared)
            assert not lost
            assert [lease.release() for lease in (*spared, heirs)] == [True] * 6
            assert forgets.release() is False
        looked_up()
        client.close()


def be_renewed(leases: list[Lease], due: list[Lease] | None = None) -> None:
    """Wait until the background has renewed these, of those that are `due`."""
    renewed = renewed_since(leases)
    due_now(due or leases)
    until(renewed)


def test_cluster_that_is_down_is_unavailable(
    redis_cluster: Cluster, cluster_store: RedisBackend, caplog: pytest.LogCaptureFixture
) -> None:
    """The look-up in the background says so as well; when it is back, so are the locks."""
    assert acquire(ALIAS).release()
    for node in redis_cluster.nodes:
        node.kill()
    try:
        with pytest.raises(LockBackendUnavailable, match=f"Redis at {HOST}:"):
            acquire_lock("1234collectPayment", backend=ALIAS)
        until(lambda: "Looking up the slots of a Redis Cluster failed: " in caplog.text)
    finally:
        for node in redis_cluster.nodes:
            node.start()
        redis_cluster.wait()
    until(lambda: not why_not("1234collectPayment"))


# What makes a process look nodes up


class Nodes:
    """What a client of redis-py knows of a cluster; it learns when the test lets it."""

    def __init__(self) -> None:
        self.nodes_manager = self
        self.asked: list[threading.Thread] = []
        self.may_go_on = threading.Event()
        self.error: Exception | None = None

    def initialize(self) -> None:
        self.asked.append(threading.current_thread())
        assert self.may_go_on.wait(60)
        if self.error is not None:
            raise self.error


def test_dead_node_lets_a_cluster_be_looked_up_once_a_second(moved_clock: MovedClock) -> None:
    """In the background; not while that goes on, nor right after it."""
    moved_clock.stop()
    nodes = Nodes()
    cluster = module.Cluster(nodes, 2)
    cluster.suspect()
    until(lambda: len(nodes.asked) == 1)
    moved_clock.advance(5)
    cluster.suspect()
    assert ended(nodes) == 1
    cluster.suspect()
    assert ended(nodes) == 2
    moved_clock.advance(0.9)
    cluster.suspect()
    assert ended(nodes) == 2
    moved_clock.advance(0.2)
    cluster.suspect()
    assert ended(nodes) == 3
    assert {thread.name for thread in nodes.asked} == {LOOKS_UP}


def ended(nodes: Nodes) -> int:
    """Let the look-up end; return how many there were."""
    nodes.may_go_on.set()
    looked_up()
    for thread in nodes.asked:  # one that is about to end may be listed no more
        thread.join(60)
    return len(nodes.asked)


@pytest.mark.parametrize("error", [RedisConnectionError, RedisClusterException, OSError])
def test_look_up_that_fails_is_logged(
    error: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    """With what redis-py says; and it may be tried again."""
    nodes = Nodes()
    nodes.error = error("nobody is there")
    cluster = module.Cluster(nodes, 2)
    cluster.suspect()
    assert ended(nodes) == 1
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == (
        "Looking up the slots of a Redis Cluster failed: nobody is there"
    )


# A slot moves


class Slot:
    """A slot that a test has moved from one node of the cluster to another."""

    def __init__(self, cluster: Cluster, semaphore: str) -> None:
        self.cluster = cluster
        nodes = {place(node): node for node in cluster.nodes}
        with RedisCluster(*place(cluster.nodes[0])) as client:
            self.number = client.keyslot(key_in_cluster(semaphore))
            self.home = nodes.pop(node_of(client, key_in_cluster(semaphore)))
        self.other = next(iter(nodes.values()))

    @contextmanager
    def moving(self, source: Server, target: Server) -> Iterator[None]:
        """Let it be on its way: the source refers those to the target whose keys it hasn't got."""
        tell(target, "SETSLOT", self.number, "IMPORTING", name_of(source))
        tell(source, "SETSLOT", self.number, "MIGRATING", name_of(target))
        try:
            yield
        finally:
            for node in (source, target):
                tell(node, "SETSLOT", self.number, "STABLE")

    def move(self, source: Server, target: Server) -> None:
        """Move it with its keys."""
        with self.moving(source, target), connect(source) as client:
            keys = tell(source, "GETKEYSINSLOT", self.number, 100)
            client.migrate(*place(target), keys, 0, 10_000)
            for node in (target, source, *self.cluster.nodes):
                tell(node, "SETSLOT", self.number, "NODE", name_of(target))

    @contextmanager
    def moved(self) -> Iterator[None]:
        """Have it elsewhere in the block."""
        self.move(self.home, self.other)
        try:
            yield
        finally:
            self.move(self.other, self.home)


def tell(node: Server, command: str, *arguments: Any) -> Any:
    """Tell the node something about its cluster."""
    with connect(node) as client:
        return client.execute_command(f"CLUSTER {command}", *arguments)


def name_of(node: Server) -> str:
    """Return what its cluster calls it."""
    return str(tell(node, "MYID"))


@pytest.mark.usefixtures("cluster_store")
def test_lock_is_found_where_its_slot_has_moved(
    redis_cluster: Cluster, cluster_client: RedisCluster
) -> None:
    """It is renewed, seen and released there, and there is the next one."""
    slot = Slot(redis_cluster, "1234collectPayment")
    lease = acquire(ALIAS)
    with slot.moved():
        assert lease.held
        lease.renew()
        assert node_of(cluster_client, key_in_cluster()) == place(slot.other)
    assert acquire_lock("1234collectPayment", backend=ALIAS) is None  # it has moved back
    with slot.moved():
        assert lease.release() is True
    with slot.moved():
        successor = acquire(ALIAS)
        assert (successor.token or 0) > (lease.token or 0)
    be_renewed([successor])
    assert successor.release() is True


@pytest.mark.usefixtures("cluster_store")
def test_async_code_finds_where_a_slot_has_moved(redis_cluster: Cluster) -> None:
    """Likewise."""
    slot = Slot(redis_cluster, "1234collectPayment")

    async def main() -> None:
        lease = acquire_elsewhere()
        with slot.moved():
            await lease.arenew()
        with slot.moved():
            assert await lease.arelease() is True

    def acquire_elsewhere() -> Lease:
        return elsewhere(lambda: acquire(ALIAS))

    run(main())


def test_slot_that_is_on_its_way_is_unavailable(
    redis_cluster: Cluster, cluster_store: RedisBackend
) -> None:
    """For sync and for async code; not for ever."""
    new, used = f"new {new_owner()}", f"used {new_owner()}"
    assert acquire(ALIAS, used).release()  # its token stays
    for semaphore, match in (
        (new, rf"^Redis Cluster keeps moving 'distlock:\{{{new}\}}'\.$"),
        (used, "answered: TRYAGAIN"),
    ):
        slot = Slot(redis_cluster, semaphore)
        with slot.moving(slot.home, slot.other):
            with pytest.raises(LockBackendUnavailable, match=match):
                acquire_lock(semaphore, backend=ALIAS)
            with pytest.raises(LockBackendUnavailable, match=match):
                run(acquire_async(cluster_store, semaphore))
        assert acquire(ALIAS, semaphore).release()


async def acquire_async(store: RedisBackend, semaphore: str) -> Any:
    """Ask the store itself for a lock, once."""
    return await store.aacquire(semaphore, new_owner(), 1, "", deadline=store.new_deadline())


class MovingServers:
    """Knows at once, each time that it is looked up, which node has what."""

    def __init__(self) -> None:
        self.look_ups = 0

    def of(self, key: str) -> str:
        return f"the node of {key}"

    def look_up(self) -> Future[None]:
        self.look_ups += 1
        known: Future[None] = Future()
        known.set_result(None)
        return known


def test_call_follows_a_slot_a_few_times() -> None:
    """And looks it up each time."""
    servers: Any = MovingServers()
    later = clocks.monotonic() + 60
    asked: list[Any] = []

    async def ask(node: Any) -> str:
        asked.append(node)
        if len(asked) <= module.MOVES:
            raise Moved
        return "found"

    def ask_at_node(calls: Calls) -> Any:
        return module.at_node(calls, servers, "1234collectPayment", later, ask)

    assert run_sync(ask_at_node(BLOCKING)) == "found"
    assert (len(asked), servers.look_ups) == (module.MOVES + 1, module.MOVES)
    asked.clear()
    assert run(ask_at_node(IN_LOOP)) == "found"
    assert (len(asked), servers.look_ups) == (module.MOVES + 1, 2 * module.MOVES)


def test_errors_of_redis_py_mean_that_the_cluster_is_unavailable(
    cluster_store: RedisBackend, cluster_client: RedisCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of a client that knows of no node for a slot, and of one that finds no node."""
    nodes = cluster_client.nodes_manager
    slot = cluster_client.keyslot(key_in_cluster())  # type: ignore[no-untyped-call]
    lease = acquire(ALIAS, "5678collectPayment")
    with monkeypatch.context() as patch:
        patch.delitem(nodes.slots_cache, slot)
        with pytest.raises(SlotNotCoveredError):
            node_of(cluster_client, key_in_cluster())
        with pytest.raises(LockBackendUnavailable, match=r"^Redis Cluster: Slot .*not covered"):
            acquire_lock("1234collectPayment", backend=ALIAS)
        with pytest.raises(LockBackendUnavailable, match=r"^Redis Cluster: Slot .*not covered"):
            run(acquire_async(cluster_store, "1234collectPayment"))
    for error in (RedisClusterException, RedisConnectionError, ClusterError):
        with monkeypatch.context() as patch:
            patch.setattr(nodes, "initialize", raises(error("nobody is there")))
            patch.setattr(Node, "run", raises(Moved()))
            with pytest.raises(LockBackendUnavailable, match=r"^Redis Cluster: nobody is there$"):
                acquire_lock("1234collectPayment", backend=ALIAS)
            with pytest.raises(LockBackendUnavailable, match=r"^Redis Cluster: nobody is there$"):
                run(acquire_async(cluster_store, "1234collectPayment"))
            looked_up()
    assert lease.release() is True


def test_call_waits_no_longer_than_it_may_for_a_cluster_to_tell_which_node_has_what(
    cluster_client: RedisCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """redis-py asks one node after the other, as long as the client's own settings say."""
    asked: list[None] = []
    may_go_on = threading.Event()

    def hang() -> None:
        asked.append(None)
        may_go_on.wait(60)

    path = client_path(lambda: cluster_client)
    with locks_by(client=path, store_timeout=0.3), monkeypatch.context() as patch:
        patch.setattr(cluster_client.nodes_manager, "initialize", hang)
        patch.setattr(Node, "run", raises(Moved()))
        try:
            calls: list[Any] = [
                lambda: acquire_lock("1234collectPayment", backend=ALIAS),
                lambda: run(aacquire_lock("1234collectPayment", backend=ALIAS)),
            ]
            for call in calls:
                with pytest.raises(LockBackendUnavailable, match="takes too long"):
                    call()
            assert len(asked) == 1  # and hangs still
        finally:
            may_go_on.set()
        looked_up()
    with locks_by(client=path):
        assert acquire(ALIAS).release()


def raises(error: BaseException) -> Any:
    """Return what raises the error."""

    def fail(*arguments: Any) -> None:
        raise error

    return fail


# A client that knows nothing of clusters


@pytest.mark.parametrize("library", [DJANGO, DJANGO_REDIS, None])
def test_plain_client_of_a_node_is_told_how_to_find_the_others(
    redis_cluster: Cluster, cluster_client: RedisCluster, library: str | None
) -> None:
    """When it asks for what the node hasn't got."""
    [node, other, *_] = redis_cluster.nodes
    host, port = place(node)
    [semaphore] = at(cluster_client, other, 1)
    place_in_cluster: Any = (
        locks_at(port, library=library, KEY_PREFIX="")
        if library
        else locks_by(client=client_path(lambda: Redis(host, port)))
    )
    match = (
        rf"^Redis at {host}:{port} is in a Redis Cluster: give client, a callable that returns a "
        r"redis\.RedisCluster\.$"
    )
    with place_in_cluster as store:
        with pytest.raises(LockBackendUnavailable, match=match):
            acquire_lock(semaphore, backend=ALIAS)
        with pytest.raises(LockBackendUnavailable, match=match):
            acquire_lock(semaphore, backend=ALIAS, timeout=5)
        with pytest.raises(LockBackendUnavailable, match=match):
            store.force_release(semaphore, 1)
        with pytest.raises(LockBackendUnavailable, match=match):
            store.renew([LeaseClaim(semaphore, new_owner(), 1)])
        with pytest.raises(LockBackendUnavailable, match=match):
            run(acquire_async(store, semaphore))


def test_locks_are_listed_though_a_slot_moves_meanwhile(
    cluster_store: RedisBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The nodes are asked again."""
    lease = acquire(ALIAS, "moves/1")
    moves, raise_for = [Moved()], Node.raise_for

    def raise_once(node: Node, *arguments: Any) -> None:
        if moves:
            raise moves.pop()
        raise_for(node, *arguments)

    monkeypatch.setattr(Node, "raise_for", raise_once)
    assert [lock.semaphore for lock in cluster_store.held("moves/")] == ["moves/1"]
    assert not moves
    assert lease.release()
