"""The Redis servers, and the proxy with faults, that other tests rely on."""

from __future__ import annotations

import socket
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from django.core.cache import caches
from redis import Redis, RedisCluster
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as NotConnected
from redis.exceptions import MovedError, OutOfMemoryError, ReadOnlyError
from redis.retry import Retry

from tests.support.concurrency import until
from tests.support.ports import HOST
from tests.support.redis_servers import (
    SENTINEL_NAME,
    SLOTS,
    await_replica,
    connect,
    fill,
    node_of,
    place,
    start_redis_replica,
    start_sentinel,
)

if TYPE_CHECKING:
    from tests.support.lossy_proxy import LossyProxy
    from tests.support.redis_servers import Cluster
    from tests.support.servers import Server

pytestmark = [pytest.mark.needs("redis"), pytest.mark.once]
NO_RETRY = Retry(NoBackoff(), 0)

# Servers


@pytest.mark.needs("redis_cluster")
def test_cluster_shares_its_slots_among_three_masters(redis_cluster: Cluster) -> None:
    """A node redirects a request for a key of another one."""
    nodes = [place(node) for node in redis_cluster.nodes]
    keys = [f"key {number}" for number in range(20)]
    with closing(RedisCluster(*nodes[0])) as client:
        slots: Any = client.cluster_slots()
        assert {tuple(owners["primary"]) for owners in slots.values()} == set(nodes)
        assert sum(last - first + 1 for first, last in slots) == SLOTS
        for key in keys:
            client.set(key, f"value of {key}")
        assert [client.get(key) for key in keys] == [f"value of {key}".encode() for key in keys]
        with connect(redis_cluster.nodes[0]) as node:
            for key in keys:
                expected = node_of(client, key)
                assert moved_to(node, key) == (None if expected == nodes[0] else expected)
        assert {node_of(client, key) for key in keys} == set(nodes)


def moved_to(node: Redis, key: str) -> tuple[str, int] | None:
    """Delete the key at this node, or return the node it redirects to."""
    try:
        node.delete(key)
    except MovedError as error:
        return (error.host, error.port)
    return None


@pytest.mark.needs("redis_cluster")
def test_node_that_was_killed_comes_back_with_its_slots(redis_cluster: Cluster) -> None:
    """Empty."""
    node = redis_cluster.nodes[-1]
    with connect(node) as client:
        [key] = [key for key in map(str, range(20)) if moved_to(client, key) is None][:1]
        client.set(key, "a")
    node.kill()
    with pytest.raises(NotConnected):
        connect(node).ping()
    node.start()
    redis_cluster.wait()
    with connect(node) as client:
        assert client.get(key) is None


def test_replica_copies_its_master_and_can_be_promoted(redis_server: Server) -> None:
    """It may be promoted before the master's next write, such as a grant, reaches it."""
    with connect(redis_server) as master, start_redis_replica(redis_server) as replica_server:
        with connect(replica_server) as replica:
            master.set("a", "1")
            await_replica(master)
            assert replica.get("a") == "1"
            with pytest.raises(ReadOnlyError):
                replica.set("a", "2")
            replica.replicaof("NO", "ONE")
            master.set("b", "1")
            replica.set("a", "2")
            assert (replica.get("b"), master.get("a")) == (None, "1")


def test_sentinel_names_the_master_and_promotes_its_replica(redis_server: Server) -> None:
    """It promotes the replica once the master is dead."""
    with (
        start_redis_replica(redis_server) as replica,
        start_sentinel(redis_server) as sentinel_server,
    ):
        with connect(sentinel_server) as sentinel:

            def is_master(which: Server) -> bool:
                address = sentinel.sentinel_get_master_addr_by_name(SENTINEL_NAME)
                return bool(address == place(which))

            assert is_master(redis_server)
            redis_server.kill()
            until(lambda: is_master(replica))
    redis_server.start()


def test_killed_server_comes_back_empty_at_its_port(redis_server: Server) -> None:
    """As in production, without persistence."""
    with connect(redis_server) as client:
        client.set("a", "1")
        redis_server.kill()
        with pytest.raises(NotConnected):
            client.get("a")
        redis_server.start()
        assert client.get("a") is None


def test_paused_server_answers_nothing_until_it_goes_on(redis_server: Server) -> None:
    """Then it answers the requests sent during the pause."""
    with connect(redis_server) as client, socket.create_connection(place(redis_server)) as hasty:
        client.set("a", "1")
        hasty.settimeout(0.1)
        with redis_server.paused():
            hasty.sendall(b"INCR a\r\n")
            with pytest.raises(TimeoutError):
                hasty.recv(64)
        until(lambda: client.get("a") == "2")


def test_paused_server_can_be_killed(redis_server: Server) -> None:
    """It need not continue before that."""
    with redis_server.paused():
        redis_server.kill()
    assert not redis_server.is_running
    redis_server.start()
    assert redis_server.is_running


def test_server_can_be_full(redis_server: Server) -> None:
    """It refuses commands that need memory."""
    with connect(redis_server) as client:
        client.config_set("maxmemory", 1)
        with pytest.raises(OutOfMemoryError):
            client.set("a", "1")


def test_server_is_filled(redis_server: Server) -> None:
    """With any command, in any of its databases."""
    fill(redis_server, 20_001, "SET", "other:#", "x", db=1)
    fill(redis_server, 10, "HSET", "lock:{#}", "owner", "#-#", "token", "7", db=1)
    with connect(redis_server, db=1) as client:
        assert client.dbsize() == 20_011
        assert client.get("other:20001") == "x"
        assert client.hgetall("lock:{10}") == {"owner": "10-10", "token": "7"}


@pytest.mark.parametrize("alias", ["redis", "django_redis_cache"])
def test_caches_of_both_libraries_are_at_the_server(alias: str) -> None:
    """Each in its own database."""
    caches[alias].set("a", alias)
    assert caches[alias].get("a") == alias
    others = {"redis", "django_redis_cache"} - {alias}
    assert [caches[other].get("a") for other in others] == [None]
    assert caches[alias].make_key("a") == "site:1:a"
    caches[alias].delete("a")


# Faults between client and server


def increase(proxy: LossyProxy) -> str:
    """Increment over a new connection; return the outcome."""
    with Redis(port=proxy.port, retry=NO_RETRY) as client:
        try:
            return str(client.incr("a"))
        except NotConnected:
            return "cut"


def test_proxy_loses_replies(redis_server: Server, redis_proxy: LossyProxy) -> None:
    """The requests were carried out."""
    redis_proxy.lose_replies(b"INCR", 2)
    assert [increase(redis_proxy) for _ in range(3)] == ["cut", "cut", "3"]
    assert (redis_proxy.losses, redis_proxy.connections) == (0, 3)


def test_proxy_loses_requests(redis_server: Server, redis_proxy: LossyProxy) -> None:
    """They were not carried out."""
    redis_proxy.lose_requests(b"INCR", 2)
    assert [increase(redis_proxy) for _ in range(3)] == ["cut", "cut", "1"]
    assert (redis_proxy.losses, redis_proxy.connections) == (0, 3)


def test_proxy_resets_a_share_of_the_connections(
    redis_server: Server, redis_proxy: LossyProxy
) -> None:
    """The same ones for a seed, up to a number. Some requests were carried out, some not."""
    outcomes = []
    for seed in (1, 1, 2):
        redis_proxy.reset_connections(0.3, 10, within=2, seed=seed)
        outcomes.append([increase_by_hand(redis_proxy) for _ in range(50)])
    assert outcomes[0] == outcomes[1] != outcomes[2]
    assert [outcome.count("reset") for outcome in outcomes] == [10, 10, 10]
    assert (redis_proxy.resets, redis_proxy.connections) == (30, 150)
    with connect(redis_server) as client:
        assert 120 < int(client.get("a") or 0) < 150


def increase_by_hand(proxy: LossyProxy) -> str:
    """Increment in a single chunk, and return the outcome: an end of file is no reset."""
    with socket.create_connection((HOST, proxy.port)) as client:
        client.sendall(b"INCR a\r\n")
        try:
            assert client.recv(64).startswith(b":")
        except ConnectionResetError:
            return "reset"
    return "done"


def test_proxy_outlives_its_server(redis_server: Server, redis_proxy: LossyProxy) -> None:
    """Like the server, it refuses connections until that is back."""
    redis_server.kill()
    assert increase(redis_proxy) == "cut"
    redis_server.start()
    assert increase(redis_proxy) == "1"


def test_proxy_leaves_nothing_open(redis_proxy: LossyProxy) -> None:
    """When a client has gone, and at its own end."""
    with Redis(port=redis_proxy.port) as client:
        client.ping()
        assert redis_proxy.open == 1
    until(lambda: redis_proxy.open == 0)
    with socket.create_connection((HOST, redis_proxy.port)) as left:
        until(lambda: redis_proxy.open == 1)
        redis_proxy.__exit__()
        assert left.recv(1) == b""
    assert redis_proxy.open == 0
