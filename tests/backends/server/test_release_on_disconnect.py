"""Leases that end with their process's connection to the lock server."""

from __future__ import annotations

import json
import signal
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from django_distlock import LockBackendUnavailable, aacquire_lock, acquire_lock
from django_distlock.backends.server import listening
from django_distlock.leases.outcomes import mark_unreleased
from tests.support.concurrency import elsewhere, run, until
from tests.support.holders import acquire, renewed_since
from tests.support.lock_server_proxy import LockServerProxy
from tests.support.lock_servers import (
    ALIAS,
    host_and_port,
    is_unused,
    listens,
    locks_at,
    locks_of,
    start_careful_lock_server,
    waiting,
    workers_at,
)
from tests.support.ports import HOST
from tests.support.processes import send_and_wait

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor
    from datetime import datetime

    from django_distlock import Lease
    from django_distlock.backends.server import ServerBackend
    from tests.support.moved_clock import MovedClock
    from tests.support.processes import Workers
    from tests.support.servers import Server

pytestmark = pytest.mark.needs("lock_server")
TTL = 600.0
"""Seconds: so no lease ends by itself here, nor is renewed by itself."""


def holding(server: Server, *forks: str, **options: Any) -> Workers:
    """Run a process whose lock ends with its connection, by default."""
    options = {"release_on_disconnect": True, **options}
    return workers_at(server, 1, "hold", ALIAS, str(TTL), *forks, **options)


def kill_holder(workers: Workers) -> None:
    """Kill it."""
    [holder] = workers.processes
    send_and_wait(holder, signal.SIGKILL)


def token_of(workers: Workers) -> int:
    """Wait until the process holds the lock; return the token."""
    [holder] = workers.processes
    [token] = json.loads(workers.read(holder))
    return int(token)


def end(store: ServerBackend) -> datetime:
    """Return when the only lock expires, according to the server."""
    [lock] = store.held()
    assert lock.expires_at is not None
    return lock.expires_at


# Holders that die


@pytest.mark.parametrize("forks", [(), ("forks",)])
def test_killed_holders_lock_is_free_at_once(
    spare_lock_server: Server,
    lock_server_store: ServerBackend,
    threads: ThreadPoolExecutor,
    forks: tuple[str, ...],
) -> None:
    """Even if a child lives that was forked while it held the lock."""
    with holding(spare_lock_server, *forks) as workers:
        token = token_of(workers)
        waits = threads.submit(acquire, ALIAS, "held", timeout=60)
        until(lambda: waits.done() or waiting(lock_server_store) == 1)
        assert not waits.done(), waits.result()
        kill_holder(workers)
        lease = waits.result(60)
        assert (lease.token or 0) > token
        assert lease.release()


def test_killed_holders_lock_is_not_free_without_the_option(
    spare_lock_server: Server, lock_server_store: ServerBackend, lock_server_proxy: LockServerProxy
) -> None:
    """Its lease lasts."""
    address = f"{HOST}:{lock_server_proxy.port}"
    with holding(spare_lock_server, release_on_disconnect=False, address=address) as workers:
        token = token_of(workers)
        kill_holder(workers)
        until(lambda: lock_server_proxy.open == 0)
        assert [lock.token for lock in lock_server_store.held()] == [token]
        assert acquire_lock("held", backend=ALIAS) is None
        assert lock_server_store.force_release("held", token)


def test_waiting_process_keeps_its_lease_when_another_is_killed(
    spare_lock_server: Server, lock_server_store: ServerBackend
) -> None:
    """Each has a connection of its own."""
    with locks_of(spare_lock_server, release_on_disconnect=True):
        lease = acquire(ALIAS)
        with holding(spare_lock_server) as workers:
            token_of(workers)
            kill_holder(workers)
        until(
            lambda: [lock.semaphore for lock in lock_server_store.held()] == ["1234collectPayment"]
        )
        lease.renew()
        assert lease.release()


# Holders that are cut off


async def aacquire() -> Lease:
    """Acquire, in a task, a lease that outlasts the task."""
    lease = await aacquire_lock("1234collectPayment", backend=ALIAS, ttl=TTL)
    assert lease is not None
    return lease


@pytest.mark.parametrize("in_task", [False, True])
def test_holder_that_was_cut_off_learns_of_it_at_once(
    spare_lock_server: Server,
    lock_server_store: ServerBackend,
    lock_server_proxy: LockServerProxy,
    threads: ThreadPoolExecutor,
    lost: dict[Lease, str],
    in_task: bool,
) -> None:
    """Long before its renewal is due: another owner may hold the lock by then."""
    with locks_at(spare_lock_server, lock_server_proxy.port, release_on_disconnect=True):
        lease = run(aacquire()) if in_task else acquire(ALIAS, ttl=TTL)
        lock_server_proxy.cut_listener()
        until(lambda: lease in lost)
        assert not lease.held
        successor = elsewhere(lambda: acquire(ALIAS))
        assert (successor.token or 0) > (lease.token or 0)
        assert lease.release() is False
        assert successor.release() is True


def test_lease_without_the_option_outlasts_the_listeners_connection(
    spare_lock_server: Server,
    lock_server_proxy: LockServerProxy,
    lost: dict[Lease, str],
    lock_server_store: ServerBackend,
) -> None:
    """Even if its process waits for another lock."""
    with locks_at(spare_lock_server, lock_server_proxy.port) as mine:
        lease = acquire(ALIAS)
        waits = mine.join("1234collectPayment", "owner", "", print)
        assert waits
        lock_server_proxy.cut_listener()
        until(lambda: lock_server_proxy.listeners == 2 and waiting(lock_server_store) == 1)
        lease.renew()
        waits.leave(granted=False)
        assert lease.release()
        assert not lost


def test_other_connections_may_be_lost(
    spare_lock_server: Server,
    lock_server_proxy: LockServerProxy,
    lost: dict[Lease, str],
    lock_server_store: ServerBackend,
) -> None:
    """Only the listening connection counts."""
    with locks_at(spare_lock_server, lock_server_proxy.port, release_on_disconnect=True):
        lease = acquire(ALIAS)
        lock_server_proxy.lose_replies(b'"renew"', 1)
        with pytest.raises(LockBackendUnavailable, match="closed the connection"):
            lease.renew()
        assert lock_server_proxy.losses == 0
        lease.renew()
        run(lease.arenew())
        assert lease.release()
        assert not lost


# Servers that come back


def test_lease_is_bound_again_when_the_server_comes_back() -> None:
    """At once: if the process is killed after that, the lock is free, though it was saved."""
    with start_careful_lock_server() as server, locks_of(server) as store:
        with holding(server) as workers:
            token = token_of(workers)
            ends = end(store)
            server.restart()
            until(lambda: end(store) - ends > timedelta(seconds=0.1))
            [lock] = store.held()
            assert lock.token == token
            kill_holder(workers)
            until(lambda: is_unused(store))


def test_lease_is_bound_again_when_the_server_was_killed(lost: dict[Lease, str]) -> None:
    """At once, during the time in which nothing is granted."""
    with (
        start_careful_lock_server() as server,
        LockServerProxy(*host_and_port(server)) as proxy,
        locks_at(server, proxy.port, release_on_disconnect=True) as store,
    ):
        lease = acquire(ALIAS, ttl=TTL)
        renewed = renewed_since([lease])
        server.kill()
        server.start()
        until(renewed)
        [lock] = store.held()
        assert lock.token == lease.token
        proxy.cut_listener()
        until(lambda: lease in lost or not store.status()["locks"])


# The thread


def test_listener_stays_as_long_as_a_lease_may_last(
    spare_lock_server: Server,
    lock_server_store: ServerBackend,
    lock_server_proxy: LockServerProxy,
    moved_clock: MovedClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And no longer."""
    monkeypatch.setattr("django_distlock.backends.listening.IDLE", 0)
    monkeypatch.setattr(listening, "PING_EVERY", 0.1)

    def pinged_again() -> None:
        pings = lock_server_proxy.heard(b'"ping"')
        until(lambda: lock_server_proxy.heard(b'"ping"') >= pings + 2)

    with locks_at(spare_lock_server, lock_server_proxy.port, release_on_disconnect=True) as mine:
        lease = acquire(ALIAS, ttl=TTL, renew=False)
        pinged_again()
        moved_clock.advance(TTL - 60)
        pinged_again()
        assert lease.held
        moved_clock.advance(60)
        until(lambda: not listens(mine))
        mark_unreleased(lease)
