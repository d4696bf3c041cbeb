"""A few connections of a process that are for locks alone.

On PostgreSQL and MySQL's family lock SQL doesn't run on the caller's connection: a grant has to be
visible at once, to survive the caller's rollback, and to leave the caller's transaction alone.
"""

import atexit
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from django.db import connections
from django.db.backends.base.base import NO_DB_ALIAS, BaseDatabaseWrapper
from django.db.backends.signals import connection_created

from .errors import HARMLESS


class OwnConnections:
    """At most `size` autocommit connections to one database, lent to one thread at a time."""

    def __init__(self, alias: str, size: int) -> None:
        self.alias = alias
        self._slots = threading.BoundedSemaphore(size)
        self._idle: list[BaseDatabaseWrapper] = []

    @contextmanager
    def lend(self) -> Iterator[BaseDatabaseWrapper]:
        """Lend a connection; after an error that may have broken it, all idle ones are closed."""
        with self._slots:
            try:
                connection = self._idle.pop()
            except IndexError:
                connection = self._open()
            try:
                yield connection
            except HARMLESS:
                self._idle.append(connection)
                raise
            except BaseException:
                self._idle.append(connection)
                self.close()
                raise
            self._idle.append(connection)

    def close(self) -> None:
        """Close the idle connections; the next ones are opened when they are needed."""
        while self._idle:
            with suppress(IndexError):  # another thread was faster
                _close(self._idle.pop())

    def _open(self) -> BaseDatabaseWrapper:
        connection = connections[self.alias].copy()
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
        # The driver's own cursors: nobody's debug log, which the owner has no place in, and quick.
        vars(connection)["cursor"] = connection.connection.cursor
        return connection


def _can_prepare(settings: dict[str, Any]) -> bool:
    """Tell whether PostgreSQL's prepared statements will be there the next time.

    DISABLE_SERVER_SIDE_CURSORS is what Django wants set behind a pooler in transaction mode, which
    hands each statement another session.
    """
    from django.db.backends.postgresql.psycopg_any import is_psycopg3

    return is_psycopg3 and not settings.get("DISABLE_SERVER_SIDE_CURSORS")


@contextmanager
def hidden_parameters(connection: BaseDatabaseWrapper) -> Iterator[BaseDatabaseWrapper]:
    """Keep what a caller's connection does in this block out of Django's debug log."""
    vars(connection)["make_debug_cursor"] = connection.make_cursor
    try:
        yield connection
    finally:
        del vars(connection)["make_debug_cursor"]


def _close(connection: BaseDatabaseWrapper) -> None:
    """Close without Django's check that this isn't an event loop: a fork may happen in one."""
    with suppress(Exception):  # broken already
        connection.connection.close()
    connection.connection = None


_pools: dict[tuple[Any, ...], OwnConnections] = {}


def own_connections(caller: BaseDatabaseWrapper, size: int) -> OwnConnections:
    """Return this process's connections to the database that the caller's is connected to."""
    key = (size, *database_key(caller))
    pool = _pools.get(key)
    if pool is None:
        pool = _pools.setdefault(key, OwnConnections(caller.alias, size))
    return pool


def database_key(connection: BaseDatabaseWrapper) -> tuple[Any, ...]:
    """Return what tells a database from others; a test's has another name under the same alias."""
    settings = connection.settings_dict
    return connection.alias, settings["NAME"], settings["HOST"], settings["PORT"]


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
