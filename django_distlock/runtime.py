"""What the process, its server and the versions of libraries allow.

This module alone reads what asyncio, asgiref and Django don't document. A release may drop any of
that, so every reader here says what is done without it.
"""

import sys
from collections.abc import Callable
from typing import Any

from django.db import connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper


def read_private(owner: object, name: str, default: Any = None) -> Any:
    """Return an undocumented attribute, or the default where there is none by this name."""
    return getattr(owner, name, default)


def lacks_threads() -> bool:
    """Tell whether uWSGI runs this process without --enable-threads: new threads never run."""
    options: dict[str, Any] = getattr(sys.modules.get("uwsgi"), "opt", {})
    return bool(options) and not {"threads", "enable-threads"} & options.keys()


# Django


def is_in_testcase(connection: BaseDatabaseWrapper) -> bool:
    """Tell whether a TestCase has the connection in a transaction that it will roll back.

    Where Django doesn't say so, an atomic block inside that transaction hides it.
    """
    blocks = read_private(connection, "atomic_blocks")
    marks = [None] if blocks is None else [read_private(each, "_from_testcase") for each in blocks]
    if None in marks:
        return connection.in_atomic_block and _may_be_durable(connection)
    return any(marks)


def _may_be_durable(connection: BaseDatabaseWrapper) -> bool:
    """Ask for a durable block, which Django allows directly inside a TestCase's transaction."""
    try:
        with transaction.atomic(using=connection.alias, savepoint=False, durable=True):
            return connection is connections[connection.alias]
    except RuntimeError:
        return False


def is_closed_in_transaction(connection: BaseDatabaseWrapper) -> bool:
    """Tell whether the connection was closed inside an atomic block, which ends its transaction.

    Where Django doesn't say so, the database is asked whether it can be reached. One that can't
    commit any more, after an error, counts as closed then.
    """
    closed: bool | None = read_private(connection, "closed_in_transaction")
    return connection.needs_rollback and not connection.is_usable() if closed is None else closed


def commits_on_exit(connection: BaseDatabaseWrapper) -> bool:
    """Tell whether the outermost atomic block commits at its end: it began with autocommit on.

    Where Django doesn't say so, the setting counts, and set_autocommit() isn't seen.
    """
    default = connection.settings_dict["AUTOCOMMIT"]
    return bool(read_private(connection, "commit_on_exit", default))


def is_in_savepoint(connection: BaseDatabaseWrapper) -> bool:
    """Tell whether an atomic block inside the outermost one may roll back by itself.

    Where Django doesn't say so, one may.
    """
    return bool(read_private(connection, "savepoint_ids", default=True))


def call_first_on_commit(connection: BaseDatabaseWrapper, callback: Callable[[], object]) -> bool:
    """Have this called before all that on_commit() was given, whatever savepoint is rolled back.

    False where Django doesn't allow it. Then call on_commit(), once more for each savepoint that
    is rolled back; and others' errors may come first.
    """
    callbacks: list[Any] | None = read_private(connection, "run_on_commit")
    if callbacks is None:
        return False
    callbacks.insert(0, (set(), callback, False))
    return True
