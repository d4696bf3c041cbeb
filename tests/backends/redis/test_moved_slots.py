"""Redis Clusters that move slots, and clients that know nothing of clusters."""

from __future__ import annotations

from concurrent.futures import Future
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from redis import Redis, RedisCluster

from django_distlock import LockBackendUnavailable, acquire_lock, clocks
from django_distlock.backends.redis import servers as module
from django_distlock.backends.redis.nodes import Moved, Node
from django_distlock.backends.sockets.calls import BLOCKING, IN_LOOP, Calls
from django_distlock.backends.sync_driver import run_sync
from django_distlock.leases.request import new_owner
from django_distlock.records import LeaseClaim
from tests.support.concurrency import elsewhere, run
from tests.support.holders import acquire
from tests.support.redis_in_clusters import acquire_async, at, be_renewed, key_in_cluster
from tests.support.redis_servers import (
    connect,
    node_of,
    place,
)
from tests.support.redis_stores import (
    ALIAS,
    DJANGO,
    DJANGO_REDIS,
    client_path,
    locks_at,
    locks_by,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django_distlock import Lease
    from django_distlock.backends.redis import RedisBackend
    from tests.support.redis_servers import Cluster
    from tests.support.servers import Server

pytestmark = [pytest.mark.needs("redis", "redis_cluster"), pytest.mark.once]


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
        """Begin to move the slot: the source redirects requests for keys that it has no more."""
        self.assign(source)  # once more: a late message of another node may have undone it
        cluster_command(target, "SETSLOT", self.number, "IMPORTING", name_of(source))
        cluster_command(source, "SETSLOT", self.number, "MIGRATING", name_of(target))
        try:
            yield
        finally:
            for node in (source, target):
                cluster_command(node, "SETSLOT", self.number, "STABLE")

    def move(self, source: Server, target: Server) -> None:
        """Move the slot with its keys."""
        with self.moving(source, target), connect(source) as client:
            keys = cluster_command(source, "GETKEYSINSLOT", self.number, 100)
            client.migrate(*place(target), keys, 0, 10_000)
            self.assign(target)

    def assign(self, owner: Server) -> None:
        """Tell all nodes that this one has the slot: itself first, and the two that move it."""
        for node in (owner, self.home, self.other, *self.cluster.nodes):
            cluster_command(node, "SETSLOT", self.number, "NODE", name_of(owner))

    @contextmanager
    def moved(self) -> Iterator[None]:
        """Keep the slot at the target in the block."""
        self.move(self.home, self.other)
        try:
            yield
        finally:
            self.move(self.other, self.home)


def cluster_command(node: Server, command: str, *arguments: Any) -> Any:
    """Send a CLUSTER command to the node."""
    with connect(node) as client:
        return client.execute_command(f"CLUSTER {command}", *arguments)


def name_of(node: Server) -> str:
    """Return the node's id in the cluster."""
    return str(cluster_command(node, "MYID"))


@pytest.mark.usefixtures("cluster_store")
def test_lock_is_found_where_its_slot_has_moved(
    redis_cluster: Cluster, cluster_client: RedisCluster
) -> None:
    """It is renewed, listed and released there, and acquired again."""
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
    """For sync and for async code, until the move is over."""
    new, used = f"new {new_owner()}", f"used {new_owner()}"
    assert acquire(ALIAS, used).release()  # its token stays
    for semaphore, match in (
        (new, rf"^Redis Cluster keeps moving 'distlock:\{{{new}\}}': wait"),
        (used, "answered: TRYAGAIN"),
    ):
        slot = Slot(redis_cluster, semaphore)
        with slot.moving(slot.home, slot.other):
            with pytest.raises(LockBackendUnavailable, match=match):
                acquire_lock(semaphore, backend=ALIAS)
            with pytest.raises(LockBackendUnavailable, match=match):
                run(acquire_async(cluster_store, semaphore))
        assert acquire(ALIAS, semaphore).release()


class MovingServers:
    """Servers of a cluster that are up to date after each look-up."""

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
    """It looks the slot up each time."""
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


# A client that knows nothing of clusters


@pytest.mark.parametrize("library", [DJANGO, DJANGO_REDIS, None])
def test_error_of_a_plain_client_in_a_cluster_says_what_to_configure(
    redis_cluster: Cluster, cluster_client: RedisCluster, library: str | None
) -> None:
    """The error appears when it asks for a key of another node."""
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
    """The listing asks the nodes again."""
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
