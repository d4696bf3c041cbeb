"""Redis Clusters whose nodes die or can't be looked up."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

import pytest
from redis import RedisCluster
from redis.exceptions import ClusterError, RedisClusterException, SlotNotCoveredError
from redis.exceptions import ConnectionError as RedisConnectionError

from django_distlock import LockBackendUnavailable, aacquire_lock, acquire_lock
from django_distlock.backends.redis import servers as module
from django_distlock.backends.redis.nodes import Moved, Node
from tests.support.concurrency import elsewhere, run, until
from tests.support.holders import acquire
from tests.support.ports import HOST
from tests.support.redis_in_clusters import acquire_async, at, be_renewed, key_in_cluster
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
    client_path,
    locks_by,
    why_not,
)

if TYPE_CHECKING:
    from django_distlock import Lease
    from django_distlock.backends.redis import RedisBackend
    from tests.support.moved_clock import MovedClock
    from tests.support.redis_servers import Cluster

pytestmark = [pytest.mark.needs("redis", "redis_cluster"), pytest.mark.once]


LOOKS_UP = "django_distlock looks up a cluster"
"""The thread that does."""


def looked_up() -> None:
    """Wait until no look-up is under way."""
    for thread in threading.enumerate():
        if thread.name == LOOKS_UP:
            thread.join(60)


# A node dies


def test_cluster_goes_on_when_one_of_its_nodes_dies(lost: dict[Lease, str]) -> None:
    """The other nodes' leases stay held, and the promoted replica is found."""
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
            promoted.delete(key, f"{key}:token")  # as if replication had not reached it
            successor = elsewhere(lambda: acquire(ALIAS, forgotten, renew=False))
            assert (successor.token or 0) > (forgets.token or 0)
            assert successor.release() is True
            be_renewed(spared)
            assert not lost
            assert [lease.release() for lease in (*spared, heirs)] == [True] * 6
            assert forgets.release() is False
        looked_up()
        client.close()


def test_cluster_that_is_down_is_unavailable(
    redis_cluster: Cluster, cluster_store: RedisBackend, caplog: pytest.LogCaptureFixture
) -> None:
    """The look-up in the background reports it as well; locks work again when it is back."""
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
    """A redis-py client's view of a cluster, which is updated when the test allows it."""

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


def test_dead_node_causes_one_look_up_a_second(moved_clock: MovedClock) -> None:
    """In the background, but not during a look-up, nor right after one."""
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
    """Allow the look-up to end; return how many there were."""
    nodes.may_go_on.set()
    looked_up()
    for thread in nodes.asked:  # a thread that is about to end may not be listed any more
        thread.join(60)
    return len(nodes.asked)


@pytest.mark.parametrize("error", [RedisConnectionError, RedisClusterException, OSError])
def test_look_up_that_fails_is_logged(
    error: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    """With redis-py's error; another look-up may follow."""
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


def test_errors_of_redis_py_mean_that_the_cluster_is_unavailable(
    cluster_store: RedisBackend, cluster_client: RedisCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a client that knows no node for a slot, and of one that finds no node at all."""
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


def test_looking_up_the_nodes_of_a_cluster_is_limited_in_time(
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
