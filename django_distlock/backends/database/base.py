"""Run statements for the database backend: choose a connection, retry, translate errors."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any, ClassVar, Final, TypeVar

from django.core.checks import CheckMessage
from django.db import DEFAULT_DB_ALIAS, Error, InterfaceError, OperationalError
from django.db import connections as connections_by_alias
from django.db.backends.base.base import BaseDatabaseWrapper

from django_distlock import clocks
from django_distlock.arguments import validate_text, validate_whole
from django_distlock.backends.base import BaseLockBackend
from django_distlock.backends.time_budget import Budget, validate_store_timeout
from django_distlock.exceptions import InvalidLockBackend, LockBackendUnavailable
from django_distlock.models import Lock
from django_distlock.runtime import is_in_testcase
from django_distlock.semaphores.validation import InvalidSemaphore

from .checks import check_place, how_to_migrate
from .connections import InUse, OwnConnections, own_connections
from .database_checks import inspect_database
from .errors import Conflict, RowLocked, is_unknown_character, is_unmigrated, translate
from .mariadb import MariaDBStatements
from .mysql import MySQLStatements
from .orm import ORMStatements
from .own_connection import OwnConnection
from .postgresql import PostgreSQLStatements
from .sqlite import SQLiteStatements
from .statements import Statements

T = TypeVar("T")

TRIES: Final = 10
"""How often a statement is sent that keeps failing by a deadlock or by a locked row."""


class BaseDatabaseBackend(BaseLockBackend):
    """The options of the database backend, and how its statements are run."""

    store_timeout: float
    using: str
    own_connection_vendors: ClassVar[frozenset[str]] = frozenset({"postgresql", "mysql"})

    def __init__(
        self,
        alias: str,
        *,
        using: str = DEFAULT_DB_ALIAS,
        ttl: float | None = 60,
        connections: int = 2,
        store_timeout: float = 2,
        guard_commits: bool = True,
        events: bool = False,
    ) -> None:
        super().__init__(alias, ttl=ttl, guard_commits=guard_commits, events=events)
        self.store_timeout = validate_store_timeout(alias, store_timeout)
        try:
            connections = validate_whole("connections", connections, 1)
            using = validate_text("using", using, ", an alias in DATABASES")
        except (TypeError, ValueError) as error:
            raise InvalidLockBackend(f"DISTLOCK[{alias!r}]: {error}") from error
        if using not in connections_by_alias:
            raise InvalidLockBackend(
                f"DISTLOCK[{alias!r}]: there is no database {using!r}; DATABASES has: "
                f"{', '.join(connections_by_alias)}."
            )
        self.using = using
        self.connections = self.threads = connections
        self._caller_statements: Statements | None = None
        self._budget = Budget(store_timeout)

    @property
    def events_using(self) -> str:
        return self.using

    @classmethod
    def statements(cls, connection: BaseDatabaseWrapper) -> Statements:
        """Return the statements for this connection; a subclass may choose others."""
        table = connection.ops.quote_name(Lock._meta.db_table)
        match connection.vendor:
            case "postgresql":
                return PostgreSQLStatements(connection, table)
            case "sqlite" if connection.features.can_return_columns_from_insert:
                return SQLiteStatements(connection, table)
            case "mysql" if connection.features.can_return_columns_from_insert:
                return MariaDBStatements(connection, table)
            case "mysql":
                return MySQLStatements(connection, table)
        return ORMStatements(connection, table)

    def check(self, **kwargs: object) -> list[CheckMessage]:
        return [*check_place(self.alias, self.using)]

    def check_database(self) -> list[CheckMessage]:
        return self._inspect(lambda connection: inspect_database(self.alias, connection))

    def time_budget(self) -> Budget:
        return self._budget

    def joins_transaction(self) -> bool:
        if self._uses_own_connections():
            return False
        return connections_by_alias[self.using].in_atomic_block

    @property
    def keeps_open(self) -> bool:
        return self._uses_own_connections()

    def close(self) -> None:
        if self._may_have_own_connections:
            self._own_connections().close_idle()

    def _run(
        self,
        action: Callable[[Statements], T],
        retried: tuple[type[Exception], ...] = (Conflict, RowLocked),
    ) -> T:
        """Run the action; retry it after these errors, and translate others."""
        deadline = self._budget.deadline()
        for _ in range(TRIES):
            try:
                return self._run_once(action, deadline)
            except retried as error:
                last = error
                if clocks.monotonic() >= deadline:
                    break
        raise self._error(last)

    def _run_once(self, action: Callable[[Statements], T], deadline: float) -> T:
        """Run the action on a connection of our own until the deadline, or on the caller's."""
        sent = False

        def send(statements: Statements) -> T:
            nonlocal sent
            sent = True
            return _act(action, statements)

        try:
            if self._uses_own_connections():
                return self._own_connections().do(send, deadline)
            return _act(action, self._on_caller())
        except InUse as error:
            reason = f"all {self.connections} connections for locks have been in use for too long"
            raise self._error(reason) from error
        except TimeoutError as error:
            reason = f"no answer in {self.store_timeout} seconds"
            raise self._error(reason, reply_lost=sent) from error
        except Error as error:
            if is_unknown_character(connections_by_alias[self.using].vendor, error):
                # It is the semaphore: Statements.fitting() has replaced the characters of others.
                reason = "the encoding of the database can't have this semaphore"
                raise InvalidSemaphore(f"DISTLOCK[{self.alias!r}]: {reason}.") from error
            lost = sent and isinstance(error, InterfaceError | OperationalError)
            raise self._error(error, reply_lost=lost) from error

    def _own_connections(self) -> OwnConnections:
        return own_connections(self.using, self.connections, type(self).statements)

    def _uses_own_connections(self) -> bool:
        if not self._may_have_own_connections:
            return False
        if "django.test.testcases" not in sys.modules:
            return True  # skips looking up the connection, which would be the slowest step here
        return not is_in_testcase(connections_by_alias[self.using])

    @cached_property
    def _may_have_own_connections(self) -> bool:
        return connections_by_alias[self.using].vendor in self.own_connection_vendors

    def _inspect(self, action: Callable[[BaseDatabaseWrapper], T]) -> T:
        """Run the action on a connection of its own, which needs no table, within the time limit.

        On SQLite and other databases, on the caller's.
        """
        own = OwnConnection(self.using, lambda connection: Statements(connection, ""))
        try:
            if not self._uses_own_connections():
                return action(connections_by_alias[self.using])
            return own.do(lambda sql: action(sql.connection), self._budget.deadline())
        except TimeoutError as error:
            raise self._error(f"no answer in {self.store_timeout} seconds") from error
        except Error as error:
            raise self._error(error) from error
        finally:
            own.close()

    def _on_caller(self) -> Statements:
        """Return the statements for the caller's connection."""
        caller = connections_by_alias[self.using]
        found = self._caller_statements
        if found is None or found.connection is not caller:
            found = self._caller_statements = self.statements(caller)
        return found

    @contextmanager
    def _unavailable(self) -> Iterator[None]:
        """Raise LockBackendUnavailable for a database error in the block."""
        try:
            yield
        except Error as error:
            raise self._error(error) from error

    def _error(self, error: Exception | str, *, reply_lost: bool = False) -> LockBackendUnavailable:
        # PostgreSQL's second line, the detail, may have the row with the owner.
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        message = f"DISTLOCK[{self.alias!r}]: {reason}"
        connection = connections_by_alias[self.using]
        if isinstance(error, Error) and is_unmigrated(connection.vendor, error):
            message += f". {how_to_migrate(connection)}."
        return LockBackendUnavailable(message, reply_lost=reply_lost)


def _act(action: Callable[[Statements], T], statements: Statements) -> T:
    """Do the action; raise a driver's error as what it says about the row, or as Django's."""
    connection: Any = statements.connection
    try:
        return action(statements)
    except (Error, connection.Database.Error) as failure:
        try:
            with connection.wrap_database_errors:
                raise failure
        except Error as error:
            if kind := translate(connection.vendor, error):
                raise kind(str(error)) from error
            raise
