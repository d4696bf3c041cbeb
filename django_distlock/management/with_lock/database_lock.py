"""A database's own lock, which needs no table: PostgreSQL's, MariaDB's and MySQL's, SQLite's file.

Each belongs to a session, or to an open file. It ends when that does, at the latest with the
process; nothing has to renew it.
"""

import fcntl
import math
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from django.db import Error, OperationalError, connections

from django_distlock import clocks
from django_distlock.backends.base import BaseLockBackend
from django_distlock.backends.database import DatabaseBackend
from django_distlock.backends.database.errors import RowLocked, translate
from django_distlock.backends.database.own_connection import OwnConnection, is_behind_pooler
from django_distlock.backends.database.statements import Statements
from django_distlock.exceptions import LockBackendUnavailable

PURPOSE: Final = "django_distlock with_lock"
"""Part of each key: another program's locks in the database have other keys."""
LONGEST_WAIT: Final = 1.0
"""Seconds for which one statement waits, at most; then the next one does."""
LONGEST_SILENCE: Final = 30
"""Seconds without a check after which the server ends a session: this host has gone, probably."""
FILE_WAIT: Final = 0.05
"""Seconds between two attempts to lock a file."""


class NoDatabaseLock(Exception):
    """The database has no lock of its own that is safe to use; the message says why."""


class DatabaseLock(ABC):
    """A lock that the database itself keeps, for one semaphore."""

    def __init__(self, store: DatabaseBackend, semaphore: str) -> None:
        self.store = store
        self.key = sha256(f"{PURPOSE}\0{semaphore}".encode()).digest()

    @abstractmethod
    def acquire(self, wait: float = 0) -> bool:
        """Wait so many seconds for the lock, LONGEST_WAIT at most. True also if it is held already.

        LockBackendUnavailable: the database could not be asked. NoDatabaseLock: it has none.
        """

    @abstractmethod
    def is_held(self) -> bool:
        """Ask whether the lock is still held; it is not if the database doesn't answer."""

    @abstractmethod
    def release(self) -> None:
        """Release the lock, if it is held."""


class SessionLock(DatabaseLock):
    """A lock that belongs to a session: it is held for as long as this one connection."""

    acquire_sql: str
    held_sql: str

    def __init__(self, store: DatabaseBackend, semaphore: str) -> None:
        super().__init__(store, semaphore)
        self._connection = OwnConnection(store.using, partial(Statements, table=""))
        self._is_acquired = False
        self.parameters: dict[str, Any] = {}

    def acquire(self, wait: float = 0) -> bool:
        if not (self._is_acquired and self._connection.is_open):
            wait = min(wait, LONGEST_WAIT)
            try:
                self._is_acquired = self._run(partial(self._acquire, wait=wait), wait)
            except RowLocked:
                return False
        return self._is_acquired

    def is_held(self) -> bool:
        try:
            self._is_acquired = (
                self._is_acquired
                and self._connection.is_open
                and self._run(lambda statements: self._ask(statements, self.held_sql))
            )
        except LockBackendUnavailable:
            self._is_acquired = False
        return self._is_acquired

    def release(self) -> None:
        self._is_acquired = False
        self._connection.close()

    def _acquire(self, statements: Statements, wait: float) -> bool:
        self.parameters["wait"] = math.ceil(wait)
        return self._ask(statements, self.acquire_sql)

    def _ask(self, statements: Statements, sql: str) -> bool:
        """Return whether the value that the statement selects is true."""
        with statements.connection.wrap_database_errors:
            return bool(statements.fetch(sql, self.parameters)[0][0])

    def _run(self, action: Callable[[Statements], bool], wait: float = 0) -> bool:
        """Do the action on the connection. After an error that is closed, and the lock released."""
        deadline = clocks.monotonic() + wait + self.store.store_timeout
        try:
            return self._connection.do(action, deadline)
        except (Error, TimeoutError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            if isinstance(error, TimeoutError):
                reason = f"no answer in {self.store.store_timeout} seconds"
            raise LockBackendUnavailable(f"DISTLOCK[{self.store.alias!r}]: {reason}") from error


class PostgreSQLLock(SessionLock):
    """An advisory lock of the session."""

    acquire_sql = "SELECT pg_advisory_lock(%(key)s) IS NOT NULL"
    held_sql = "SELECT pg_backend_pid() = %(pid)s"
    # With the keepalives the server notices within half a minute that this host has gone.
    session_sql = """
        SELECT set_config('lock_timeout', %(milliseconds)s, false),
            set_config('statement_timeout', '0', false),
            set_config('tcp_keepalives_idle', '15', false),
            set_config('tcp_keepalives_interval', '5', false),
            set_config('tcp_keepalives_count', '3', false)
    """

    def __init__(self, store: DatabaseBackend, semaphore: str) -> None:
        super().__init__(store, semaphore)
        self.parameters = {"key": int.from_bytes(self.key[:8], signed=True)}

    def _acquire(self, statements: Statements, wait: float) -> bool:
        self._refuse_pooler(statements)
        self.parameters["milliseconds"] = str(max(1, int(1000 * wait)))  # 0 would wait for ever
        self._ask(statements, self.session_sql)
        try:
            return super()._acquire(statements, wait)
        except OperationalError as error:
            if translate("postgresql", error) is RowLocked:
                raise RowLocked from error
            raise

    def _refuse_pooler(self, statements: Statements) -> None:
        """Raise NoDatabaseLock behind a pooler: other clients would get this session, and the lock.

        A pooler tells its clients a process id of its own making.
        """
        connection: Any = statements.connection
        self.parameters["pid"] = connection.connection.info.backend_pid
        if is_behind_pooler(connection.settings_dict) or not self._ask(statements, self.held_sql):
            raise NoDatabaseLock(
                f"the database {self.store.using!r} is behind a pooler, such as PgBouncer, where "
                "PostgreSQL's advisory locks are not safe: give with_lock a direct connection"
            )


class MySQLLock(SessionLock):
    """A named lock of MariaDB or MySQL, of 64 characters at most.

    It is the whole server's, so the name depends on the database's.
    """

    acquire_sql = "SELECT GET_LOCK(%(name)s, %(wait)s)"
    held_sql = "SELECT IS_USED_LOCK(%(name)s) = CONNECTION_ID()"
    session_sql = "SET SESSION wait_timeout = %(silence)s"

    def __init__(self, store: DatabaseBackend, semaphore: str) -> None:
        super().__init__(store, semaphore)
        database = str(connections[store.using].settings_dict["NAME"])
        digest = sha256(database.encode() + b"\0" + self.key).hexdigest()
        self.parameters = {"name": f"distlock:{digest}"[:64], "silence": LONGEST_SILENCE}

    def _acquire(self, statements: Statements, wait: float) -> bool:
        statements.execute(self.session_sql, self.parameters)
        return super()._acquire(statements, wait)


class SQLiteLock(DatabaseLock):
    """A lock on one byte of a file beside the database's file, for the processes of this host."""

    def __init__(self, store: DatabaseBackend, semaphore: str) -> None:
        super().__init__(store, semaphore)
        self._file: int | None = None
        self._byte = int.from_bytes(self.key[:7])

    def acquire(self, wait: float = 0) -> bool:
        if self._file is not None:
            return True
        if wait:  # the file lock has no timeout
            time.sleep(min(wait, FILE_WAIT))
        file = self._open()
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, self._byte)
        except BlockingIOError:
            os.close(file)
            return False
        self._file = file
        return True

    def _open(self) -> int:
        connection: Any = connections[self.store.using]
        name = str(connection.settings_dict["NAME"])
        if connection.is_in_memory_db() or name.startswith("file:"):
            raise NoDatabaseLock(f"the database {self.store.using!r} is no plain file")
        try:
            return os.open(f"{Path(name).resolve()}-with_lock", os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise LockBackendUnavailable(f"DISTLOCK[{self.store.alias!r}]: {error}") from error

    def is_held(self) -> bool:
        return self._file is not None

    def release(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            os.close(file)


LOCKS: Final[dict[str, type[DatabaseLock]]] = {
    "postgresql": PostgreSQLLock,
    "mysql": MySQLLock,
    "sqlite": SQLiteLock,
}


def database_lock(store: BaseLockBackend, semaphore: str) -> DatabaseLock | None:
    """Return the own lock of the database that the store is in; None if it is in no database.

    NoDatabaseLock: with_lock knows no lock of this database.
    """
    if not isinstance(store, DatabaseBackend):
        return None
    connection = connections[store.using]
    if connection.vendor not in LOCKS:
        raise NoDatabaseLock(f"with_lock can't lock {connection.display_name} itself")
    return LOCKS[connection.vendor](store, semaphore)
