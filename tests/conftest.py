"""Fixtures that every test can ask for."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connections

from django_distlock.backends.base import BaseLockBackend, Grant, Renewal
from django_distlock.borders import current_worker
from django_distlock.exceptions import LockBackendUnavailable
from django_distlock.fields import EPOCH
from django_distlock.flows import current_flow
from django_distlock.handler import lock_backends
from django_distlock.signals import lock_lost
from tests.operators import Place, new_place
from tests.plugin import SURROUNDINGS
from tests.proxies import LossyProxy
from tests.redis_servers import Cluster, connect
from tests.servers import HOST, Server, start_redis

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django_distlock.leases import Lease

DATABASES = [
    pytest.param("default", id="sqlite"),
    pytest.param("postgresql", marks=pytest.mark.needs("postgresql")),
    pytest.param("mariadb", marks=pytest.mark.needs("mariadb")),
]
SERVERS = DATABASES[1:]
on_each_database = pytest.mark.parametrize("alias", DATABASES)
on_each_server = pytest.mark.parametrize("alias", SERVERS)
committed = pytest.mark.django_db(
    databases="__all__",
    transaction=True,
    # What Django tidies up after each test: its own apps' tables, and what it keeps in them, would
    # take most of the time.
    available_apps=["django_distlock", "tests.app"],
)


@pytest.fixture(scope="session", autouse=True)
def few_rows() -> Iterator[None]:
    """Empty PostgreSQL's tables after a test by DELETE: TRUNCATE takes thirty times as long."""
    with pytest.MonkeyPatch.context() as patch:
        for connection in connections.all():
            if connection.vendor == "postgresql":
                patch.setattr(type(connection.ops), "sql_flush", delete_from)
        yield


def delete_from(operations: Any, style: Any, tables: list[str], **options: bool) -> list[str]:
    """Return what empties the tables."""
    return ["; ".join(f"DELETE FROM {operations.quote_name(table)}" for table in tables)]


@pytest.fixture(scope="session")
def servers(pytestconfig: pytest.Config) -> dict[str, Server]:
    """Return the servers that run, by name: to be stopped, killed and restarted."""
    running = pytestconfig.stash[SURROUNDINGS].servers
    return {name: server for name, server in running.items() if isinstance(server, Server)}


@pytest.fixture(scope="session")
def redis_cluster(pytestconfig: pytest.Config) -> Cluster:
    """Return the Redis Cluster that runs: mark the test with `needs("redis_cluster")`."""
    cluster = pytestconfig.stash[SURROUNDINGS].servers["redis_cluster"]
    assert isinstance(cluster, Cluster)
    return cluster


@pytest.fixture(scope="session")
def own_redis() -> Iterator[Server]:
    """Run a Redis server that tests may fill, pause and kill."""
    with start_redis() as running:
        yield running


@pytest.fixture
def server(own_redis: Server) -> Server:
    """Return it as it was at first: mark the test with `needs("redis")`."""
    with connect(own_redis) as client:
        client.flushall()
        client.script_flush()
        for kind in ("normal", "pubsub"):
            client.client_kill_filter(_type=kind, skipme=True)
        client.config_set("maxmemory", 0)
        client.config_set("maxmemory-policy", "noeviction")
    return own_redis


@pytest.fixture
def durable(alias: str) -> None:
    """Let the tests' MariaDB keep each commit: otherwise it flushes its log once a second."""
    if alias == "mariadb":
        with connections[alias].cursor() as cursor:
            cursor.execute("SET GLOBAL innodb_flush_log_at_trx_commit = 2")


@pytest.fixture
def proxy(server: Server) -> Iterator[LossyProxy]:
    """Put a proxy before the module's server, which may be another kind than server() here."""
    with LossyProxy(HOST, int(server.database_settings["PORT"])) as running:
        yield running


@pytest.fixture
def place() -> Iterator[Place]:
    """Return where an operator runs lock servers, at a port."""
    with new_place() as found:
        yield found


@pytest.fixture
def unix_place() -> Iterator[Place]:
    """Return where they are at a unix socket."""
    with new_place(unix=True) as found:
        yield found


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    """Return threads for those who wait."""
    with ThreadPoolExecutor(100) as running:
        yield running


class ScriptedBackend(BaseLockBackend):
    """A store of one lock that answers what a test tells it to, and remembers what it was asked."""

    def __init__(self, alias: str) -> None:
        super().__init__(alias)
        self.owner = ""
        self.ends = EPOCH
        self.tokens = count(1)
        self.calls: list[str] = []
        self.answers: dict[str, list[Any]] = {}

    def answer(self, action: str, *answers: Any) -> None:
        """Let the next calls raise or call these; `LOST` raises after all was carried out."""
        self.answers[action] = list(answers)

    def _scripted(self, action: str) -> bool:
        """Raise what is next; tell whether the action is to be carried out and its reply lost."""
        self.calls.append(action)
        answers = self.answers.get(action)
        answer = answers.pop(0) if answers else None
        if isinstance(answer, BaseException):
            raise answer
        if callable(answer):
            answer()
        return answer is LOST

    def _reply(self, lost: bool) -> None:
        if lost:
            raise LockBackendUnavailable("the reply was lost", reply_lost=True)

    def acquire(self, semaphore: str, owner: str, ttl: float | None, holder: str) -> Grant | None:
        lost = self._scripted("acquire")
        if self.owner not in ("", owner):
            return None
        self.owner = owner
        self._reply(lost)
        return Grant(next(self.tokens), EPOCH, EPOCH)

    def renew(self, leases: Any) -> dict[str, Any]:
        self._reply(self._scripted("renew"))
        self.ends += timedelta(seconds=1)
        renewal = Renewal(True, self.ends)
        return {lease.owner: renewal for lease in leases if lease.owner == self.owner}

    def release(self, lease: Any, keep: float = 0) -> bool:
        lost = self._scripted("release")
        released: bool = self.owner == lease.owner
        if released:
            self.owner = ""
        self._reply(lost)
        return released


LOST = object()


@pytest.fixture
def lost() -> Iterator[dict[Lease, str]]:
    """Return the leases that are told to be lost, each once, and why."""
    told: dict[Lease, str] = {}

    def receive(*, lease: Lease, reason: str, **kwargs: Any) -> None:
        assert lease not in told
        told[lease] = reason

    lock_lost.connect(receive)
    yield told
    lock_lost.disconnect(receive)


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """Let no test's leases outlast it: most are gone with their rows."""
    yield
    for lease in current_flow().all():
        lease.settle()
        lease.stop_renewal()
    current_worker().flow = None


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> ScriptedBackend:
    """Put a scripted store in the place of the default one, in every thread."""
    store = ScriptedBackend("default")
    find = type(lock_backends).__getitem__

    def find_or_script(handler: Any, alias: str) -> BaseLockBackend:
        return store if alias == "default" else find(handler, alias)

    monkeypatch.setattr(type(lock_backends), "__getitem__", find_or_script)
    return store
