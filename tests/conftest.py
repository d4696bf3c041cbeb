"""Fixtures for all tests."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import filterfalse
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connections

from django_distlock import signals
from django_distlock.concurrency.callers import current_caller
from django_distlock.concurrency.process_queue import recent_handovers
from django_distlock.conf import lock_backends
from django_distlock.leases.outcomes import stop_renewal
from django_distlock.leases.process_exit import unreferenced_leases
from django_distlock.leases.registry import current_registry
from django_distlock.logs import clear_repeats
from django_distlock.signals import ReentrantSignal, lock_acquired, lock_lost
from tests.support.lock_server_command import Place, new_place
from tests.support.lock_server_proxy import LockServerProxy
from tests.support.lock_servers import start_lock_server
from tests.support.lossy_proxy import LossyProxy
from tests.support.memcached import start_memcached
from tests.support.moved_clock import MovedClock
from tests.support.plugin import FILES, SURROUNDINGS, create_databases
from tests.support.ports import HOST, reserved_port
from tests.support.redis_servers import Cluster, connect, start_redis
from tests.support.scripted_store import ScriptedBackend
from tests.support.servers import Server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from django_distlock import Lease
    from django_distlock.backends.base import BaseLockBackend
    from django_distlock.leases.owned_lease import OwnedLease


@pytest.fixture(scope="session", autouse=True)
def few_rows() -> Iterator[None]:
    """Empty PostgreSQL's tables by DELETE after a test: TRUNCATE takes thirty times as long."""
    with pytest.MonkeyPatch.context() as patch:
        for connection in connections.all():
            if connection.vendor == "postgresql":
                patch.setattr(type(connection.ops), "sql_flush", delete_from)
        yield


@pytest.fixture(scope="session")
def django_db_setup(pytestconfig: pytest.Config) -> None:
    """Create SQLite's databases; those of servers are created when these are started."""
    create_databases(pytestconfig, FILES)


def delete_from(operations: Any, style: Any, tables: list[str], **options: bool) -> list[str]:
    """Return statements that empty the tables."""
    return ["; ".join(f"DELETE FROM {operations.quote_name(table)}" for table in tables)]


@pytest.fixture(scope="session")
def servers(pytestconfig: pytest.Config) -> dict[str, Server]:
    """Return the servers by name, to stop, kill and restart. Mark what a test `needs`."""
    found = pytestconfig.stash[SURROUNDINGS].servers
    return {name: server for name, server in found.items() if isinstance(server, Server)}


@pytest.fixture(scope="session")
def redis_cluster(pytestconfig: pytest.Config) -> Cluster:
    """Return the Redis Cluster that runs: mark the test with `needs("redis_cluster")`."""
    cluster = pytestconfig.stash[SURROUNDINGS].servers["redis_cluster"]
    assert isinstance(cluster, Cluster)
    return cluster


@pytest.fixture(scope="session")
def spare_redis() -> Iterator[Server]:
    """Run a Redis server that tests may fill, pause and kill."""
    with start_redis() as running:
        yield running


@pytest.fixture
def redis_server(spare_redis: Server) -> Server:
    """Return the Redis server in its original state: mark the test with `needs("redis")`."""
    with connect(spare_redis) as client:
        client.flushall()
        client.script_flush()
        for kind in ("normal", "pubsub"):
            client.client_kill_filter(_type=kind, skipme=True)
        client.config_set("maxmemory", 0)
        client.config_set("maxmemory-policy", "noeviction")
    return spare_redis


@pytest.fixture
def unused_port() -> Iterator[int]:
    """Return a port at which nothing listens, unless the test does."""
    with reserved_port() as port:
        yield port


@pytest.fixture
def durable(alias: str) -> None:
    """Make the tests' MariaDB durable: otherwise it flushes its log only once a second."""
    if alias == "mariadb":
        with connections[alias].cursor() as cursor:
            cursor.execute("SET GLOBAL innodb_flush_log_at_trx_commit = 2")


@pytest.fixture
def redis_proxy(redis_server: Server) -> Iterator[LossyProxy]:
    """Put a proxy in front of the Redis server."""
    with LossyProxy(HOST, redis_server.port) as running:
        yield running


@pytest.fixture(scope="module")
def memcached_server() -> Iterator[Server]:
    """Run a Memcached server that tests may pause: mark them with `needs("memcached")`."""
    with start_memcached() as running:
        yield running


@pytest.fixture(scope="module")
def spare_lock_server() -> Iterator[Server]:
    """Run a lock server that tests may pause."""
    with start_lock_server() as running:
        yield running


@pytest.fixture(scope="module")
def patient_lock_server() -> Iterator[Server]:
    """Run a lock server whose offers don't expire, so that no test depends on that."""
    with start_lock_server(settings="tests.support.lasting_offers_settings") as running:
        yield running


@pytest.fixture
def lock_server_proxy(spare_lock_server: Server) -> Iterator[LockServerProxy]:
    """Put a proxy in front of the spare lock server."""
    with LockServerProxy(HOST, spare_lock_server.port) as running:
        yield running


@pytest.fixture
def place() -> Iterator[Place]:
    """Return where an operator runs lock servers, at a port."""
    with new_place() as found:
        yield found


@pytest.fixture
def unix_place() -> Iterator[Place]:
    """Return a place at a unix socket."""
    with new_place(unix=True) as found:
        yield found


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    """Return threads for waiters."""
    with ThreadPoolExecutor(100) as running:
        yield running


@pytest.fixture
def lost() -> Iterator[dict[Lease, str]]:
    """Collect the leases of the signal lock_lost, each once, with the reason."""
    collected: dict[Lease, str] = {}

    def receive(*, lease: Lease, reason: str, **kwargs: Any) -> None:
        assert lease not in collected
        collected[lease] = reason

    lock_lost.connect(receive)
    yield collected
    lock_lost.disconnect(receive)


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """Forget each test's leases at its end: most rows are gone by then."""
    yield
    for lease in current_registry().leases():
        lease.claim_end()
        stop_renewal(lease)
    current_caller().registry = None
    unreferenced_leases.clear()


@pytest.fixture(autouse=True)
def unrecorded() -> Iterator[None]:
    """Record no events because another test's store asked for it."""
    yield
    if any(map(records_events, lock_acquired.recorders)):
        from django_distlock.events.recording import begin

        begin.cache_clear()
        for signal in vars(signals).values():
            if isinstance(signal, ReentrantSignal):
                signal.recorders = tuple(filterfalse(records_events, signal.recorders))


def records_events(recorder: Callable[..., object]) -> bool:
    """Tell whether this recorder is one of the recorded history's."""
    return recorder.__module__ == "django_distlock.events.recording"


@pytest.fixture(scope="session")
def replaced_stores() -> Iterator[dict[str, BaseLockBackend]]:
    """Return a dict that may have another default store, for every thread.

    The class is changed once for all tests: after a thousand changes of a class, CPython 3.13 goes
    on calling the `__getitem__` that it had.
    """
    stores: dict[str, BaseLockBackend] = {}
    find = type(lock_backends).__getitem__

    def find_or_replace(handler: Any, alias: str) -> BaseLockBackend:
        return stores["default"] if stores and alias == "default" else find(handler, alias)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(lock_backends), "__getitem__", find_or_replace)
        yield stores


@pytest.fixture
def scripted(replaced_stores: dict[str, BaseLockBackend]) -> Iterator[ScriptedBackend]:
    """Replace the default store by a scripted one, in every thread."""
    store = ScriptedBackend("default")
    recent_handovers.clear()
    replaced_stores["default"] = store
    yield store
    replaced_stores.clear()


@pytest.fixture
def no_celery_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the tasks that other tests of this process have defined from the system checks."""
    if celery := sys.modules.get("celery"):
        monkeypatch.setattr(celery, "current_app", SimpleNamespace(tasks={}))


@pytest.fixture
def moved_clock(monkeypatch: pytest.MonkeyPatch) -> MovedClock:
    """Return the local clock by which leases end, for the test to move."""
    return MovedClock(monkeypatch)


@pytest.fixture(autouse=True)
def clear_repeated_lines() -> Iterator[None]:
    """Leave out no line because another test has logged it."""
    clear_repeats()
    yield
    clear_repeats()


@pytest.fixture
def stopped_clock(moved_clock: MovedClock) -> None:
    """Stop the clock, so that nothing depends on how long a test takes."""
    moved_clock.stop()


@pytest.fixture
def acquired() -> Iterator[list[OwnedLease]]:
    """Collect the leases that are acquired in the test, in order."""
    leases: list[OwnedLease] = []

    def receive(*, lease: OwnedLease, **kwargs: Any) -> None:
        leases.append(lease)

    lock_acquired.connect(receive)
    yield leases
    lock_acquired.disconnect(receive)
