"""Faults of Redis servers that keep locks, and of the network before them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from django_distlock import LockBackendUnavailable, acquire_lock, clocks
from tests.support.concurrency import elsewhere, until
from tests.support.holders import acquire, due_now, renewed_since
from tests.support.ports import HOST
from tests.support.redis_servers import (
    connect,
    fill,
    start_redis,
)
from tests.support.redis_stores import (
    ALIAS,
    DJANGO,
    DJANGO_REDIS,
    is_locked,
    key_of,
    locks_at,
    locks_of,
    on_each_library,
    waiting,
    why_not,
)

if TYPE_CHECKING:
    from django_distlock import Lease
    from tests.support.lossy_proxy import LossyProxy
    from tests.support.servers import Server

pytestmark = [pytest.mark.needs("redis"), pytest.mark.once]

# Lost requests and replies


@on_each_library
def test_lost_reply_of_a_grant_finds_the_grant(
    redis_server: Server, redis_proxy: LossyProxy, library: str
) -> None:
    """The second try is the same owner's, and not refused by its own grant (peer defect 15)."""
    with locks_at(redis_proxy.port, library=library), connect(redis_server) as client:
        redis_proxy.lose_replies(b"{1234collectPayment}", 1)
        lease = acquire(ALIAS)
        assert redis_proxy.losses == 0
        assert client.get(f"{key_of()}:token") == str(lease.token)
        assert acquire_lock("1234collectPayment", backend=ALIAS) is None
        assert lease.release() is True
        assert not is_locked(redis_server)


def test_lost_reply_of_a_release_is_a_release(
    redis_server: Server, redis_proxy: LossyProxy
) -> None:
    """The second request finds nothing to release: that is no loss (peer defect 13)."""
    with locks_at(redis_proxy.port):
        lease = acquire(ALIAS)
        redis_proxy.lose_replies(b"{1234collectPayment}", 1)
        assert lease.release() is True
        assert redis_proxy.losses == 0
        assert not is_locked(redis_server)


def test_release_can_be_tried_again(redis_server: Server, redis_proxy: LossyProxy) -> None:
    """Even if both requests were lost (peer defect 13)."""
    with locks_at(redis_proxy.port):
        lease = acquire(ALIAS)
        redis_proxy.lose_requests(b"{1234collectPayment}", 2)
        with pytest.raises(LockBackendUnavailable):
            lease.release()
        assert is_locked(redis_server)
        assert lease.release() is True
        assert not is_locked(redis_server)


@pytest.mark.parametrize("what", ["requests", "replies"])
@pytest.mark.parametrize("times", [2, 1000])
def test_acquisition_without_answer_leaves_no_lock(
    redis_server: Server, redis_proxy: LossyProxy, what: str, times: int
) -> None:
    """A possible grant is released."""
    with locks_at(redis_proxy.port):
        getattr(redis_proxy, f"lose_{what}")(b"{1234collectPayment}", times)
        with pytest.raises(LockBackendUnavailable):
            acquire_lock("1234collectPayment", backend=ALIAS)
        assert redis_proxy.connections == 3  # two tries, and what undoes them
        until(lambda: not is_locked(redis_server))


def test_many_resets_never_let_two_in(redis_server: Server, redis_proxy: LossyProxy) -> None:
    """Four threads use connections of which three in ten are reset."""
    inside: list[Lease] = []

    def release(lease: Lease) -> None:
        released = False
        while not released:
            with suppress(LockBackendUnavailable):
                released = lease.release()

    def work(number: int) -> int:
        granted = 0
        while granted < 75:
            try:
                lease = acquire_lock("1234collectPayment", backend=ALIAS, timeout=60, ttl=2)
            except LockBackendUnavailable:
                continue
            assert lease is not None
            inside.append(lease)
            others = [each for each in [*inside] if each is not lease and each.held]
            assert not (others and lease.held)
            inside.remove(lease)
            release(lease)
            store.close()  # so that there are new connections to reset
            granted += 1
        return granted

    redis_proxy.reset_connections(0.3, 1_000)
    with locks_at(redis_proxy.port) as store:
        with ThreadPoolExecutor(4) as threads:
            assert sum(threads.map(work, range(4))) == 300
        assert redis_proxy.resets > 20
        redis_proxy.reset_connections(0, 0)
        until(lambda: not is_locked(redis_server) and waiting(redis_server) == 0)
        assert acquire(ALIAS, timeout=30).release()


# Servers that are down


@pytest.mark.parametrize(
    ("library", "options"),
    [(DJANGO_REDIS, {"IGNORE_EXCEPTIONS": True}), (DJANGO_REDIS, {}), (DJANGO, {})],
)
def test_killed_server_is_unavailable_at_once(
    redis_server: Server, library: str, options: dict[str, Any]
) -> None:
    """That is not reported as contended (peer defects 16, 20)."""
    with locks_of(redis_server, library=library, options=options) as store:
        lease = acquire(ALIAS, ttl=60)
        redis_server.kill()
        try:
            for action in (
                lambda: acquire_lock("5678collectPayment", backend=ALIAS),
                lambda: acquire_lock("5678collectPayment", backend=ALIAS, timeout=30),
                lambda: [*store.held()],
                lambda: store.force_release("1234collectPayment", 1),
                lease.renew,
                lease.release,
            ):
                before = clocks.monotonic()
                with pytest.raises(LockBackendUnavailable, match=f"Redis at {HOST}:"):
                    action()
                assert clocks.monotonic() - before < 10
            assert lease.held
        finally:
            redis_server.start()
        assert acquire(ALIAS, "5678collectPayment").release()


@on_each_library
def test_lease_on_a_server_that_forgets_is_reported_lost(
    redis_server: Server, lost: dict[Lease, str], library: str
) -> None:
    """By its next renewal. Its successor, granted before, has a greater token."""
    with locks_of(redis_server, library=library), connect(redis_server) as client:
        for forget in (client.flushdb, client.flushall, lambda: restart(redis_server)):
            lease = acquire(ALIAS)
            forget()
            successor = elsewhere(lambda: acquire(ALIAS))
            assert (successor.token or 0) > (lease.token or 0)
            be_lost(lease, lost)
            assert lease.release() is False
            assert successor.release() is True


def be_lost(lease: Lease, lost: dict[Lease, str]) -> None:
    """Wait until a renewal has found it lost, and the signal was sent."""
    due_now([lease])
    until(lambda: lease in lost)
    assert not lease.held


def restart(server: Server) -> None:
    """Restart the server, empty."""
    server.kill()
    server.start()


def test_renewal_outlasts_lost_connections(redis_server: Server, lost: dict[Lease, str]) -> None:
    """It uses another connection (peer defects 11, 22)."""
    with locks_of(redis_server), connect(redis_server) as client:
        lease = acquire(ALIAS)
        for _ in range(3):
            client.client_kill_filter(_type="normal", skipme=True)
            renewed = renewed_since([lease])
            due_now([lease])
            until(renewed)
        assert not lost
        assert lease.release() is True


def test_evicted_lease_is_reported_lost(redis_server: Server, lost: dict[Lease, str]) -> None:
    """Not before its next renewal: until then a successor may hold the lock as well."""
    with locks_of(redis_server), connect(redis_server) as client:
        lease = acquire(ALIAS, ttl=60)
        client.config_set("maxmemory-policy", "allkeys-lru")
        client.config_set("maxmemory", 3_000_000)
        while is_locked(redis_server):  # Redis samples some keys, and evicts the oldest of these
            fill(redis_server, 20_000, "SET", "#", "x" * 100)
        client.config_set("maxmemory", 0)  # otherwise the next lock may be evicted, too
        successor = elsewhere(lambda: acquire(ALIAS, renew=False))
        assert lease.held
        assert (successor.token or 0) > (lease.token or 0)
        be_lost(lease, lost)
        assert successor.release() is True


def test_server_that_is_loading_is_unavailable() -> None:
    """It hasn't read all of its data yet."""
    # It answers others after each key; a key takes 10 ms until the test ends the delay.
    slow = (
        "key-load-delay 10000",
        "loading-process-events-interval-bytes 1024",
        "rdbcompression no",
    )
    with start_redis(*slow) as server, locks_of(server):
        fill(server, 6_000, "SET", "#", "x" * 1_100)
        with connect(server) as client:
            client.save()
        server.kill()
        with ThreadPoolExecutor(1) as thread:
            starting = thread.submit(server.start)
            until(lambda: "loading" in why_not("b"))
            with connect(server) as client:
                client.config_set("key-load-delay", 0)
            starting.result(60)
            # The server ends with the thread that started it.
            assert acquire(ALIAS).release()


def test_full_server_is_unavailable(redis_server: Server) -> None:
    """Holders can still release a lock, or hand it over."""
    with locks_of(redis_server), connect(redis_server) as client:
        lease, other = acquire(ALIAS), acquire(ALIAS, "5678collectPayment")
        with ThreadPoolExecutor(1) as thread:
            waits = thread.submit(acquire, ALIAS, timeout=60)
            until(lambda: waiting(redis_server) == 1)
            client.config_set("maxmemory", 1)
            with pytest.raises(LockBackendUnavailable, match="maxmemory"):
                acquire_lock("9012collectPayment", backend=ALIAS)
            assert acquire_lock("5678collectPayment", backend=ALIAS) is None
            other.renew()
            assert other.release() is True
            assert lease.release() is True
            with suppress(LockBackendUnavailable):
                waits.result(30)
        client.config_set("maxmemory", 0)
        assert acquire(ALIAS, timeout=30).release()
