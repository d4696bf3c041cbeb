"""One connection that is for locks alone: its settings, its deadline, and its end."""

import math
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final, TypeVar

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

from django_distlock import clocks
from django_distlock.transactions import for_locks

from .deadlines import connecting, limit
from .errors import HARMLESS
from .statements import Statements

T = TypeVar("T")
Make = Callable[[BaseDatabaseWrapper], Statements]

PARAMETERS: Final[dict[str, dict[str, Any]]] = {
    # So that each text can be sent, whatever the OPTIONS say. On PostgreSQL, Django does the same.
    "mysql": {"charset": "utf8mb4", "use_unicode": True},
}
"""Parameters of the driver, by vendor, that override the alias's OPTIONS."""

SESSION: Final[dict[str, str]] = {
    # In seconds; MySQL's shortest is 1. UTC, so that no change to summer time makes the clock jump.
    "mysql": "SET innodb_lock_wait_timeout = 1, time_zone = '+00:00'",
}
"""The first statement in a new session, by vendor."""


class OwnConnection:
    """A connection to a database in DATABASES that is for locks alone.

    One thread at a time uses it, and holds its `lock` while it does.
    """

    def __init__(self, alias: str, make: Make) -> None:
        # An RLock knows its thread, wherever an exception strikes: see OwnConnections.do().
        self.lock = threading.RLock()
        self.is_used = False
        self.deadline = math.inf
        """When the running statement has to be answered, by the local monotonic clock."""
        self._alias = alias
        self._make = make
        self._opened: Statements | None = None
        self._is_sound = True

    @property
    def is_open(self) -> bool:
        """Whether it was opened and not closed since; the server may have ended it."""
        return self._opened is not None

    def do(self, action: Callable[[Statements], T], deadline: float) -> T:
        """Do the action by the deadline; TimeoutError if the database doesn't answer by then.

        After an error or an interruption, at whatever point, the connection is closed.
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
        """Return its statements, to be sent before the deadline; open it if need be."""
        self.deadline = deadline
        if not self._is_sound:
            self.close()
        if self._opened is None:
            self._opened = self._open()
            self._is_sound = True
        return self._opened

    def suspect(self) -> None:
        """Close it before its next use, unless a use that is under way succeeds."""
        self._is_sound = False

    def close(self) -> None:
        """Close it; the next use opens it again."""
        opened, self._opened = self._opened, None
        if opened is not None:
            _close(opened.connection)

    def close_if_idle(self) -> None:
        """Close it unless a thread uses it: another one, or this one, which was interrupted."""
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
            with connection.wrap_database_errors:  # the cursor is the driver's, not Django's
                opened.use(connection.connection.cursor())
        except BaseException:
            _close(connection)
            raise
        return opened

    def _prepare(self) -> BaseDatabaseWrapper:
        """Return Django's wrapper for a new connection, with settings derived from the alias's.

        The copy of the settings is not a deep one: some values can't be copied, such as an
        SSLContext.
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
            parameters.pop("collation", None)  # may be of another charset
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


def can_prepare(settings: dict[str, Any]) -> bool:
    """Return whether a statement that PostgreSQL prepared can be used again."""
    from django.db.backends.postgresql.psycopg_any import is_psycopg3

    return is_psycopg3 and not is_behind_pooler(settings)


def is_behind_pooler(settings: dict[str, Any]) -> bool:
    """Return whether each statement may be sent to another session.

    Django requires DISABLE_SERVER_SIDE_CURSORS behind a pooler in transaction mode.
    """
    return bool(settings.get("DISABLE_SERVER_SIDE_CURSORS"))


def _close(connection: BaseDatabaseWrapper) -> None:
    """Close, without Django's check that no event loop runs: a fork may happen in one."""
    with suppress(Exception):  # it may be broken
        connection.connection.close()
    connection.connection = None
