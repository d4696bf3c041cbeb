"""Faults while leases are held: of holders, of servers, and of the network."""

import ctypes
import gc
import json
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import datetime
from unittest import mock

import pytest
from django.db import connections

from django_distlock import Lease, LockLost, acquire_lock, distributed_lock, lock_backends
from django_distlock.backends.database.connections import close_own_connections
from django_distlock.concurrency.background import background
from tests.support.concurrency import until
from tests.support.databases import committed, on_each_database, on_each_server, sessions
from tests.support.holders import acquire, due_now, free_for_others, renewed_since
from tests.support.moved_clock import MovedClock
from tests.support.processes import Workers, send_and_wait
from tests.support.servers import Server

pytestmark = [committed, pytest.mark.once]


# Holders


@on_each_database
def test_killed_holder_kept_its_lock_by_renewal_and_frees_it_after_the_ttl(alias: str) -> None:
    """As long as it ran; after the kill nobody renews it."""
    # Long enough for a busy machine: the renewal is due after a third of it.
    ttl = 3
    with Workers(1, "hold", alias, str(ttl)) as workers:
        [holder] = workers.processes
        [token] = json.loads(workers.read(holder))
        granted_until = end_of_lock(alias)
        until(lambda: end_of_lock(alias) > granted_until)
        assert acquire_lock("held", backend=alias) is None
        send_and_wait(holder, signal.SIGKILL)
        end = end_of_lock(alias)
        lease = acquire_lock("held", backend=alias, timeout=60)
    assert lease is not None
    assert lease.acquired_at >= end
    assert lease.token is not None
    assert lease.token > token


def end_of_lock(alias: str) -> datetime:
    """Return when the lock of the killed process expires."""
    [lock] = lock_backends[alias].held("held")
    assert lock.expires_at is not None
    return lock.expires_at


@on_each_database
def test_paused_holder_knows_that_its_lock_is_lost(alias: str) -> None:
    """It can neither renew nor release, and its successor keeps the lock."""
    with Workers(1, "pause", alias) as workers:
        [holder] = workers.processes
        assert workers.read(holder) == "acquired\n"
        send_and_wait(holder, signal.SIGSTOP)
        successor = acquire_lock("paused", backend=alias, timeout=60)
        assert successor is not None
        holder.send_signal(signal.SIGCONT)
        workers.proceed()
        [outcome] = workers.results()
    assert outcome == {
        "held": False,
        "check": "lost",
        "renew": "lost",
        "release": False,
        "lost": "its ttl of 1 seconds has passed",
    }
    assert successor.held
    assert successor.release() is True


@pytest.mark.usefixtures("clear_memory")
def test_holder_whose_thread_is_starved_knows_that_its_lock_is_lost(lost: dict[Lease, str]) -> None:
    """By code that never releases the GIL, like some C extensions."""
    lease = acquire("memory", ttl=0.5)
    assert ctypes.PyDLL(None).usleep(600_000) == 0  # for longer than the ttl
    assert not lease.held
    successor = acquire("memory")
    assert lease.release() is False
    until(lambda: list(lost) == [lease])
    assert successor.release()


def test_busy_threads_do_not_starve_renewal(lost: dict[Lease, str]) -> None:
    """Python switches between threads."""
    over = threading.Event()

    def compute() -> None:
        while not over.is_set():
            sum(range(1000))

    with ThreadPoolExecutor(4) as threads:
        for _ in range(4):
            threads.submit(compute)
        try:
            lease = acquire("default", ttl=60)
            for _ in range(3):
                until_renewed([lease])
            assert lease.release() is True
        finally:
            over.set()
    assert not lost


# Servers


@contextmanager
def killed(server: Server, alias: str) -> Iterator[None]:
    """Kill the database's server, and start it again after the block."""
    server.kill()
    try:
        yield
    finally:
        server.start()
        connections[alias].close()


@on_each_server
@pytest.mark.usefixtures("durable")
def test_leases_outlast_a_restart_of_their_database(
    alias: str, servers: dict[str, Server], lost: dict[Lease, str], caplog: pytest.LogCaptureFixture
) -> None:
    """They are unknown for a while, but held."""
    leases = [acquire(alias, str(number), ttl=600) for number in range(5)]
    with killed(servers[alias], alias):
        due_now(leases)
        until(lambda: "could not be renewed; it will be tried again" in caplog.text)
        assert all(lease.held for lease in leases)
    until_renewed(leases)
    assert not lost
    assert [lease.release() for lease in leases] == [True] * 5


def until_renewed(leases: Sequence[Lease]) -> None:
    """Make the background try until it has renewed them all."""
    is_renewed = renewed_since(leases)

    def try_now() -> bool:
        due_now(leases)
        return is_renewed()

    until(try_now)


@on_each_server
@pytest.mark.usefixtures("durable")
def test_leases_end_while_their_database_is_down(
    alias: str,
    servers: dict[str, Server],
    moved_clock: MovedClock,
    lost: dict[Lease, str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Unknown, then lost for good; lock_lost is sent once for each."""
    leases = [acquire(alias, str(number), ttl=60) for number in range(5)]
    ends = [lease.expires_at for lease in leases]
    with killed(servers[alias], alias):
        due_now(leases)
        until(lambda: "could not be renewed; it will be tried again" in caplog.text)
        assert not lost
        moved_clock.expire(leases[-1])
        assert not any(lease.held for lease in leases)
        due_now(leases)
        until(lambda: len(lost) == 5)
        assert not any(lease.held for lease in leases)
    for lease in leases:
        with pytest.raises(LockLost, match="ttl of 60 seconds has passed"):
            lease.renew()
        assert lease.release() is False
    assert lost.keys() == set(leases)
    assert [lock.expires_at for lock in lock_backends[alias].held()] == ends


@on_each_server
def test_leases_outlast_the_connections_that_they_came_by(
    alias: str, lost: dict[Lease, str]
) -> None:
    """A lock isn't a session's: one that dies inside a block is no loss (peer defects 4, 11)."""
    with distributed_lock("1234collectPayment", backend=alias) as lease:
        kill_other_sessions(alias)
        until_renewed([lease])
        kill_other_sessions(alias)
    assert not lost
    assert free_for_others(alias)


def kill_other_sessions(alias: str) -> None:
    """End all sessions of this database but this thread's."""
    with connections[alias].cursor() as cursor:
        if alias == "postgresql":
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            return
        cursor.execute(
            "SELECT id FROM information_schema.processlist "
            "WHERE id <> connection_id() AND db = database()"
        )
        for (session,) in cursor.fetchall():
            with suppress(Exception):  # gone by now
                cursor.execute("KILL %s", [session])


# Leaks


@on_each_database
def test_many_acquisitions_leave_no_lease_thread_or_connection(
    alias: str, moved_clock: MovedClock
) -> None:
    """After many acquisitions over two connections."""
    acquisitions = 200 if alias == "default" else 1_000  # SQLite has one writer, and no sessions
    close_own_connections()
    sessions_before, leases_before = sessions(alias), leases_in_memory()
    workers = 2 if alias == "default" else 20  # SQLite lets writers starve when they are many

    def work(name: str) -> int:
        granted = 0
        try:
            for _ in range(acquisitions // workers):
                with distributed_lock(name, backend=alias):
                    granted += 1
        finally:
            connections.close_all()
        return granted

    with ThreadPoolExecutor(workers) as threads:
        names = [f"report {number}" for number in range(workers)]
        assert sum(threads.map(work, names)) == acquisitions
    assert sessions(alias) - sessions_before <= 2
    assert len(background(alias).renewals) == 0
    thread = background(alias).thread
    assert thread is not None
    moved_clock.advance(60)  # it looks when a lease that it was woken for is due
    with mock.patch("django_distlock.concurrency.background.IDLE", 0.01):
        background(alias).submit(lambda: None)  # wakes it
        thread.join(60)
    assert not thread.is_alive()
    assert background(alias).thread is None
    assert leases_in_memory() <= leases_before
    until(lambda: sessions(alias) <= sessions_before)


def leases_in_memory() -> set[int]:
    """Return the ids of the leases that exist, since some tests keep references."""
    gc.collect()
    return {id(each) for each in gc.get_objects() if type(each) is Lease}
