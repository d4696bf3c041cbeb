"""Lock servers that end and come back, as holders and waiters see it."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from django_distlock import LockBackendUnavailable, acquire_lock, distributed_lock
from django_distlock.backends.server import places
from django_distlock.leases.outcomes import mark_unreleased
from tests.support.concurrency import run, until
from tests.support.holders import acquire, due_now, renewed_since
from tests.support.lock_server_holders import take, take_in_task
from tests.support.lock_servers import (
    ALIAS,
    MOVED_CLOCK,
    locks_of,
    move_clock,
    start_careful_lock_server,
    waiting,
    workers_at,
)

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor
    from pathlib import Path

    from django_distlock import Lease
    from django_distlock.backends.server import ServerBackend
    from django_distlock.backends.server.places import QueuedPlace
    from tests.support.lock_server_proxy import LockServerProxy
    from tests.support.moved_clock import MovedClock
    from tests.support.servers import Server

pytestmark = [pytest.mark.needs("lock_server"), pytest.mark.once]


def renew_now(lease: Lease) -> None:
    """Make the background thread renew the lease, and wait until it has."""
    renewed = renewed_since([lease])
    due_now([lease])
    until(renewed)


def test_holders_keep_their_locks_when_the_server_is_killed(
    threads: ThreadPoolExecutor,
    lost: dict[Lease, str],
    joined: list[QueuedPlace],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It grants nothing to others until all had time to reclaim; waiters keep waiting."""
    monkeypatch.setattr(places, "SAFETY", 0.2)  # it tries now and then, in vain
    limits = "--max-ttl=1000", "--idle=100000"
    with (
        start_careful_lock_server(*limits, settings=MOVED_CLOCK) as server,
        locks_of(server, ttl=1000) as store,
    ):
        lease = acquire(ALIAS)
        token = lease.token or 0
        waits = [threads.submit(take), threads.submit(lambda: run(take_in_task()))]
        until(lambda: len(joined) == 2)
        server.kill()
        with pytest.raises(LockBackendUnavailable):
            acquire_lock("5678collectPayment", backend=ALIAS)
        server.start()
        with pytest.raises(LockBackendUnavailable, match="Nothing is granted"):
            acquire_lock("5678collectPayment", backend=ALIAS, timeout=30)
        renew_now(lease)
        assert store.status()["grace"] > 0
        [lock] = store.held()
        assert lock.token == lease.token == token
        assert acquire_lock("1234collectPayment", backend=ALIAS) is None
        until(lambda: waiting(store) == 2)
        move_clock(server.directory, 600)
        renew_now(lease)
        assert store.status()["grace"] > 0
        move_clock(server.directory, 1100)
        assert store.status()["grace"] == 0
        with distributed_lock("5678collectPayment", backend=ALIAS) as other:
            assert (other.token or 0) > token
        assert lease.held
        assert not any(each.done() for each in waits)
        assert lease.release() is True
        assert all((each.result(30) or 0) > token for each in waits)
        assert not lost


def test_server_that_stops_in_order_goes_on_where_it_was(
    threads: ThreadPoolExecutor, lost: dict[Lease, str], joined: list[QueuedPlace]
) -> None:
    """It grants free locks at once, and held ones not."""
    with start_careful_lock_server() as server, locks_of(server) as store:
        lease = acquire(ALIAS, ttl=1000)
        waits = [threads.submit(take), threads.submit(lambda: run(take_in_task()))]
        until(lambda: len(joined) == 2)
        server.restart()
        with distributed_lock("5678collectPayment", backend=ALIAS) as other:
            assert (other.token or 0) > (lease.token or 0)
        assert acquire_lock("1234collectPayment", backend=ALIAS) is None
        lease.renew()
        until(lambda: waiting(store) == 2)
        assert lease.release() is True
        assert all((each.result(30) or 0) > (lease.token or 0) for each in waits)
        assert not lost


def test_lease_that_is_not_renewed_is_released_after_a_kill() -> None:
    """While nothing is granted: the release is the first that the server hears of the lease."""
    with start_careful_lock_server() as server, locks_of(server) as store:
        lease = acquire(ALIAS, ttl=1000, renew=False)
        server.kill()
        server.start()
        assert store.status()["locks"] == 0
        assert lease.release() is True
        assert not [lock for lock in store.held() if lock.holder]


def test_wait_that_ends_while_the_server_is_down_ends_so(
    threads: ThreadPoolExecutor,
    joined: list[QueuedPlace],
    moved_clock: MovedClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is unknown whether the lock is held."""
    monkeypatch.setattr(places, "SAFETY", 0.1)
    with start_careful_lock_server() as server, locks_of(server):
        lease = acquire(ALIAS, ttl=1000, renew=False)
        wait = threads.submit(take, timeout=100)
        until(lambda: len(joined) == 1)
        server.kill()
        moved_clock.advance(100)
        with pytest.raises(LockBackendUnavailable, match=r"refused|no answer"):
            wait.result(30)
        mark_unreleased(lease)
        with suppress(LockBackendUnavailable):
            lease.release()
        server.start()


def test_many_processes_lose_no_increment_as_the_server_is_killed(tmp_path: Path) -> None:
    """And restarted: no two hold the lock at once; their tokens rise."""
    file = tmp_path / "counter"
    file.write_text("0")
    with start_careful_lock_server("--max-ttl", "5") as server:
        with workers_at(server, 4, "count_anyway", ALIAS, str(file), "50", "5") as workers:
            until(lambda: int(file.read_text() or 0) >= 50)
            server.kill()
            server.start()
            grants = sorted(tuple(grant) for result in workers.results() for grant in result)
    assert file.read_text() == "200"
    tokens = [token for _, token in grants]
    assert len(tokens) == 200
    assert tokens == sorted(set(tokens))


def test_many_processes_lose_no_increment_as_connections_are_reset(
    spare_lock_server: Server,
    lock_server_store: ServerBackend,
    lock_server_proxy: LockServerProxy,
    tmp_path: Path,
) -> None:
    """Each of them, sooner or later."""
    file = tmp_path / "counter"
    file.write_text("0")
    lock_server_proxy.reset_connections(1, 10_000, within=40)
    address = f"127.0.0.1:{lock_server_proxy.port}"
    command = "count_anyway", ALIAS, str(file), "25", "10"
    with workers_at(spare_lock_server, 4, *command, address=address) as workers:
        grants = sorted(tuple(grant) for result in workers.results() for grant in result)
    assert lock_server_proxy.resets > 20
    assert file.read_text() == "100"
    tokens = [token for _, token in grants]
    assert tokens == sorted(set(tokens))
