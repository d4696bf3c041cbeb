"""Redis servers: single ones, clusters, replicas and sentinels; and how to fill them."""

from __future__ import annotations

import signal
import time
import weakref
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from tests.support.installed import find
from tests.support.ports import HOST, ReservedPort
from tests.support.servers import TIMEOUT, Home, Server

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis import Redis, RedisCluster

SLOTS = 16_384
MASTERS = 3
SENTINEL_NAME = "locks"


def redis(*directives: str, arguments: tuple[str, ...] = ()) -> Server:
    """Return a server that is not started yet, with these lines in its configuration, too.

    It keeps all data in memory.
    """
    home = Home.create("redis", "redis", "nobody")
    basic = (
        f"bind {HOST}",
        f"port {home.port}",
        'save ""',
        "repl-diskless-sync yes",  # no file to load after a kill
        "repl-diskless-sync-delay 0",  # for more replicas
    )
    home.write("redis.conf", "\n".join([*basic, *directives, ""]))  # a sentinel writes to it

    def answer() -> Any:
        from redis import Redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        client = Redis(host=HOST, port=home.port, retry=Retry(NoBackoff(), 0))
        client.ping()
        return client

    return Server(
        home,
        [find("redis-server"), "redis.conf", *arguments],
        answer,
        stop_signal=signal.SIGTERM,
    )


def start_redis(*directives: str, arguments: tuple[str, ...] = ()) -> Server:
    """Start a server."""
    return redis(*directives, arguments=arguments).begin()


def place(server: Server) -> tuple[str, int]:
    """Return the host and port."""
    return HOST, server.port


def connect(server: Server, db: int = 0) -> Redis:
    """Return a client of just this server, without retries."""
    from redis import Redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    host, port = place(server)
    return Redis(
        host=host,
        port=port,
        db=db,
        decode_responses=True,
        socket_timeout=TIMEOUT,
        retry=Retry(NoBackoff(), 0),
    )


def await_replica(client: Redis) -> None:
    """Wait until a replica of the client's server has all writes up to now.

    WAIT counts writes up to the client's previous command, which redis-py itself sends from 5.0 on:
    as a first command it would wait for nothing.
    """
    client.ping()
    assert client.wait(1, 60_000) == 1


def node_of(client: RedisCluster, key: str) -> tuple[str, int]:
    """Return the client's node for the key."""
    node: Any = client.get_node_from_key(key)  # type: ignore[no-untyped-call]
    # Before 4.4, redis-py keeps a moved slot's host as the server sent it.
    host = node.host.decode() if isinstance(node.host, bytes) else node.host
    return host, node.port


@dataclass
class Cluster:
    """A cluster of masters, each with a third of the slots.

    A node that is killed and started again has its slots, empty.
    """

    nodes: list[Server]

    @classmethod
    def create(cls, *directives: str) -> Self:
        """Return a cluster that is not started yet. See redis()."""
        return cls([cluster_node(*directives) for _ in range(MASTERS)])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.remove()

    @property
    def settings(self) -> dict[str, Any]:
        """Return the address of one of the nodes, which knows the others."""
        return self.nodes[0].settings

    def begin(self) -> Self:
        """Start the nodes, and join them to a cluster."""
        try:
            for node in self.nodes:
                node.start()
            _share_slots(self.nodes)
            self.wait()
        except BaseException:
            self.remove()
            raise
        return self

    def wait(self) -> None:
        """Wait until every node serves its slots and knows of all others.

        A master takes two seconds to, whenever it starts.
        """
        for node in self.nodes:
            _wait_until(partial(_serves_cluster, node, len(self.nodes)))

    def remove(self) -> None:
        """Stop the nodes and delete their data."""
        while self.nodes:
            self.nodes.pop().remove()


def start_redis_cluster() -> Cluster:
    """Start a cluster."""
    return Cluster.create().begin()


def start_cluster_replica(cluster: Cluster, of: Server, *, replica: Server | None = None) -> Server:
    """Start a replica of one of the masters, and wait until it is in step.

    `CLUSTER FAILOVER TAKEOVER` promotes it. The cluster removes it in the end.
    """
    replica = (replica or cluster_node()).begin()
    cluster.nodes.append(replica)
    with connect(of) as master, connect(replica) as client:
        for node in cluster.nodes[:-1]:
            _meet(replica, node)
        name = master.execute_command("CLUSTER MYID")
        _wait_until(lambda: name in str(client.execute_command("CLUSTER NODES")))
        client.execute_command("CLUSTER REPLICATE", name)
        _wait_until(lambda: client.info("replication").get("master_link_status") == "up")
    cluster.wait()
    return replica


def start_redis_replica(of: Server) -> Server:
    """Start a replica, and wait until it is in step. `REPLICAOF NO ONE` promotes it."""
    host, port = place(of)
    replica = start_redis(f"replicaof {host} {port}")
    try:
        with connect(replica) as client:
            _wait_until(lambda: client.info("replication")["master_link_status"] == "up")
    except BaseException:
        replica.remove()
        raise
    return replica


def start_sentinel(master: Server, *, down_after: float = 0.5) -> Server:
    """Start a sentinel that watches the master as "locks", and knows the replicas it has by now.

    Once the master has been silent for `down_after` seconds, it promotes one.
    """
    host, port = place(master)
    sentinel = start_redis(
        f"sentinel monitor {SENTINEL_NAME} {host} {port} 1",  # a quorum of one
        f"sentinel down-after-milliseconds {SENTINEL_NAME} {down_after * 1000:.0f}",
        f"sentinel failover-timeout {SENTINEL_NAME} 5000",
        arguments=("--sentinel",),
    )
    try:
        with connect(master) as client:
            replicas = client.info("replication")["connected_slaves"]
        with connect(sentinel) as client:
            _wait_until(lambda: client.sentinel_master(SENTINEL_NAME)["num-slaves"] == replicas)
    except BaseException:
        sentinel.remove()
        raise
    return sentinel


FILL = """
local first, last = tonumber(table.remove(ARGV, 1)), tonumber(table.remove(ARGV, 1))
local templates = {}
for index, word in ipairs(ARGV) do
    if string.find(word, '#', 1, true) then
        templates[index] = word
    end
end
for number = first, last do
    local text = string.format('%d', number)
    for index, word in pairs(templates) do
        ARGV[index] = string.gsub(word, '#', text)
    end
    redis.call(unpack(ARGV))
end
"""


def fill(server: Server, number: int, *command: str, db: int = 0) -> None:
    """Run the command with each `#` in it replaced by 1, 2 ... `number`.

    In batches, since no other client is served during one.
    """
    batch = 10_000
    with connect(server, db) as client:
        for first in range(1, number + 1, batch):
            client.eval(FILL, 0, first, min(first + batch - 1, number), *command)


def cluster_node(*directives: str) -> Server:
    """Return a node that is not started yet. See redis().

    Its bus is not at the usual port + 10,000, which an outgoing connection may have taken.
    """
    bus = ReservedPort()
    node = redis("cluster-enabled yes", f"cluster-port {bus.number}", *directives)
    weakref.finalize(node, bus.release)
    return node


def _share_slots(nodes: list[Server]) -> None:
    """Give each node its part of the slots, and let all nodes meet."""
    part = SLOTS // len(nodes) + 1
    for index, node in enumerate(nodes):
        with connect(node) as client:
            last = min((index + 1) * part, SLOTS) - 1
            client.execute_command("CLUSTER ADDSLOTSRANGE", index * part, last)
            client.execute_command("CLUSTER SET-CONFIG-EPOCH", index + 1)
        for other in nodes[:index]:
            _meet(node, other)


def _meet(node: Server, other: Server) -> None:
    with connect(node) as client, connect(other) as met:
        bus = met.config_get("cluster-port")["cluster-port"]
        client.execute_command("CLUSTER MEET", *place(other), bus)


def _serves_cluster(node: Server, size: int) -> bool:
    from redis.exceptions import ConnectionError as NotConnected

    with suppress(NotConnected), connect(node) as client:
        known = client.execute_command("CLUSTER INFO")
        return bool(
            known["cluster_state"] == "ok"
            and int(known["cluster_slots_assigned"]) == SLOTS
            and int(known["cluster_known_nodes"]) == size
        )
    return False


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError("Redis is not ready")
        time.sleep(0.02)
