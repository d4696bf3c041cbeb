"""The databases that tests run on, and ways to lock, kill and watch their sessions."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from django.core.management import call_command
from django.db import connections
from django.db.backends.signals import connection_created

from django_distlock import acquire_lock, clocks, lock_backends
from django_distlock.backends.database import DatabaseBackend, listening
from django_distlock.backends.database import connections as own
from django_distlock.models import Lock, LockPause
from tests.support.concurrency import elsewhere
from tests.support.lossy_proxy import LossyProxy
from tests.support.postgresql import start_pgbouncer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from django.db.backends.base.base import BaseDatabaseWrapper

    from django_distlock.backends.database.statements import Statements

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
    # Django clears only these apps' tables after each test: its own apps, and the rows that it
    # creates in them, would take most of the time.
    available_apps=["django_distlock", "tests.app"],
)


@contextmanager
def another_session(alias: str) -> Iterator[BaseDatabaseWrapper]:
    """Connect once more to the database, as another process would."""
    connection = connections[alias].copy()
    try:
        yield connection
    finally:
        connection.close()


@contextmanager
def locked_row(alias: str, semaphore: str) -> Iterator[None]:
    """Lock the semaphore's row by another transaction in the block, as an UPDATE does.

    Code that notices this lock notices any: SELECT … FOR UPDATE takes a stronger one on PostgreSQL.
    """
    with another_session(alias) as other:
        other.set_autocommit(False)
        with other.cursor() as cursor:
            cursor.execute(
                "UPDATE distlock_lock SET holder = 'operator' WHERE semaphore = %s",
                [semaphore.encode() if other.vendor == "mysql" else semaphore],
            )
        try:
            yield
        finally:
            other.rollback()  # a closed session would keep it locked for a moment


@contextmanager
def another_database(alias: str, options: str = "") -> Iterator[None]:
    """Point the alias to a new database with the tables of locks.

    At the end Django drops it, as it drops a test database.
    """
    connection = connections[alias]
    before = str(connection.settings_dict["NAME"])
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE another {options}")
    connection.close()
    connection.settings_dict["NAME"] = "another"
    try:
        call_command("migrate", "distlock", database=alias, verbosity=0)
        yield
    finally:
        try:
            connection.creation.destroy_test_db(before, verbosity=0)
        finally:
            connection.settings_dict["NAME"] = before


@contextmanager
def connected_to_file(path: Path, **settings: Any) -> Iterator[BaseDatabaseWrapper]:
    """Connect to a new SQLite file with the tables of locks, by the alias "file"."""
    connection = connections["default"].copy("file")
    connection.settings_dict |= {"NAME": str(path / "file.sqlite3"), **settings}
    connections["file"] = connection
    try:
        with connection.schema_editor() as editor:
            editor.create_model(Lock)
            editor.create_model(LockPause)
        yield connection
    finally:
        del connections["file"]
        connection.close()


@contextmanager
def using_engine(alias: str, engine: str, **options: Any) -> Iterator[None]:
    """Make new connections, and this thread's and the locks', use the engine in the block."""
    before = connections[alias]
    entry = connections.settings[alias]
    own.close_own_connections()
    with mock.patch.dict(entry, ENGINE=engine, OPTIONS=entry["OPTIONS"] | options):
        connections[alias] = connections.create_connection(alias)
        try:
            yield
        finally:
            connections[alias].close()
            connections[alias] = before
            own.close_own_connections()


@contextmanager
def noting_connections(alias: str) -> Iterator[list[BaseDatabaseWrapper]]:
    """Note each connection that is made to the database in the block."""
    made: list[BaseDatabaseWrapper] = []

    def note(*, connection: BaseDatabaseWrapper, **kwargs: Any) -> None:
        if connection.alias == alias:
            made.append(connection)

    connection_created.connect(note)
    try:
        yield made
    finally:
        connection_created.disconnect(note)


def kill_session(alias: str) -> None:
    """End this thread's session from another one."""
    own, kill = {
        "postgresql": ("SELECT pg_backend_pid()", "SELECT pg_terminate_backend(%s)"),
        "mysql": ("SELECT connection_id()", "KILL %s"),
    }[connections[alias].vendor]
    with connections[alias].cursor() as cursor:
        cursor.execute(own)
        (session,) = cursor.fetchone()
    with another_session(alias) as other, other.cursor() as cursor:
        cursor.execute(kill, [session])


def sessions(alias: str) -> int:
    """Return how many sessions the server has; SQLite has none."""
    query = {
        "postgresql": "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'",
        "mysql": "SELECT count(*) FROM information_schema.processlist WHERE user = 'root'",
        "sqlite": "SELECT 0",
    }
    with connections[alias].cursor() as cursor:
        cursor.execute(query[connections[alias].vendor])
        return int(cursor.fetchone()[0])


class isolated:  # noqa: N801 - a block
    """Connect with another isolation level in the block."""

    def __init__(self, alias: str, level: str) -> None:
        self.connection = connections[alias]
        self.level: Any = level
        if self.connection.vendor == "postgresql":
            from django.db.backends.postgresql.psycopg_any import IsolationLevel

            self.level = IsolationLevel[level.upper().replace(" ", "_")]

    def __enter__(self) -> None:
        self.connection.close()
        self.connection.settings_dict["OPTIONS"]["isolation_level"] = self.level

    def __exit__(self, *exception: object) -> None:
        self.connection.close()
        del self.connection.settings_dict["OPTIONS"]["isolation_level"]


@contextmanager
def paused_before_writing(alias: str, meanwhile: Callable[[], object]) -> Iterator[None]:
    """Run this in another thread right before the block's first UPDATE is sent.

    Or BEGIN, where others can't write from then on, as on SQLite.
    """
    pauses = [meanwhile]

    def pause(execute: Any, sql: str, *arguments: Any) -> Any:
        if pauses and sql.startswith(("BEGIN", "UPDATE")):
            elsewhere(pauses.pop())
        return execute(sql, *arguments)

    with connections[alias].execute_wrapper(pause):
        yield
    assert not pauses


def pool_of(alias: str) -> own.OwnConnections:
    """Return the lock backend's own connections."""
    backend = lock_backends[alias]
    assert isinstance(backend, DatabaseBackend)
    return own.own_connections(backend.using, 2, type(backend).statements)


def own_statements(alias: str) -> Statements:
    """Return the statements on the first of them, which is opened again if necessary."""
    return pool_of(alias).all[0].statements(clocks.monotonic() + 60)


def operating_connection(alias: str) -> BaseDatabaseWrapper:
    """Return the connection of what operators call: where locks have their own, one of them."""
    return connections[alias] if alias == "default" else own_statements(alias).connection


class SpyingCursor:
    """A cursor that records what it executes in this thread: others listen and renew."""

    def __init__(self, cursor: Any, sent: list[str]) -> None:
        self.cursor, self.sent = cursor, sent
        self.thread = threading.get_ident()

    def execute(self, sql: str, parameters: Any) -> None:
        if threading.get_ident() == self.thread:
            self.sent.append(sql)
        self.cursor.execute(sql, parameters)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.cursor, name)


def statements_sent(alias: str, action: Callable[[], object]) -> list[str]:
    """Return the statements that the action sends on the first of them, which is idle."""
    sent: list[str] = []
    statements = own_statements(alias)
    spying = SpyingCursor(statements.cursor(), sent)
    with mock.patch.object(statements, "cursor", return_value=spying):
        action()
    return sent


@contextmanager
def through_proxy(alias: str) -> Iterator[LossyProxy]:
    """Route the locks' own connections through a proxy, but not the test's."""
    connections[alias].ensure_connection()
    settings = connections[alias].settings_dict
    with LossyProxy(settings["HOST"], int(settings["PORT"])) as proxy, reached_at(alias, proxy):
        yield proxy


@contextmanager
def reached_at(alias: str, proxy: LossyProxy) -> Iterator[None]:
    """Route the locks' own connections to the database through this proxy."""
    with mock.patch.dict(connections[alias].settings_dict, PORT=str(proxy.port)):
        acquired = acquire_lock("warm up", backend=alias)
        assert acquired is not None
        assert acquired.release()
        yield
        own.close_own_connections()


@contextmanager
def behind_pgbouncer(**settings: Any) -> Iterator[None]:
    """Put a pooler in transaction mode in front of PostgreSQL."""
    entry = connections.settings["postgresql"]
    with start_pgbouncer(entry) as pooler:
        place = {key: pooler.settings[key] for key in ("HOST", "PORT")}
        with mock.patch.dict(entry, place | settings):
            own.close_own_connections()
            connections["postgresql"].close()
            try:
                yield
            finally:
                listening.close_listeners()
                own.close_own_connections()
                connections["postgresql"].close()
