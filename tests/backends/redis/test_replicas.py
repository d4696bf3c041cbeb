"""Replicas of Redis servers that keep locks, failovers to them, and sentinels."""

from __future__ import annotations

import re
import socket
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from django_distlock import LockBackendUnavailable, acquire_lock, clocks
from tests.support.concurrency import elsewhere, until
from tests.support.documentation import shown
from tests.support.holders import acquire
from tests.support.lossy_proxy import LossyProxy, chunks
from tests.support.ports import HOST
from tests.support.redis_servers import (
    SENTINEL_NAME,
    await_replica,
    connect,
    place,
    start_redis,
    start_redis_replica,
    start_sentinel,
)
from tests.support.redis_stores import (
    ALIAS,
    is_locked,
    locks_at,
    locks_of,
    why_not,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django_distlock import Lease
    from tests.support.servers import Server

pytestmark = [pytest.mark.needs("redis"), pytest.mark.once]

# Replicas


def test_promoted_replica_may_grant_an_unreplicated_lock_again(redis_server: Server) -> None:
    """When it is promoted; its token is greater. This is documented: Redis can't avoid it."""
    with locks_of(redis_server):
        with start_redis_replica(redis_server) as replica, connect(replica) as client:
            client.replicaof("NO", "ONE")
            lease = acquire(ALIAS, renew=False)
            with locks_of(replica):
                successor = elsewhere(lambda: acquire(ALIAS, renew=False))
                assert successor.release()
            assert (successor.token or 0) > (lease.token or 0)
            assert lease.release()


def test_master_without_a_healthy_replica_refuses_as_documented(redis_server: Server) -> None:
    """By the page's settings, with a lag of two seconds: it neither grants nor renews."""
    [settings] = [block for block in shown("how-to/use-redis.md", "text") if "replicas" in block]
    lines = dict(line.split(" ") for line in settings.splitlines())
    assert lines == {"min-replicas-to-write": "1", "min-replicas-max-lag": "10"}
    with start_redis_replica(redis_server) as replica, connect(redis_server) as client:

        def wait_for_healthy_replicas(number: int) -> None:
            until(lambda: client.info("replication")["min_slaves_good_slaves"] == number)

        for name, value in {**lines, "min-replicas-max-lag": "2"}.items():
            client.config_set(name, value)
        try:
            with locks_of(redis_server):
                wait_for_healthy_replicas(1)
                lease = acquire(ALIAS, renew=False)
                with replica.paused():
                    wait_for_healthy_replicas(0)
                    with pytest.raises(LockBackendUnavailable, match="NOREPLICAS"):
                        acquire_lock("5678collectPayment", backend=ALIAS)
                    with pytest.raises(LockBackendUnavailable, match="NOREPLICAS"):
                        lease.renew()
                wait_for_healthy_replicas(1)
                assert lease.release()
        finally:
            client.config_set("min-replicas-to-write", 0)


def test_replica_is_refused_as_a_store(redis_server: Server, lost: dict[Lease, str]) -> None:
    """It can grant nothing, and its data may be old."""
    with locks_of(redis_server):
        lease = acquire(ALIAS, renew=False)
        with start_redis_replica(redis_server) as replica, locks_of(replica):
            assert is_locked(replica)
            with pytest.raises(LockBackendUnavailable, match="read only"):
                acquire_lock("5678collectPayment", backend=ALIAS)
            with pytest.raises(LockBackendUnavailable, match="read only"):
                lease.renew()
            with pytest.raises(LockBackendUnavailable, match="read only"):
                lease.release()
        assert lease.release() is True
        assert not lost


@pytest.mark.xfail(strict=True, reason="a script that only reads is carried out by a replica")
def test_replica_is_not_busy(redis_server: Server) -> None:
    """A replica doesn't know that a lease is lost, either."""
    with locks_of(redis_server):
        lease = acquire(ALIAS, renew=False)
        with start_redis_replica(redis_server) as replica, locks_of(replica):
            try:
                with pytest.raises(LockBackendUnavailable):
                    acquire_lock("1234collectPayment", backend=ALIAS)
            finally:
                with connect(replica) as client:
                    client.replicaof("NO", "ONE")
                lease.release()


class OldProxy(LossyProxy):
    """A proxy that words errors in scripts as servers before version 7 do."""

    newer = re.compile(rb"-([A-Z]+ [^\r]*?)\.? script: ([0-9a-f]+), on @user_script:(\d+)\.")
    older = rb"-ERR Error running script (call to f_\2): @user_script:\3: @user_script: \3: -\1."

    def _pass_on(self, client: socket.socket, server: socket.socket, reset: int | None) -> None:
        for source, data in chunks(client, server):
            if source is server:
                client.sendall(self.newer.sub(self.older, data))
            else:
                server.sendall(data)


@pytest.mark.parametrize("kind", [LossyProxy, OldProxy])
@pytest.mark.parametrize("demoted", [("replicaof", HOST, 1), ("min-replicas-to-write", 1)])
def test_call_after_a_failover_finds_the_new_master(
    redis_server: Server, kind: type[LossyProxy], demoted: tuple[Any, ...]
) -> None:
    """By an address that follows the master; on the open connection the old one refuses."""
    name, *arguments = demoted
    with (
        start_redis() as promoted,
        kind(*place(redis_server)) as proxy,
        connect(redis_server) as old,
    ):
        with locks_at(proxy.port):
            lease = acquire(ALIAS, renew=False)
            proxy.server = place(promoted)
            if name == "replicaof":
                old.replicaof(*arguments)
            else:
                old.config_set(name, *arguments)
            try:
                with pytest.raises(LockBackendUnavailable, match=r"read only|NOREPLICAS"):
                    acquire_lock("5678collectPayment", backend=ALIAS)
                assert acquire(ALIAS, "5678collectPayment").release()
                assert not is_locked(promoted)
                assert lease.release() is False
            finally:
                old.replicaof("NO", "ONE")
                old.config_set("min-replicas-to-write", 0)


# Sentinels


def sentinels(*places: tuple[str, int]) -> dict[str, Any]:
    """Return the options of a django-redis cache at these sentinels."""
    return {
        "CLIENT_CLASS": "django_redis.client.SentinelClient",
        "CONNECTION_POOL_CLASS": "redis.sentinel.SentinelConnectionPool",
        "CONNECTION_FACTORY": "django_redis.pool.SentinelConnectionFactory",
        "SENTINELS": [*places],
    }


def test_sentinels_lead_to_the_locks() -> None:
    """After a failover too, without a restart of the site."""
    with start_redis() as master:
        with start_redis_replica(master), start_sentinel(master) as sentinel:
            location, options = f"redis://{SENTINEL_NAME}/0", sentinels(place(sentinel))
            with locks_at("", location=location, options=options):
                lease = acquire(ALIAS, ttl=60)
                assert acquire_lock("1234collectPayment", backend=ALIAS) is None
                with connect(master) as client:
                    await_replica(client)
                master.kill()
                until(lambda: not why_not("b"))
                assert acquire_lock("1234collectPayment", backend=ALIAS) is None
                lease.renew()
                assert lease.release() is True


@contextmanager
def silent_sentinel() -> Iterator[tuple[str, int]]:
    """Listen on a port without ever answering."""
    with socket.create_server((HOST, 0)) as listening:
        yield listening.getsockname()


def test_silent_sentinel_does_not_hinder(redis_server: Server) -> None:
    """The next one is asked within the same budget, of which each gets a quarter."""
    with silent_sentinel() as first, start_sentinel(redis_server, down_after=60) as second:
        options = sentinels(first, place(second))
        # django-redis keeps a pool for each location: no other test may use this one.
        location = f"redis://{SENTINEL_NAME}/5"
        with locks_at("", location=location, options=options, store={"store_timeout": 4}):
            assert acquire(ALIAS).release()


def test_silent_sentinels_are_unavailable_in_time() -> None:
    """Together they take no longer than one call may."""
    with ExitStack() as stack:
        places = [stack.enter_context(silent_sentinel()) for _ in range(4)]
        location, options = f"redis://{SENTINEL_NAME}/6", sentinels(*places)
        with locks_at("", location=location, options=options, store={"store_timeout": 0.5}):
            before = clocks.monotonic()
            with pytest.raises(LockBackendUnavailable, match=r"^Redis, the master 'locks': "):
                acquire_lock("1234collectPayment", backend=ALIAS)
            assert clocks.monotonic() - before < 10
