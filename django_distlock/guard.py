"""The last statement before a commit: is the lock still ours, and until the commit is done?

A holder that is stopped for longer than its ttl must not commit what it did under the lock, since a
successor may be at work. Every connection's `commit` asks for that first.
"""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from django.db import Error
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

from .exceptions import LockLost
from .handler import lock_backends
from .leases import Lease, current_flow


def _install(*, connection: BaseDatabaseWrapper, **kwargs: Any) -> None:
    instrument = vars(connection).get("commit")  # somebody else's; or ours, after a reconnection
    if getattr(instrument, "func", None) is not commit_guarded:
        vars(connection)["commit"] = partial(commit_guarded, connection, instrument)


connection_created.connect(_install, dispatch_uid="django_distlock.guard")


def commit_guarded(
    connection: BaseDatabaseWrapper, instrument: Callable[[], None] | None = None
) -> None:
    """Commit if this thread still has the leases of the locked blocks that it is in, or was.

    "Was" means in this transaction. Else roll back, and raise LockLost.
    """
    try:
        for lease in current_flow().at_work():
            _guard(lease, connection)
    except BaseException:
        _roll_back(connection)
        raise
    if instrument:
        instrument()
    else:
        type(connection).commit(connection)


def _guard(lease: Lease, connection: BaseDatabaseWrapper) -> None:
    store = lock_backends[lease.backend]
    if lease.remaining <= 0 or store.guard(lease, connection.alias) is False:
        lease.lose()
        raise LockLost(
            f"{lease} was lost before the commit on the database {connection.alias!r}, "
            "which was rolled back.",
            lease,
        )


def _roll_back(connection: BaseDatabaseWrapper) -> None:
    try:
        connection.rollback()
    except Error:
        with suppress(Error):
            connection.close()
