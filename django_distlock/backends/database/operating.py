"""How the database backend runs what operators call: on which connection, and how long it waits."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import sleep
from typing import Any, Final, TypeVar

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

from django_distlock import clocks
from django_distlock.exceptions import LockBackendUnavailable

from .base import BaseDatabaseBackend
from .errors import is_file_locked
from .statements import Statements

T = TypeVar("T")

RETRY: Final = 0.02
"""Seconds between two attempts to write to SQLite's file."""
DRIVERS_TIMEOUT: Final = 5.0
"""Seconds for which Python's driver waits for another writer, unless OPTIONS have a timeout."""


class OperatingDatabaseBackend(BaseDatabaseBackend):
    """Part of DatabaseBackend."""

    def _operate(self, action: Callable[[Statements], T]) -> T:
        """Run an operator's action, which waits for other writers wherever it can.

        On SQLite, a connection that is reading, in a transaction or not, can't wait to write: it
        fails at once if another one writes, or has written since. Then the action runs on another
        connection. Without a write-ahead log that one would wait for the reader.
        """
        try:
            return self._run(action)
        except LockBackendUnavailable as error:
            if not is_file_locked(error.__cause__):
                raise
        if _has_write_ahead_log(connections[self.using]):
            with connected(self.using, connections.create_connection(self.using)) as another:
                try:
                    return self._run(action)
                finally:
                    another.close()
        return self._insist(action)

    def _insist(self, action: Callable[[Statements], T]) -> T:
        """Try for as long as a connection that reads nothing would wait."""
        options = connections[self.using].settings_dict["OPTIONS"]
        deadline = clocks.monotonic() + options.get("timeout", DRIVERS_TIMEOUT)
        while True:
            sleep(RETRY)
            try:
                return self._run(action)
            except LockBackendUnavailable as error:
                if not is_file_locked(error.__cause__) or clocks.monotonic() > deadline:
                    raise

    def _use_orm(self, action: Callable[[], T]) -> T:
        """Do what Django's ORM does with the alias, on the connection that locks use.

        So on PostgreSQL and MySQL's family it has a time limit, and takes effect at once, whatever
        becomes of the caller's transaction.
        """

        def act(statements: Statements) -> T:
            with connected(self.using, statements.connection):
                return action()

        return self._operate(act)


@contextmanager
def connected(alias: str, connection: BaseDatabaseWrapper) -> Iterator[BaseDatabaseWrapper]:
    """Have the alias mean this connection in the block, for this thread."""
    callers = connections[alias]
    connections[alias] = connection
    try:
        yield connection
    finally:
        connections[alias] = callers


def _has_write_ahead_log(connection: Any) -> bool:
    if connection.vendor != "sqlite" or connection.is_in_memory_db():
        return False
    return bool(connection.connection.execute("PRAGMA journal_mode").fetchone() == ("wal",))
