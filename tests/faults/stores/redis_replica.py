"""A Redis server with a replica, behind one address, as hosted ones are; and what can happen."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tests.faults.environment import TESTED, Fault
from tests.faults.proxy import FaultyProxy
from tests.faults.stores.outside import OutsideStore
from tests.faults.stores.redis import BACKEND, OPERATIONS, cache, operate
from tests.support.redis_servers import connect, place, redis
from tests.support.servers import TIMEOUT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import ExitStack
    from random import Random

    from tests.support.servers import Server


class RedisWithReplica(OutsideStore):
    """A proxy leads to the master; after a failover it leads to the other server."""

    store = "redis_replica"
    probes_stale = False
    needs = "redis"

    def start(self, stack: ExitStack) -> None:
        self.master, self.replica = (self.governed(redis()).begin() for _ in range(2))
        for server in (self.master, self.replica):
            stack.callback(server.remove)
        self.proxy = stack.enter_context(FaultyProxy(*place(self.master)))
        self.follow()

    def backends(self) -> dict[str, Any]:
        return {
            "CACHES": {TESTED: cache(TESTED, self.proxy.port)},
            "DISTLOCK": {TESTED: {"BACKEND": BACKEND, "OPTIONS": {"cache": TESTED}}},
        }

    def rest(self) -> None:
        self.let_clock_rest()

    @property
    def faults(self) -> dict[str, Fault]:
        return {
            **self.proxy.faults,
            "scripts_flushed": self.scripts_flushed,
            "server_paused": self.server_paused,
            "failover": self.failover,
            "failover_lagging": self.failover_lagging,
        }

    @contextmanager
    def scripts_flushed(self, random: Random) -> Iterator[None]:
        """Have the master forget all scripts."""
        with operate(OPERATIONS["scripts_flushed"], self.master):
            yield

    @contextmanager
    def server_paused(self, random: Random) -> Iterator[None]:
        """Stop the master's process."""
        with self.master.paused():
            yield

    @contextmanager
    def failover(self, random: Random) -> Iterator[None]:
        """Swap the servers in good order: the master waits until the replica has everything."""
        with connect(self.master) as client:
            client.execute_command("FAILOVER", "TO", *place(self.replica))
        self.swap()
        self.await_step()
        yield

    @contextmanager
    def failover_lagging(self, random: Random) -> Iterator[None]:
        """Have the replica take over without what the master has done since the fault began."""
        with connect(self.replica) as client:
            client.execute_command("REPLICAOF", "NO", "ONE")
        yield
        self.master.kill()
        self.swap()
        self.replica.start()
        self.follow()

    def swap(self) -> None:
        """Lead to the other server, on new connections."""
        self.master, self.replica = self.replica, self.master
        self.proxy.server = place(self.master)
        self.proxy.reset_all()

    def follow(self) -> None:
        """Have the replica follow the master, and wait until it is in step."""
        with connect(self.replica) as client:
            client.execute_command("REPLICAOF", *place(self.master))
        self.await_step()

    def await_step(self) -> None:
        """Wait until the replica is one, and in step."""
        deadline = time.monotonic() + TIMEOUT
        while not is_replica(self.replica):
            assert time.monotonic() < deadline
            time.sleep(0.02)


def is_replica(server: Server) -> bool:
    """Return whether the server is a replica in step with its master."""
    with connect(server) as client:
        return bool(client.info("replication").get("master_link_status") == "up")
