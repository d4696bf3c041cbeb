"""A few connections of a process that are for locks alone.

On PostgreSQL and MySQL's family lock SQL doesn't run on the caller's connection: a grant has to be
visible at once, to survive the caller's rollback, and to leave the caller's transaction alone.
"""

import atexit
import math
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import cycle
from typing import Any, Final, TypeVar

from django.db import connections
from django.db.backends.base.base import NO_DB_ALIAS, BaseDatabaseWrapper
from django.db.backends.signals import connection_created

from django_distlock import clocks
from django_distlock.transactions import for_locks

from .deadlines import connecting, limit
from .errors import HARMLESS
from .statements import Statements

T = TypeVar("T")
Make = Callable[[BaseDatabaseWrapper], Statements]

PARAMETERS: Final[dict[str, dict[str, Any]]] = {
    # Each text can be sent, whatever the site's OPTIONS say; Django does as much on PostgreSQL.
    "mysql": {"charset": "utf8mb4", "use_unicode": True},
}
"""What the driver is told, by the vendor, whatever the alias's OPTIONS have."""

SESSION: Final[dict[str, str]] = {
    # In seconds, 1 is MySQL's shortest. UTC, so that no DST makes the clock jump.
    "mysql": "SET innodb_lock_wait_timeout = 1, time_zone = '+00:00'",
}
"""What a new session is told first, by the vendor."""


class OwnConnection:
    """A connection to the database that the alias has in DATABASES, for one thread at a time.

    The thread that uses it has its `lock`.
    """

    def __init__(self, alias: str, make: Make) -> None:
        # An RLock knows whose it is, wherever an exception strikes: see OwnConnections.do().
        self.lock = threading.RLock()
        self.is_used = False
        self.deadline = math.inf
        """When a statement has to be answered, by the local monotonic clock."""
        self._alias = alias
        self._make = make
        self._opened: Statements | None = None
        self._is_sound = True

    @property
    def is_open(self) -> bool:
        """Tell whether it was opened and not closed since; the server may have ended it."""
        return self._opened is not None

    def do(self, action: Callable[[Statements], T], deadline: float) -> T:
        """Do it by the deadline; TimeoutError if the database doesn't answer by then.

        After an error, or if it is interrupted wherever it may be, the connection is closed.
        """
        self.is_used = True
        try:
            statements = self.statements(deadline)
            self._is_sound = False
            result = action(statements)
        except HARMLESS:
            self._is_sound = True
            raise
        except BaseException:
            self.close()
            raise
        else:
            self._is_sound = True
            return result
        finally:
            self.is_used = False

    def statements(self, deadline: float) -> Statements:
        """Return what can be sent on it until the deadline, opened anew if need be."""
        self.deadline = deadline
        if not self._is_sound:
            self.close()
        if self._opened is None:
            self._opened = self._open()
            self._is_sound = True
        return self._opened

    def suspect(self) -> None:
        """Have it closed before its next use, unless it is in use and that succeeds."""
        self._is_sound = False

    def close(self) -> None:
        """Close it; the next use opens it."""
        opened, self._opened = self._opened, None
        if opened is not None:
            _close(opened.connection)

    def close_if_idle(self) -> None:
        """Close it unless a thread uses it: another one, or this one, if it was interrupted."""
        if self.lock.acquire(blocking=False):
            try:
                if not self.is_used:
                    self.close()
            finally:
                self.lock.release()

    def _open(self) -> Statements:
        connection = self._prepare()
        connection.inc_thread_sharing()
        try:
            connection.ensure_connection()
            if settings := SESSION.get(connection.vendor):
                with connection.cursor() as cursor:
                    cursor.execute(settings)
            opened = self._make(connection)
            opened.use(connection.connection.cursor())
        except BaseException:
            _close(connection)
            raise
        return opened

    def _prepare(self) -> BaseDatabaseWrapper:
        """Return a wrapper of Django's for a new connection, by settings that are like the alias's.

        These aren't copied deeply: not everything in them need be copyable, an SSLContext isn't.
        """
        connection = for_locks(connections.create_connection(self._alias))
        settings = connection.settings_dict
        options = {**settings["OPTIONS"]}
        options.pop("pool", None)
        if connection.vendor == "postgresql" and can_prepare(settings):
            options["prepare_threshold"] = 0
        connection.settings_dict = settings | {"AUTOCOMMIT": True, "OPTIONS": options}
        vars(connection)["get_connection_params"] = partial(
            self._parameters, connection.vendor, connection.get_connection_params
        )
        vars(connection)["get_new_connection"] = partial(
            self._connect, connection.get_new_connection
        )
        return connection

    def _parameters(self, vendor: str, get: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        parameters = get() | PARAMETERS.get(vendor, {}) | connecting(vendor, self._seconds_left())
        if vendor == "mysql":
            parameters.pop("collation", None)  # which may be another charset's
        return parameters

    def _connect(self, connect: Callable[[dict[str, Any]], Any], parameters: dict[str, Any]) -> Any:
        driver = connect(parameters)
        limit(driver, lambda: self.deadline)
        return driver

    def _seconds_left(self) -> float:
        left = self.deadline - clocks.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


class InUse(TimeoutError):
    """All connections have been in use by other threads for all of the time."""


class OwnConnections:
    """The few connections of this process to one database that are for locks alone."""

    def __init__(self, alias: str, size: int, make: Make) -> None:
        self.all = [OwnConnection(alias, make) for _ in range(size)]
        self._turns = cycle(self.all)
        self._users: set[int] = set()
        """The threads that use one, or wait for one."""
        self.known: Statements | None = None
        """Statements that are complete, though their connection may be closed by now."""
        self._open_another = partial(OwnConnection, alias, make)

    def do(self, action: Callable[[Statements], T], deadline: float) -> T:
        """Do it on a connection that is free, or will be by the deadline; else TimeoutError.

        A thread that is interrupted in the midst of that, by a signal's handler or by the garbage
        collector, doesn't wait for what it uses itself, nor for those who may wait for it: it opens
        another connection, for this alone.

        An exception may come at any time here, too. To release a lock that turns out not to be ours
        does no harm.
        """
        thread = threading.get_ident()
        if thread in self._users:
            return self._do_apart(action, deadline)
        try:
            self._users.add(thread)
            own = self._choose()
            try:
                if not own.lock.acquire(timeout=max(0, deadline - clocks.monotonic())):
                    raise InUse
                return own.do(action, deadline)
            except (*HARMLESS, InUse):
                raise
            except BaseException:
                self.suspect()
                raise
            finally:
                try:  # noqa: SIM105 - suppress() could be interrupted
                    own.lock.release()
                except RuntimeError:
                    pass
        finally:
            self._users.discard(thread)

    def _do_apart(self, action: Callable[[Statements], T], deadline: float) -> T:
        another = self._open_another()
        try:
            return another.do(action, deadline)
        finally:
            another.close()

    def _choose(self) -> OwnConnection:
        """Return the first that is free; if all are in use, each in turn, to wait for."""
        for each in self.all:
            if not each.is_used:
                return each
        return next(self._turns)

    def close_idle(self) -> None:
        """Close those that no thread uses."""
        for each in self.all:
            each.close_if_idle()

    def suspect(self) -> None:
        """Have all closed before their next use."""
        for each in self.all:
            each.suspect()


def can_prepare(settings: dict[str, Any]) -> bool:
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


def own_connections(alias: str, size: int, make: Make) -> OwnConnections:
    """Return this process's connections to the database that DATABASES has now for the alias."""
    # A test's database has another name under the same alias.
    key = (alias, *place(connections.settings[alias]), size, make)
    pool = _pools.get(key)
    if pool is None:
        pool = _pools.setdefault(key, OwnConnections(alias, size, make))
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
