"""Every store with a clock that a test moves, forward and, where the promise covers it, back."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, ClassVar
from unittest import mock

from django.db import connections
from redis import RedisCluster

from django_distlock import lock_backends
from django_distlock.backends.database import orm
from django_distlock.backends.database.connections import close_own_connections
from django_distlock.backends.memory import shared_table
from django_distlock.backends.redis import scripts
from django_distlock.backends.redis.scripts import Script
from django_distlock.clocks import NOW
from django_distlock.fields import to_datetime
from django_distlock.models import Lock, LockPause, WaitingProcess
from django_distlock.server.table import LockTable
from tests.support import memcached_stores
from tests.support.lock_servers import flawless_lock_server, locks_of, move_clock
from tests.support.redis_servers import connect, place
from tests.support.redis_stores import lasting_offers, vary

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

    from django_distlock.backends.base import BaseLockBackend
    from tests.support.servers import Server

CLOCK = "machine_clock"
"""The table with a database's time."""


class MovedStore(ABC):
    """A store, and its clock."""

    steps_back: ClassVar[bool] = True
    """Whether the clock can be set back."""
    leases_step_back: ClassVar[bool] = True
    """Whether a lease lasts longer if it is set back; else only tokens are by that clock."""
    keeps_ended: ClassVar[bool] = True
    """Whether the store still knows a lease that has ended."""

    def __init__(self, alias: str) -> None:
        self.alias = alias

    @property
    def store(self) -> BaseLockBackend:
        """The store, as this thread uses it."""
        return lock_backends[self.alias]

    @abstractmethod
    def move(self, seconds: float) -> None:
        """Move the clock by so many seconds."""

    @abstractmethod
    def empty(self, semaphores: list[str]) -> None:
        """Delete all locks and pauses: they are of these semaphores."""


class MovedMemory(MovedStore):
    """The memory store, or one that a test made of it."""

    leases_step_back = False

    def __init__(self, alias: str = "memory") -> None:
        super().__init__(alias)
        self.now, self.wall = 1000.0, 1_700_000_000_000_000

    def move(self, seconds: float) -> None:
        self.now += max(seconds, 0)
        self.wall += round(seconds * 1_000_000)

    def empty(self, semaphores: list[str]) -> None:
        shared_table(self.alias).table = LockTable(
            monotonic=lambda: self.now, microseconds=lambda: self.wall
        )


class MovedDatabase(MovedStore):
    """A database: its statements read the time of a table, where they read the clock."""

    def __init__(self, alias: str, using: str) -> None:
        super().__init__(alias)
        self.using = using
        self.microseconds = time.time_ns() // 1000

    def read(self, connection: Any = None) -> Any:
        """Return the time, as the ORM's statements ask for it."""
        return to_datetime(self.microseconds)

    def move(self, seconds: float) -> None:
        self.microseconds += round(seconds * 1_000_000)
        self.run(f"UPDATE {CLOCK} SET microseconds = {self.microseconds}")
        # A process that had a heartbeat just now still lives: one that joins need not send another.
        WaitingProcess.objects.using(self.using).update(seen_at=to_datetime(self.microseconds))

    def run(self, *statements: str) -> None:
        """Run these statements."""
        with connections[self.using].cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    def empty(self, semaphores: list[str]) -> None:
        Lock.objects.using(self.using).all().delete()
        LockPause.objects.using(self.using).all().delete()

    @contextmanager
    def prepared(self) -> Iterator[None]:
        """Make the table, and statements that read it."""
        name = {"mariadb": "mysql"}.get(self.using, connections[self.using].vendor)
        close_own_connections()
        self.run(
            f"CREATE TABLE {CLOCK} (microseconds bigint)",
            f"INSERT INTO {CLOCK} VALUES ({self.microseconds})",
        )
        moved = {name: f"(SELECT microseconds FROM {CLOCK})"}
        try:
            with mock.patch.dict(NOW, moved), mock.patch.object(orm, "read_clock", self.read):
                lock_backends.reset()
                yield
        finally:
            close_own_connections()
            lock_backends.reset()
            self.run(f"DROP TABLE {CLOCK}")


class MovedRedis(MovedStore):
    """Redis: its scripts add to the time that they read, and its keys expire as much sooner."""

    keeps_ended = False

    def __init__(self, alias: str, client: Any) -> None:
        super().__init__(alias)
        self.client, self.ahead = client, 0.0

    def move(self, seconds: float) -> None:
        before, self.ahead = _reading(self.ahead), self.ahead + seconds
        for script in vars(scripts).values():
            if isinstance(script, Script):
                moved = script.source.replace(before, _reading(self.ahead))
                assert moved != script.source or before not in script.source
                vary(script, moved)
        for key in self.client.scan_iter():
            if (left := self.client.pttl(key)) >= 0:
                self.client.pexpire(key, max(round(left - seconds * 1000), 0))

    def empty(self, semaphores: list[str]) -> None:
        for key in self.client.scan_iter():
            self.client.delete(key)

    @contextmanager
    def prepared(self) -> Iterator[None]:
        """Keep offers from expiring by the server's own clock, however slow this machine is."""
        with lasting_offers():
            for script in vars(scripts).values():
                if isinstance(script, Script):
                    vary(script, script.source.replace(TIME, _reading(0)))
            yield


TIME = "redis.call('TIME')"


def _reading(ahead: float) -> str:
    """Return how a script reads a clock that is ahead."""
    return f"(function(time) return {{time[1] + ({ahead:.0f}), time[2]}} end)(redis.call('TIME'))"


class MovedLockServer(MovedStore):
    """A lock server of its own process."""

    steps_back = False

    def __init__(self, alias: str, server: Server) -> None:
        super().__init__(alias)
        self.server, self.ahead = server, 0.0

    def move(self, seconds: float) -> None:
        self.ahead += seconds
        move_clock(self.server.directory, self.ahead)

    def empty(self, semaphores: list[str]) -> None:
        """The server forgets locks as soon as they are released, and pauses that are resumed."""
        for lock in self.store.held():
            self.store.force_release(lock.semaphore, lock.token or 0)
        for pause in self.store.pauses():
            self.store.resume(pause.prefix)


class MovedMemcached(MovedStore):
    """Memcached, whose clock is never set: its entries expire as much sooner instead."""

    steps_back = False

    def __init__(self, alias: str) -> None:
        super().__init__(alias)
        self.semaphores: set[str] = set()

    def move(self, seconds: float) -> None:
        for key in map(memcached_stores.key_of, self.semaphores):
            [found] = memcached_stores.ask(self.alias, f"mg {key} t")[:1] or [""]
            if found.startswith("HD t"):
                left = int(found.removeprefix("HD t")) - round(seconds)
                memcached_stores.ask(
                    self.alias, f"touch {key} {left}" if left > 0 else f"delete {key}"
                )

    def empty(self, semaphores: list[str]) -> None:
        self.semaphores |= {*semaphores}
        for key in map(memcached_stores.key_of, semaphores):
            memcached_stores.ask(self.alias, f"delete {key}")


def redis_client(alias: str, request: pytest.FixtureRequest) -> Any:
    """Return a client of the database, or of the cluster, that the store is in."""
    if alias == "redis_cluster":
        nodes = request.getfixturevalue("redis_cluster").nodes
        return RedisCluster(*place(nodes[0]))
    server = request.getfixturevalue("servers")["redis"]
    return connect(server, {"redis": 1, "django_redis_cache": 2}[alias])


@contextmanager
def moved_store(alias: str, request: pytest.FixtureRequest) -> Iterator[MovedStore]:
    """Return the store of this alias; `request` is the test's, for the servers that it needs."""
    with ExitStack() as stack:
        found: MovedStore
        if alias == "memory":
            found = MovedMemory()
            stack.callback(shared_table("memory").reset)
        elif alias in DATABASES_OF:
            found = MovedDatabase(alias, DATABASES_OF[alias])
            stack.enter_context(found.prepared())
        elif alias == "memcached":
            found = MovedMemcached(alias)
        elif alias == "lock_server":
            settings = "tests.state_machine.lock_server_settings"
            # A connection must not count as idle because the clock was moved.
            running = flawless_lock_server("--idle", "10000000", settings=settings)
            server = stack.enter_context(running)
            stack.enter_context(locks_of(server))
            found = MovedLockServer(alias, server)
        else:
            found = MovedRedis(alias, stack.enter_context(redis_client(alias, request)))
            stack.enter_context(found.prepared())
        yield found


DATABASES_OF = {
    "default": "default",
    "orm": "default",
    "postgresql": "postgresql",
    "orm_postgresql": "postgresql",
    "mariadb": "mariadb",
    "mysql": "mariadb",
}
"""The database of each store that is kept in one."""
