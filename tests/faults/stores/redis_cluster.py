"""A Redis Cluster of three nodes, of which one has a replica, and what can happen to it."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from redis.crc import key_slot

from tests.faults.cluster_clients import PORTS, direct, proxied
from tests.faults.environment import PROXIED, TESTED, Fault
from tests.faults.proxy import NETWORK, FaultyProxy
from tests.faults.stores.outside import OutsideStore, killed
from tests.faults.stores.redis import BACKEND, OPERATIONS, operate
from tests.support.ports import HOST
from tests.support.redis_servers import (
    SLOTS,
    Cluster,
    cluster_node,
    connect,
    place,
    start_cluster_replica,
)
from tests.support.servers import TIMEOUT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from random import Random

    from tests.support.servers import Server

# Only the run has replicas take over: a clock that steps lets nodes take others for dead.
DIRECTIVES = ("appendonly yes", "appendfsync always", "cluster-replica-no-failover yes")
LAG = 0.2
"""Seconds of writes that a replica misses."""


class ClusterOfThree(OutsideStore):
    """Three masters that write each command to their disks. The first one has a replica."""

    store = "redis_cluster"
    probes_stale = False
    needs = "redis_cluster"

    def start(self, stack: ExitStack) -> None:
        self.cluster = Cluster.create(*DIRECTIVES)
        for node in self.cluster.nodes:
            self.governed(node)
        stack.enter_context(self.cluster.begin())
        self.masters = [*self.cluster.nodes]
        replica = self.governed(cluster_node(*DIRECTIVES))
        self.replica = start_cluster_replica(self.cluster, self.masters[0], replica=replica)
        self.proxies = {
            node.port: stack.enter_context(FaultyProxy(HOST, node.port))
            for node in self.cluster.nodes
        }

    def backends(self) -> dict[str, Any]:
        clients = {TESTED: direct, PROXIED: proxied}
        return {
            "DISTLOCK": {
                alias: {
                    "BACKEND": BACKEND,
                    "OPTIONS": {"client": f"{make.__module__}.{make.__name__}"},
                }
                for alias, make in clients.items()
            }
        }

    def variables(self) -> dict[str, str]:
        return {PORTS: json.dumps({port: proxy.port for port, proxy in self.proxies.items()})}

    def rest(self) -> None:
        self.let_clock_rest()
        self.cluster.wait()  # nodes that were silent for so long are taken for dead

    @property
    def faults(self) -> dict[str, Fault]:
        return {
            **{name: self.at_a_proxy(name) for name in NETWORK},
            **self.clock_faults,
            **{name: self.at_a_master(name) for name in OPERATIONS},
            "server_killed": self.node_killed,
            "server_paused": self.node_paused,
            "slot_moved": self.slot_moved,
            "failover": self.failover,
            "failover_forced": self.failover_forced,
        }

    def at_a_proxy(self, name: str) -> Fault:
        """Return a fault of the network before a master."""
        return lambda random: self.proxies[random.choice(self.masters).port].faults[name](random)

    def at_a_master(self, name: str) -> Fault:
        """Return something that an operator does to a master."""
        return lambda random: operate(OPERATIONS[name], random.choice(self.masters))

    @contextmanager
    def node_killed(self, random: Random) -> Iterator[None]:
        """Kill a master, and start it again."""
        with killed(random.choice(self.masters)):
            yield

    @contextmanager
    def node_paused(self, random: Random) -> Iterator[None]:
        """Stop a master's process."""
        with random.choice(self.masters).paused():
            yield

    @contextmanager
    def slot_moved(self, random: Random) -> Iterator[None]:
        """Move the slot of a lock to another master, and back."""
        slot = key_slot(f"{random.randrange(1, 5)}collectPayment".encode())
        owner = self.masters[slot // (SLOTS // len(self.masters) + 1)]
        other = random.choice([node for node in self.masters if node is not owner])
        self.move(slot, owner, other)
        yield
        self.move(slot, other, owner)

    def move(self, slot: int, source: Server, target: Server) -> None:
        """Move a slot with its keys, as `redis-cli --cluster reshard` does."""
        self.cluster.wait()
        with ExitStack() as stack:
            clients = {node.port: stack.enter_context(connect(node)) for node in self.masters}
            here, there = clients[source.port], clients[target.port]
            names = [client.execute_command("CLUSTER MYID") for client in (here, there)]
            there.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", names[0])
            here.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", names[1])
            while keys := here.execute_command("CLUSTER GETKEYSINSLOT", slot, 10):
                here.execute_command("MIGRATE", *place(target), "", 0, 5000, "KEYS", *keys)
            for client in (there, here, *clients.values()):
                client.execute_command("CLUSTER SETSLOT", slot, "NODE", names[1])

    @contextmanager
    def failover(self, random: Random) -> Iterator[None]:
        """Have the replica take over in good order: the master waits until it has everything."""
        self.cluster.wait()
        self.await_role(self.replica, "slave")
        with connect(self.replica) as client:
            client.execute_command("CLUSTER FAILOVER")
        self.await_role(self.replica, "master")
        self.masters[0], self.replica = self.replica, self.masters[0]
        yield

    @contextmanager
    def failover_forced(self, random: Random) -> Iterator[None]:
        """Have a replica that lags take over from a master that is killed."""
        self.cluster.wait()
        self.await_role(self.replica, "slave")
        with self.replica.paused():
            time.sleep(LAG)
            self.masters[0].kill()
        with connect(self.replica) as client:
            client.execute_command("CLUSTER FAILOVER TAKEOVER")
        self.masters[0], self.replica = self.replica, self.masters[0]
        yield
        self.replica.start()

    def await_role(self, node: Server, role: str) -> None:
        """Wait until the node has this role, and is in step with its master if it has one."""
        deadline = time.monotonic() + TIMEOUT
        while True:
            with connect(node) as client:
                found = client.info("replication")
            if found["role"] == role and found.get("master_link_status", "up") == "up":
                return
            assert time.monotonic() < deadline, found
            time.sleep(0.05)
