"""Refuse a commit when a lease that it depends on is lost; and release right after a rollback.

A holder that is paused for longer than its ttl, or whose lock an operator released by force, must
not commit what it did under the lock: a successor may be at work. So the last statement before a
commit asks whether the lease is still held, and, where it can, keeps it held until the commit is
done. A store that has no part in the transaction is asked for a renewal instead, unless it
confirmed the lease a moment ago.

Django has no public hook for that: execute wrappers don't see a commit, and on_commit() runs after
it. So `commit` and `rollback` are wrapped on the connections of this process, from its first
acquisition on.

In a TestCase nothing is ever committed: what would be, without the test's own transaction, ends by
the release of a savepoint. So where tests run, those methods are wrapped, too.
"""

import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final
from weakref import WeakValueDictionary, ref

from django.db import Error
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

from django_distlock import clocks
from django_distlock.backends.base import BaseLockBackend, TransactionalStore
from django_distlock.concurrency.store_calls import ask
from django_distlock.conf import lock_backends
from django_distlock.exceptions import LockBackendUnavailable, LockLost
from django_distlock.lease import Lease
from django_distlock.logs import room_logger
from django_distlock.redaction.tracebacks import ClearedVariables
from django_distlock.runtime import is_in_testcase, may_be_durable
from django_distlock.transactions import is_for_locks

from .outcomes import mark_lost
from .registry import current_registry
from .renewal import renew_once
from .state import LeaseState

logger = room_logger("leases")

ROLLED_BACK: Final = "rolled_back_savepoint"
"""The attribute of a connection in a test that names its last savepoint that was rolled back."""

on_rollback: Final[list[Callable[[BaseDatabaseWrapper], object]]] = []
"""Called after a rollback, in a test also after one to a savepoint: the test kit needs to know."""

_unguarded: set[ref[BaseDatabaseWrapper]] = set()
"""Open connections of every thread: another thread's may serve a task that holds a lock."""
_is_guarding = False
_wrappers: WeakValueDictionary[tuple[int, str], partial[None]] = WeakValueDictionary()
"""Wrappers that are in use, by the id of the connection and the name of the method.

A wrapper lives as long as something refers to it: the connection, or another library's wrapper
around it. One that was replaced rather than wrapped is gone, and is made again.
"""


def guard_connections() -> None:
    """Guard the connections of this process from now on. Every acquisition calls this."""
    global _is_guarding  # noqa: PLW0603 - a process begins once, and never ends
    _is_guarding = True  # first: a connection that is opened meanwhile is not missed
    while _unguarded:
        for weakly in list(_unguarded):  # a copy: other threads change it
            if (connection := weakly()) is not None:
                _wrap(connection, "commit", commit_if_held)
                _wrap(connection, "rollback", roll_back_and_release)
                if "django.test.testcases" in sys.modules:
                    _wrap(connection, "savepoint_commit", commit_savepoint_if_held)
                    _wrap(connection, "savepoint_rollback", roll_back_to_savepoint)
            _unguarded.discard(weakly)  # last: after an interruption it is tried again


def connection_opened(*, connection: BaseDatabaseWrapper, **kwargs: Any) -> None:
    """Guard it now, or from the first acquisition of this process on.

    Again at each reconnection: another library may have replaced the methods meanwhile.
    """
    if not is_for_locks(connection):
        _unguarded.add(ref(connection, _unguarded.discard))
        if _is_guarding:
            guard_connections()


def connect_signals() -> None:
    """Remember each connection that is opened, until the first acquisition; then guard it."""
    connection_created.connect(
        connection_opened, dispatch_uid="django_distlock.leases.commit_guard"
    )


def _wrap(connection: BaseDatabaseWrapper, name: str, wrapper: Callable[..., None]) -> None:
    if (id(connection), name) not in _wrappers:
        wrapped = partial(wrapper, connection, getattr(connection, name))
        vars(connection)[name] = _wrappers[id(connection), name] = wrapped


def commit_if_held(connection: BaseDatabaseWrapper, commit: Callable[[], None]) -> None:
    """Commit if this thread still holds the leases that its work depends on.

    It depends on the leases of the blocks that the thread is in, and on those that it released in
    transactions that are still open. If one is lost, roll back, and raise LockLost.
    """
    try:
        leases = current_registry().guarding_leases()
        if leases:
            connection.validate_thread_sharing()
            connection.validate_no_atomic_block()
            guard_all(leases, connection)
        commit()
        for lease in leases:
            lease.committed = True
    except Exception:
        raise
    except BaseException:
        # A commit that was interrupted has been carried out by now, or never will be.
        if current_registry().guarding_leases():
            _roll_back(connection)
        raise


def guard_all(leases: list[LeaseState], connection: BaseDatabaseWrapper) -> None:
    """Guard the commit for each lease; roll back if one is lost."""
    try:
        for lease in leases:
            guard(lease, connection)
    except Exception:
        _roll_back(connection)
        raise


def roll_back_and_release(connection: BaseDatabaseWrapper, rollback: Callable[[], None]) -> None:
    """Roll back, then carry out the releases that waited for it, before anything else is done."""
    waiting = [each for each in current_registry().deferred_releases if not each.ended]
    for each in waiting:
        each.completed_by_rollback = True
    try:
        rollback()
    finally:
        for each in waiting:
            each.completed_by_rollback = False
            if each.ended:
                each.complete(in_rollback=True)
    for call in on_rollback:
        call(connection)


def commit_savepoint_if_held(
    connection: BaseDatabaseWrapper, savepoint_commit: Callable[[str], None], sid: str
) -> None:
    """Guard the end of the outermost atomic block of the code that a TestCase tests.

    Without the test's transaction it would commit. See commit_if_held().
    """
    leases = []
    if vars(connection).get(ROLLED_BACK) != sid and _ends_tested_block(connection):
        leases = current_registry().guarding_leases()
    try:
        for lease in leases:
            guard(lease, connection)
    except Error:
        raise  # Django rolls back
    except BaseException:
        connection.savepoint_rollback(sid)
        savepoint_commit(sid)
        raise
    savepoint_commit(sid)
    for lease in leases:
        lease.committed = True


def _ends_tested_block(connection: BaseDatabaseWrapper) -> bool:
    """Tell whether none but a TestCase's own atomic blocks are open."""
    return is_in_testcase(connection) and may_be_durable(connection)


def roll_back_to_savepoint(
    connection: BaseDatabaseWrapper, savepoint_rollback: Callable[[str], None], sid: str
) -> None:
    """Roll back; Django then releases the savepoint, which commits nothing."""
    savepoint_rollback(sid)
    vars(connection)[ROLLED_BACK] = sid
    for call in on_rollback:
        call(connection)


def guard(lease: LeaseState, connection: BaseDatabaseWrapper) -> None:
    """Raise LockLost unless the open transaction may be committed under this lease."""
    store = lock_backends[lease.backend]
    if store.guard_commits and not _is_held(lease, store, connection):
        mark_lost(lease)
        raise LockLost(
            f"{lease} was lost before the commit on the database {connection.alias!r}, "
            "which was rolled back.",
            lease,
        )


def may_have_committed(lease: Lease | None) -> bool:
    """Tell whether a transaction was committed under the lease; unknown without the guard."""
    return isinstance(lease, LeaseState) and (
        lease.committed or not lock_backends[lease.backend].guard_commits
    )


def _is_held(lease: LeaseState, store: BaseLockBackend, connection: BaseDatabaseWrapper) -> bool:
    if lease.lost or lease.remaining <= 0:
        return False
    held = None
    if isinstance(store, TransactionalStore):
        with ClearedVariables():
            held = store.guard(lease.claim(clocks.monotonic()), connection.alias)
    return _is_confirmed(lease, store) if held is None else held


def _is_confirmed(lease: LeaseState, store: BaseLockBackend) -> bool:
    """Ask a store that keeps others out for a ttl from now, but not until the commit.

    If the store doesn't answer, the lease counts as held until it expires.
    """
    if lease.is_confirmed():
        return True
    try:
        renewal = ask(store, lambda calls: renew_once(calls, lease))
    except LockBackendUnavailable as error:
        logger.warning(
            "%s could not be renewed before a commit; it is held for %.1f seconds more: %s",
            str(lease),
            lease.remaining,
            error,
            extra=lease.log_fields(reason=str(error)),
        )
    else:
        if renewal.lost:
            return False
    return lease.remaining > 0


def _roll_back(connection: BaseDatabaseWrapper) -> None:
    try:
        connection.rollback()
    except Error:
        with suppress(Error):
            connection.close()
