"""Faults while leases are held: of holders, of servers, and of what is between them."""

import ctypes
import gc
import json
import operator
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from django.db import connections

from django_distlock import Lease, LockLost, acquire_lock, clocks, distributed_lock
from django_distlock.backends.database.connections import close_own_connections
from django_distlock.background import background
from tests.support.concurrency import until
from tests.support.databases import committed, on_each_database, on_each_server, sessions
from tests.support.holders import acquire, due_now, free_for_others, renewed_since
from tests.support.processes import Workers, strike
from tests.support.servers import Server

pytestmark = [committed, pytest.mark.once]


# Holders


@on_each_database
def test_killed_holder_kept_its_lock_by_renewal_and_frees_it_after_the_ttl(alias: str) -> None:
    """As long as it lived, whatever the ttl; and not much longer."""
    with Workers(1, "hold", alias, "1") as workers:
        [holder] = workers.processes
        [token] = json.loads(workers.read(holder))
        assert acquire_lock("held", backend=alias, timeout=2) is None
        strike(holder, signal.SIGKILL)
        killed = clocks.monotonic()
        lease = acquire_lock("held", backend=alias, timeout=30)
    assert lease is not None
    assert clocks.monotonic() - killed < 1 + 1.5
    assert lease.token is not None
    assert lease.token > token


@on_each_database
def test_paused_holder_knows_that_its_lock_is_lost(alias: str) -> None:
    """It can renew nothing and release nothing, and its successor is left alone."""
    with Workers(1, "pause", alias) as workers:
        [holder] = workers.processes
        assert json.loads(workers.read(holder)) == [True]
        strike(holder, signal.SIGSTOP)
        successor = acquire_lock("paused", backend=alias, timeout=30)
        assert successor is not None
        holder.send_signal(signal.SIGCONT)
        assert holder.stdin is not None
        holder.stdin.write("go on\n")
        holder.stdin.flush()
        [outcome] = workers.results()
    assert outcome == {
        "held": False,
        "check": "lost",
        "renew": "lost",
        "release": False,
        "told": "its ttl of 1 seconds has passed",
    }
    assert successor.held
    assert successor.release() is True


def test_holder_whose_thread_is_starved_knows_that_its_lock_is_lost(lost: dict[Lease, str]) -> None:
    """By something that keeps the interpreter to itself, as some C extensions do."""
    lease = acquire("default", ttl=1)
    assert ctypes.PyDLL(None).sleep(2) == 0
    assert not lease.held
    assert acquire_lock("a")
    assert lease.release() is False
    until(lambda: list(lost) == [lease])


def test_busy_threads_do_not_starve_renewal(lost: dict[Lease, str]) -> None:
    """Python shares its interpreter among them."""
    over = threading.Event()

    def compute() -> None:
        while not over.is_set():
            sum(range(1000))

    with ThreadPoolExecutor(4) as threads:
        for _ in range(4):
            threads.submit(compute)
        try:
            lease = acquire("default", ttl=2)
            for _ in range(3):
                until(renewed_since([lease]))
            assert lease.release() is True
        finally:
            over.set()
    assert not lost


# Servers


@on_each_server
@pytest.mark.usefixtures("durable")
def test_leases_outlast_a_restart_of_their_database(
    alias: str, servers: dict[str, Server], lost: dict[Lease, str], caplog: pytest.LogCaptureFixture
) -> None:
    """Unknown for a while, but held."""
    leases = [acquire(alias, str(number), ttl=30) for number in range(5)]
    servers[alias].kill()
    try:
        due_now(leases)
        until(lambda: "could not be renewed; it will be tried again" in caplog.text)
        assert all(lease.held for lease in leases)
    finally:
        servers[alias].start()
        connections[alias].close()
    until(renewed_since(leases))
    assert not lost
    assert [lease.release() for lease in leases] == [True] * 5


@on_each_server
@pytest.mark.usefixtures("durable")
def test_leases_end_while_their_database_is_down(
    alias: str, servers: dict[str, Server], lost: dict[Lease, str]
) -> None:
    """Unknown, then lost, and lost they stay: each is told once."""
    leases = [acquire(alias, str(number), ttl=2) for number in range(5)]
    servers[alias].kill()
    try:
        held = [True] * 5

        def all_lost() -> bool:
            now_held = [lease.held for lease in leases]
            assert all(map(operator.le, now_held, held))  # none is held again
            held[:] = now_held
            return len(lost) == 5

        until(all_lost)
        assert held == [False] * 5
    finally:
        servers[alias].start()
        connections[alias].close()
    for lease in leases:
        with pytest.raises(LockLost, match="ttl of 2 seconds has passed"):
            lease.renew()
        assert lease.release() is False
    assert lost.keys() == set(leases)
    assert acquire_lock("0", backend=alias, timeout=30)


@on_each_server
def test_leases_outlast_the_connections_that_they_came_by(
    alias: str, lost: dict[Lease, str]
) -> None:
    """A lock isn't a session's: one that dies inside a block is no loss (peer defects 4, 11)."""
    with distributed_lock("a", backend=alias, ttl=3) as lease:
        kill_other_sessions(alias)
        due_now([lease])
        until(renewed_since([lease]))
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
            with suppress(Exception):  # gone meanwhile
                cursor.execute("KILL %s", [session])


# Leaks


@on_each_database
def test_nothing_stays_behind(alias: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """After 10,000 acquisitions, by two connections: no lease, no thread, no connection."""
    acquisitions = 2_000 if alias == "default" else 10_000  # SQLite has one writer, and no sessions
    close_own_connections()
    sessions_before, leases_before = sessions(alias), leases_in_memory()
    workers = 2 if alias == "default" else 50  # SQLite lets writers starve when they are many
    monkeypatch.setattr("django_distlock.background.IDLE", 0.2)

    def work(name: str) -> int:
        granted = 0
        try:
            for _ in range(acquisitions // workers):
                with distributed_lock(name, backend=alias, ttl=6):
                    granted += 1
        finally:
            connections.close_all()
        return granted

    with ThreadPoolExecutor(workers) as threads:
        names = [f"{alias} {number}" for number in range(workers)]
        assert sum(threads.map(work, names)) == acquisitions
    assert sessions(alias) - sessions_before <= 2
    until(lambda: background(alias).thread is None)
    assert len(background(alias).renewals) == 0
    assert leases_in_memory() <= leases_before
    until(lambda: sessions(alias) <= sessions_before)
    assert not any(each.name == f"django_distlock {alias}" for each in threading.enumerate())


def leases_in_memory() -> set[int]:
    """Return the ids of those that somebody refers to, as some tests do."""
    gc.collect()
    return {id(each) for each in gc.get_objects() if isinstance(each, Lease)}
