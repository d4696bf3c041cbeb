"""The user's transactions in this thread: which are open, and what is done when they end."""

import os
import threading
import weakref
from collections.abc import Callable
from typing import Any, Final

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

from .exceptions import LockError

IN_TRANSACTION: Final = 2  # libpq's PQTRANS_INTRANS
SNAPSHOTS: Final = {"repeatable read", "serializable"}

_thread = threading.local()
left_open: set[int] = set()
"""Threads in which a call for async code has left a transaction open."""
_everywhere: set[weakref.ref[BaseDatabaseWrapper]] = set()


def _opened() -> list[weakref.ref[BaseDatabaseWrapper]]:
    """Return the connections that this thread opened; some may be gone or closed."""
    try:
        opened: list[weakref.ref[BaseDatabaseWrapper]] = _thread.opened
    except AttributeError:
        opened = _thread.opened = []
    return opened


def mark_as_for_locks(connection: BaseDatabaseWrapper) -> None:
    """Have a connection of the locks' own ignored: no transaction of the user's is on it."""
    vars(connection)["is_for_locks"] = True


def is_for_locks(connection: BaseDatabaseWrapper) -> bool:
    """Tell whether mark_as_for_locks() was called."""
    return "is_for_locks" in vars(connection)


def _remember(*, connection: BaseDatabaseWrapper, **kwargs: Any) -> None:
    if is_for_locks(connection):
        return
    # Asking Django for the connection of every alias takes longer than a refused try on SQLite.
    opened = [ref for ref in _opened() if ref() not in (None, connection)]
    _thread.opened = [*opened, weakref.ref(connection)]
    _everywhere.add(weakref.ref(connection, _everywhere.discard))


connection_created.connect(_remember, dispatch_uid="django_distlock.transactions")


def open_transactions() -> list[BaseDatabaseWrapper]:
    """Return this thread's connections that are in an atomic block.

    A TestCase's doesn't count, and neither does one that is over since the connection was closed.
    """
    return [
        connection
        for ref in _opened()
        if (connection := ref()) is not None
        and connection.in_atomic_block
        and not connection.closed_in_transaction
        and not in_testcase(connection)
    ]


def is_open_in(thread: int | None) -> bool:
    """Tell whether a transaction is open in the thread. A TestCase's is, and autocommit off is one.

    This may be asked in another thread.
    """
    opened: list[Any] = [ref() for ref in list(_everywhere)]  # a copy: others add to it
    return any(
        connection is not None and connection._thread_ident == thread and _is_open(connection)
        for connection in opened
    )


def note_what_is_left_open() -> None:
    """Remember whether this thread has a transaction open, after a call for async code."""
    here = (ref() for ref in _opened())
    if any(connection is not None and _is_open(connection) for connection in here):
        left_open.add(threading.get_ident())
    else:
        left_open.discard(threading.get_ident())


def _is_open(connection: BaseDatabaseWrapper) -> bool:
    return connection.connection is not None and (
        connection.in_atomic_block or not connection.autocommit
    )


def in_testcase(connection: BaseDatabaseWrapper) -> bool:
    """Tell whether a TestCase has the connection in a transaction that it will roll back."""
    return any(vars(block)["_from_testcase"] for block in connection.atomic_blocks)


def refuse_endless_transactions() -> None:
    """Raise LockError where a transaction is open that no atomic block will end."""
    for ref in _opened():
        connection = ref()
        if connection is None or connection.connection is None or connection.autocommit:
            continue
        if connection.in_atomic_block and connection.commit_on_exit:
            continue
        # Not a copy that somebody made of it.
        if connection in connections.all(initialized_only=True):
            raise LockError(
                f"Autocommit is off on the database {connection.alias!r}, so when what is done "
                "under a lock is committed can't be known. Use transaction.atomic() instead of "
                "set_autocommit(False) or AUTOCOMMIT = False."
            )


def refuse_older_snapshots(transactions: list[BaseDatabaseWrapper]) -> None:
    """Raise LockError where a transaction can't see what the last holder committed."""
    for connection in transactions:
        if not connection.needs_rollback and _reads_a_snapshot(connection):
            raise LockError(
                f"The transaction on the database {connection.alias!r} began before this lock was "
                "acquired, and at its isolation level (REPEATABLE READ or stricter) it may go on "
                "to see the data as of then. Acquire the lock before transaction.atomic()."
            )


def _reads_a_snapshot(connection: Any) -> bool:
    if connection.vendor == "postgresql":
        # IDLE: Django has begun the transaction, but the server hasn't been told anything yet.
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
    """Tell whether this is PostgreSQL, set to REPEATABLE READ or stricter for the connection.

    An engine that connects in its own way need not say what it is set to; the transaction does.
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
        cursor.cursor.execute(sql)  # in nobody's log of queries
        answer: str = cursor.fetchone()[0]
    return answer


class AfterTransactions:
    """Calls `action(committed)` when all of these open transactions have ended.

    Once, unless that was interrupted: then once more, when Django drops what it called.

    `committed` means that the last of them did so here and now, on a commit. Else it was rolled
    back, or its connection closed or forgotten: that is noticed when Django drops what it would
    have called, maybe in another thread, and in the midst of anything.
    """

    def __init__(
        self, transactions: list[BaseDatabaseWrapper], action: Callable[[bool], None]
    ) -> None:
        self._action = action
        self._pid = os.getpid()
        self._open = set(range(len(transactions)))
        for number, connection in enumerate(transactions):
            # Without savepoints, so that no inner block's rollback drops it; and before all other
            # callbacks, so that none of their errors does.
            callbacks: list[Any] = connection.run_on_commit
            callbacks.insert(0, (set(), _Callback(self, number), False))

    def ended(self, number: int, committed: bool) -> None:
        """Take one of the transactions for ended."""
        if os.getpid() == self._pid:  # in a forked child the parent's transaction goes on
            self._open.discard(number)
            if not self._open:
                self._action(committed)


class _Callback:
    """What Django calls after the commit of a transaction, or drops."""

    def __init__(self, after: AfterTransactions, number: int) -> None:
        self._after = after
        self._number = number
        self._dropped = weakref.finalize(self, after.ended, number, False)
        self._dropped.atexit = False

    def __call__(self) -> None:
        self._after.ended(self._number, True)
        self._dropped.detach()
