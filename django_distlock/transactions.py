"""The caller's transactions: which are open in this thread, and what to do when they end."""

import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

from .exceptions import LockError
from .runtime import (
    call_first_on_commit,
    commits_on_exit,
    is_closed_in_transaction,
    is_in_testcase,
    may_be_durable,
    transaction_key,
)

IN_TRANSACTION: Final = 2  # libpq's PQTRANS_INTRANS
SNAPSHOTS: Final = {"repeatable read", "serializable"}


class _Thread(threading.local):
    """What is known in one thread."""

    def __init__(self) -> None:
        self.opened: list[weakref.ref[BaseDatabaseWrapper]] = []
        """The connections that it opened; some may be closed or collected by now."""


_thread = _Thread()
_threads: dict[weakref.ref[BaseDatabaseWrapper], int] = {}
"""The identifier of the thread that opened each connection of this process."""


def _opened_here() -> list[BaseDatabaseWrapper]:
    """Return the connections that this thread opened; some may be closed by now.

    Django could be asked for the connection of every alias, but that takes longer than a refused
    attempt on SQLite.
    """
    return [connection for weakly in _thread.opened if (connection := weakly()) is not None]


def for_locks(connection: BaseDatabaseWrapper) -> BaseDatabaseWrapper:
    """Mark a connection as one for locks alone: no transaction of the caller is on it."""
    vars(connection)["is_for_locks"] = True
    return connection


def is_for_locks(connection: BaseDatabaseWrapper) -> bool:
    """Tell whether the connection was marked by for_locks()."""
    return "is_for_locks" in vars(connection)


def _remember(*, connection: BaseDatabaseWrapper, **kwargs: Any) -> None:
    if is_for_locks(connection):
        return
    opened = [*_opened_here(), connection]
    _thread.opened = [weakref.ref(each) for each in dict.fromkeys(opened)]
    _threads[weakref.ref(connection, _forget)] = threading.get_ident()


def _forget(connection: weakref.ref[BaseDatabaseWrapper]) -> None:
    _threads.pop(connection, None)


def connect_signals() -> None:
    """Remember each connection that is opened from now on."""
    connection_created.connect(_remember, dispatch_uid="django_distlock.transactions")


def open_transactions() -> list[BaseDatabaseWrapper]:
    """Return this thread's connections that are in an atomic block.

    A TestCase's block doesn't count, nor one whose connection was closed: its transaction is over.
    """
    return [
        connection
        for connection in _opened_here()
        if connection.in_atomic_block
        and not is_closed_in_transaction(connection)
        and not is_in_testcase(connection)
    ]


def undoable_transactions() -> list[BaseDatabaseWrapper]:
    """Return this thread's connections in an atomic block that can undo what was done in it.

    They are open_transactions(), and, in a TestCase, those in which the tested code has a block.
    """
    if "django.test.testcases" not in sys.modules:
        return open_transactions()
    return [
        connection
        for connection in _opened_here()
        if connection.in_atomic_block
        and not is_closed_in_transaction(connection)
        and not may_be_durable(connection)
    ]


def open_in_thread(thread: int | None = None) -> list[object]:
    """Return a key for each transaction that is open in the thread; None means in any thread.

    A TestCase's transaction counts, and so does a connection whose autocommit is off. Any thread
    may call this.
    """
    threads = list(_threads.items())  # a copy: other threads change it
    opened = [weakly() for weakly, ident in threads if thread is None or ident == thread]
    return [
        transaction_key(connection)
        for connection in opened
        if connection is not None and _is_open(connection)
    ]


def _is_open(connection: BaseDatabaseWrapper) -> bool:
    return connection.connection is not None and (
        connection.in_atomic_block or not connection.autocommit
    )


@contextmanager
def closing_new_connections() -> Iterator[None]:
    """Close the connections that this thread opens in the block."""
    before = [
        each for each in connections.all(initialized_only=True) if each.connection is not None
    ]
    try:
        yield
    finally:
        for connection in connections.all(initialized_only=True):
            if connection.connection is not None and connection not in before:
                connection.close()


def refuse_endless_transactions() -> None:
    """Raise LockError if a transaction is open that no atomic block will commit."""
    for connection in _opened_here():
        if connection.connection is None or connection.autocommit:
            continue
        if connection.in_atomic_block and commits_on_exit(connection):
            continue
        # A copy of the connection, which other code made for itself, doesn't count.
        if connection in connections.all(initialized_only=True):
            raise LockError(
                f"Autocommit is off on the database {connection.alias!r}, so it can't be known "
                "when work under a lock is committed. Use transaction.atomic() instead of "
                "set_autocommit(False) or AUTOCOMMIT = False."
            )


def refuse_older_snapshots(transactions: list[BaseDatabaseWrapper]) -> None:
    """Raise LockError if one of these transactions can't see what the last holder committed."""
    for connection in transactions:
        if not connection.needs_rollback and _reads_a_snapshot(connection):
            raise LockError(
                f"The transaction on the database {connection.alias!r} began before this lock was "
                "acquired, and at its isolation level (REPEATABLE READ or stricter) it may still "
                "read the data as of then. Acquire the lock before transaction.atomic()."
            )


def _reads_a_snapshot(connection: Any) -> bool:
    if connection.vendor == "postgresql":
        # IDLE: Django has begun the transaction, but has sent no statement yet.
        if connection.connection.info.transaction_status != IN_TRANSACTION:
            return False
        return _ask(connection, "SHOW transaction_isolation") in SNAPSHOTS
    if connection.vendor == "mysql":
        variable = "tx_isolation" if connection.mysql_is_mariadb else "transaction_isolation"
        level = getattr(connection, "isolation_level", None)
        level = level or _ask(connection, f"SELECT @@{variable}")
        return level.lower().replace("-", " ") in SNAPSHOTS
    return False


def has_snapshots(connection: Any) -> bool:
    """Tell whether this is PostgreSQL at REPEATABLE READ or stricter.

    An engine that connects in its own way may not know its isolation level; the server does.
    """
    if connection.vendor != "postgresql":
        return False
    level = getattr(connection, "isolation_level", None)
    if level is None:
        return _ask(connection, "SHOW transaction_isolation") in SNAPSHOTS
    name: str = level.name
    return name.lower().replace("_", " ") in SNAPSHOTS


def _ask(connection: BaseDatabaseWrapper, sql: str) -> str:
    with connection.cursor() as cursor, connection.wrap_database_errors:
        cursor.cursor.execute(sql)  # past Django's wrapper, which logs queries
        answer: str = cursor.fetchone()[0]
    return answer


class AfterTransactions:
    """Call `action(committed)` once, when all of these open transactions have ended.

    If the action is interrupted, it is called once more, when Django drops its callback.

    `committed` is True if the last of them ended by a commit, in this thread and just now. It is
    False if that one was rolled back, or if its connection was closed or collected. This is noticed
    when Django drops the callback: perhaps in another thread, and in the midst of any other code.
    """

    def __init__(
        self, transactions: list[BaseDatabaseWrapper], action: Callable[[bool], None]
    ) -> None:
        self._action = action
        self._pid = os.getpid()
        self._open = set(range(len(transactions)))
        self._in_savepoints: dict[int, weakref.ref[BaseDatabaseWrapper]] = {}
        for number, connection in enumerate(transactions):
            self._await_end(number, connection)

    def _await_end(self, number: int, connection: BaseDatabaseWrapper) -> None:
        callback = _Callback(self, number)
        # First, so that no other callback's error drops it; and outside of savepoints, so that no
        # inner block's rollback does.
        if not call_first_on_commit(connection, callback):
            self._in_savepoints[number] = weakref.ref(connection)
            connection.on_commit(callback, robust=True)

    def ended(self, number: int, committed: bool) -> None:
        """Record that one of the transactions has ended."""
        if os.getpid() != self._pid:
            return  # in a forked child: the parent's transaction goes on
        if not committed and (connection := self._still_open(number)) is not None:
            self._await_end(number, connection)
            return
        self._open.discard(number)
        if not self._open:
            self._action(committed)

    def _still_open(self, number: int) -> BaseDatabaseWrapper | None:
        """Return the connection if only a savepoint was rolled back, and the callback with it."""
        weakly = self._in_savepoints.get(number)
        connection = None if weakly is None else weakly()
        if connection is None or not connection.in_atomic_block:
            return None
        return None if is_closed_in_transaction(connection) else connection


class _Callback:
    """A callback that Django calls after the commit of a transaction, or drops."""

    def __init__(self, after: AfterTransactions, number: int) -> None:
        self._after = after
        self._number = number
        self._dropped = weakref.finalize(self, after.ended, number, False)
        self._dropped.atexit = False

    def __call__(self) -> None:
        self._after.ended(self._number, True)
        self._dropped.detach()
