"""A few connections of a process that are for locks alone.

On PostgreSQL and MySQL's family lock SQL doesn't run on the caller's connection: a grant has to be
visible at once, to survive the caller's rollback, and to leave the caller's transaction alone.
"""

import atexit
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from itertools import cycle
from typing import Any

from django.db import connections
from django.db.backends.base.base import NO_DB_ALIAS, BaseDatabaseWrapper
from django.db.backends.signals import connection_created

from .statements import Statements


class OwnConnection:
    """A connection to the database that the alias has in DATABASES, for one thread at a time.

    Whoever uses it has its `lock`, by `with`: no signal's exception then leaves it taken.
    """

    def __init__(self, alias: str, statements: Callable[[BaseDatabaseWrapper], Statements]) -> None:
        self.lock = threading.Lock()
        self._alias = alias
        self._make = statements
        self._opened: Statements | None = None
        self._suspect = False

    def statements(self) -> Statements:
        """Return what can be sent on it, opened anew if need be."""
        if self._suspect:
            self.close()
        if self._opened is None:
            self._opened = self._open()
            self._suspect = False
        return self._opened

    def suspect(self) -> None:
        """Have it closed before its next use: it may be broken."""
        self._suspect = True

    def close(self) -> None:
        """Close it; the next use opens it."""
        opened, self._opened = self._opened, None
        if opened is not None:
            _close(opened.connection)

    def close_if_idle(self) -> None:
        """Close it unless a thread uses it."""
        if self.lock.acquire(blocking=False):
            try:
                self.close()
            finally:
                self.lock.release()

    def _open(self) -> Statements:
        connection = connections.create_connection(self._alias).copy()
        settings = connection.settings_dict
        settings["AUTOCOMMIT"] = True
        settings["OPTIONS"].pop("pool", None)
        if connection.vendor == "postgresql" and _can_prepare(settings):
            settings["OPTIONS"] |= {"server_side_binding": True, "prepare_threshold": 0}
        connection.inc_thread_sharing()
        try:
            connection.ensure_connection()
            if connection.vendor == "mysql":
                with connection.cursor() as cursor:
                    # In seconds, 1 is MySQL's shortest. UTC, so that no DST makes the clock jump.
                    cursor.execute("SET innodb_lock_wait_timeout = 1, time_zone = '+00:00'")
            opened = self._make(connection)
            opened.use(connection.connection.cursor())
        except BaseException:
            _close(connection)
            raise
        return opened


class OwnConnections:
    """The few connections of this process to one database that are for locks alone."""

    def __init__(
        self, alias: str, size: int, statements: Callable[[BaseDatabaseWrapper], Statements]
    ) -> None:
        self.all = [OwnConnection(alias, statements) for _ in range(size)]
        self._turns = cycle(self.all)
        self._known: Statements | None = None

    def choose(self) -> OwnConnection:
        """Return the first that is free; if all are in use, each in turn, to wait for."""
        for each in self.all:
            if not each.lock.locked():
                return each
        return next(self._turns)

    def known(self) -> Statements:
        """Return statements that are complete, though their connection may be closed by now."""
        if self._known is None:
            own = self.choose()
            with own.lock:
                self._known = own.statements()
        return self._known

    def close_idle(self) -> None:
        """Close those that no thread uses."""
        for each in self.all:
            each.close_if_idle()

    def suspect(self) -> None:
        """Have all closed before their next use."""
        for each in self.all:
            each.suspect()


def _can_prepare(settings: dict[str, Any]) -> bool:
    """Tell whether PostgreSQL's prepared statements will be there the next time."""
    from django.db.backends.postgresql.psycopg_any import is_psycopg3

    return is_psycopg3 and not is_behind_pooler(settings)


def is_behind_pooler(settings: dict[str, Any]) -> bool:
    """Tell whether each statement may get another session.

    DISABLE_SERVER_SIDE_CURSORS is what Django wants set behind a pooler in transaction mode.
    """
    return bool(settings.get("DISABLE_SERVER_SIDE_CURSORS"))


def _close(connection: BaseDatabaseWrapper) -> None:
    """Close without Django's check that this isn't an event loop: a fork may happen in one."""
    with suppress(Exception):  # broken already
        connection.connection.close()
    connection.connection = None


_pools: dict[tuple[Any, ...], OwnConnections] = {}


def own_connections(
    alias: str, size: int, statements: Callable[[BaseDatabaseWrapper], Statements]
) -> OwnConnections:
    """Return this process's connections to the database that DATABASES has now for the alias."""
    # A test's database has another name under the same alias.
    key = (alias, *place(connections.settings[alias]), size, statements)
    pool = _pools.get(key)
    if pool is None:
        pool = _pools.setdefault(key, OwnConnections(alias, size, statements))
    return pool


def place(settings: dict[str, Any]) -> tuple[Any, ...]:
    """Return where a connection with these settings leads."""
    return settings["NAME"], settings["HOST"], settings["PORT"]


def close_own_connections() -> None:
    """Close all idle own connections of this process."""
    for pool in list(_pools.values()):
        pool.close_idle()


def _close_before_drop(connection: BaseDatabaseWrapper, **kwargs: Any) -> None:
    """Let go of a database that may be about to be dropped: Django connects to none for that."""
    if connection.alias == NO_DB_ALIAS:
        close_own_connections()


connection_created.connect(_close_before_drop, dispatch_uid="django_distlock.own_connections")
# Before a fork rather than after it: a child that closes a shared socket would end the parent's
# session. A pool that was in use by another thread is the parent's; the child begins anew.
os.register_at_fork(before=close_own_connections, after_in_child=_pools.clear)
atexit.register(close_own_connections)
