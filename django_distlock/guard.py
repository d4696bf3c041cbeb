"""What is done before a commit, and after a rollback: every connection's two methods are wrapped.

A holder that is stopped for longer than its ttl must not commit what it did under the lock, since a
successor may be at work. So the last statement before a commit asks whether the lock is still ours,
and, where it can, keeps it ours until the commit is done.
"""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from django.db import Error
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

from . import clocks
from .exceptions import LockLost
from .flows import current_flow
from .handler import lock_backends
from .leases import Lease


def _install(*, connection: BaseDatabaseWrapper, **kwargs: Any) -> None:
    for name, wrapper in (("commit", commit_guarded), ("rollback", roll_back_and_release)):
        instrument = vars(connection).get(name)  # somebody else's; or ours, after a reconnection
        if getattr(instrument, "func", None) is not wrapper:
            wrapped = instrument or partial(getattr(type(connection), name), connection)
            vars(connection)[name] = partial(wrapper, connection, wrapped)


connection_created.connect(_install, dispatch_uid="django_distlock.guard")


def commit_guarded(connection: BaseDatabaseWrapper, commit: Callable[[], None]) -> None:
    """Commit if this thread still has the locks that what it did depends on.

    These are those of the blocks that it is in, and those that it released in transactions that are
    open still. Else roll back, and raise LockLost.
    """
    leases = current_flow().at_work()
    if leases:
        connection.validate_thread_sharing()
        connection.validate_no_atomic_block()
        try:
            for lease in leases:
                _guard(lease, connection)
        except BaseException:
            _roll_back(connection)
            raise
    commit()


def roll_back_and_release(connection: BaseDatabaseWrapper, rollback: Callable[[], None]) -> None:
    """Roll back, and do the releases that waited for it, before anything else is done."""
    waiting = [each for each in current_flow().put_off if not each.over]
    for each in waiting:
        each.noticed_here = True
    try:
        rollback()
    finally:
        for each in waiting:
            each.noticed_here = False
            if each.over:
                each.finish(in_rollback=True)


def _guard(lease: Lease, connection: BaseDatabaseWrapper) -> None:
    store = lock_backends[lease.backend]
    claim = lease.claim(clocks.monotonic())
    if lease.lost or lease.remaining <= 0 or store.guard(claim, connection.alias) is False:
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
