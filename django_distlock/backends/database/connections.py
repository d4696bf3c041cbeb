"""A few connections of a process that are for locks alone.

On PostgreSQL and MySQL's family lock SQL doesn't run on the caller's connection: a grant has to be
visible at once, to survive the caller's rollback, and to leave the caller's transaction alone.
"""

import atexit
import os
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any

from django.db import connections
from django.db.backends.base.base import NO_DB_ALIAS, BaseDatabaseWrapper
from django.db.backends.signals import connection_created

from .errors import HARMLESS
from .statements import Statements


class OwnConnections:
    """At most `size` autocommit connections to one database, lent to one thread at a time.

    `statements` makes what is lent: the statements of one connection.
    """

    def __init__(
        self, alias: str, size: int, statements: Callable[[BaseDatabaseWrapper], Statements]
    ) -> None:
        self.alias = alias
        self.statements = statements
        self._idle: list[Statements] = []
        # One item for each that may be lent: a counting semaphore, without threading's overhead.
        self._free: SimpleQueue[None] = SimpleQueue()
        for _ in range(size):
            self._free.put(None)

    def lend(self) -> "Loan":
        """Lend a connection to a `with` block, when one is free."""
        return Loan(self)

    def take(self) -> Statements:
        """Wait for an idle connection, or for leave to open one."""
        self._free.get()
        try:
            return self._idle.pop()
        except IndexError:
            pass
        try:
            return self._open()
        except BaseException:
            self._free.put(None)
            raise

    def take_back(self, lent: Statements) -> None:
        """Let others have the connection."""
        self._idle.append(lent)
        self._free.put(None)

    def close(self) -> None:
        """Close the idle connections; the next ones are opened when they are needed."""
        while self._idle:
            with suppress(IndexError):  # another thread was faster
                _close(self._idle.pop().connection)

    def _open(self) -> Statements:
        connection = _connect(self.alias)
        try:
            opened = self.statements(connection)
        except BaseException:
            _close(connection)
            raise
        # Nobody else uses the connection, and there is nothing that Django would have to check.
        cursor = connection.connection.cursor()
        opened.cursor = lambda: cursor
        return opened


class Loan:
    """A block that has a connection; after an error that may have broken it, idle ones are closed.

    A class, since a generator would take longer than all the rest.
    """

    __slots__ = ("lent", "pool")

    def __init__(self, pool: OwnConnections) -> None:
        self.pool = pool

    def __enter__(self) -> Statements:
        self.lent = self.pool.take()
        return self.lent

    def __exit__(self, kind: type[BaseException] | None, *details: object) -> None:
        self.pool.take_back(self.lent)
        if kind is not None and not issubclass(kind, HARMLESS):
            self.pool.close()


def _connect(alias: str) -> BaseDatabaseWrapper:
    connection = connections[alias].copy()
    settings = connection.settings_dict
    settings["AUTOCOMMIT"] = True
    settings["OPTIONS"].pop("pool", None)
    if connection.vendor == "postgresql" and _can_prepare(settings):
        settings["OPTIONS"] |= {"server_side_binding": True, "prepare_threshold": 0}
    connection.inc_thread_sharing()
    connection.ensure_connection()
    if connection.vendor == "mysql":
        with connection.cursor() as cursor:
            # In seconds, 1 is MySQL's shortest. UTC, so that no DST makes the clock jump.
            cursor.execute("SET innodb_lock_wait_timeout = 1, time_zone = '+00:00'")
    return connection


def _can_prepare(settings: dict[str, Any]) -> bool:
    """Tell whether PostgreSQL's prepared statements will be there the next time.

    DISABLE_SERVER_SIDE_CURSORS is what Django wants set behind a pooler in transaction mode, which
    hands each statement another session.
    """
    from django.db.backends.postgresql.psycopg_any import is_psycopg3

    return is_psycopg3 and not settings.get("DISABLE_SERVER_SIDE_CURSORS")


def _close(connection: BaseDatabaseWrapper) -> None:
    """Close without Django's check that this isn't an event loop: a fork may happen in one."""
    with suppress(Exception):  # broken already
        connection.connection.close()
    connection.connection = None


_pools: dict[tuple[Any, ...], OwnConnections] = {}


def own_connections(
    alias: str, size: int, statements: Callable[[BaseDatabaseWrapper], Statements]
) -> OwnConnections:
    """Return this process's connections to the database that the alias leads to now."""
    settings = connections.settings[alias]
    # A test's database has another name under the same alias.
    key = (alias, settings["NAME"], settings["HOST"], settings["PORT"], size, statements)
    pool = _pools.get(key)
    if pool is None:
        pool = _pools.setdefault(key, OwnConnections(alias, size, statements))
    return pool


def close_own_connections() -> None:
    """Close all idle own connections of this process."""
    for pool in list(_pools.values()):
        pool.close()


def _close_before_drop(connection: BaseDatabaseWrapper, **kwargs: Any) -> None:
    """Let go of a database that may be about to be dropped: Django connects to none for that."""
    if connection.alias == NO_DB_ALIAS:
        close_own_connections()


connection_created.connect(_close_before_drop, dispatch_uid="django_distlock.own_connections")
# Before a fork rather than after it: a child that closes a shared socket would end the parent's
# session. A pool that was in use by another thread is the parent's; the child begins anew.
os.register_at_fork(before=close_own_connections, after_in_child=_pools.clear)
atexit.register(close_own_connections)
