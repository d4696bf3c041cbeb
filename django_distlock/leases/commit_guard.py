"""What is done before a commit, and after a rollback: every connection's two methods are wrapped.

A holder that is stopped for longer than its ttl, or whose lock an operator took away, must not
commit what it did under the lock, since a successor may be at work. So the last statement before a
commit asks whether the lock is still ours, and, where it can, keeps it ours until the commit is
done. A store that has no part in the transaction is asked for a renewal instead, unless it said a
moment ago that the lock is ours.
"""

import gc
import logging
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from types import CodeType, FunctionType, ModuleType
from typing import Any, Final

from django.db import Error
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

from django_distlock import clocks
from django_distlock.backends.base import BaseLockBackend
from django_distlock.concurrency.store_calls import ask
from django_distlock.conf import lock_backends
from django_distlock.exceptions import LockBackendUnavailable, LockLost
from django_distlock.redaction.tracebacks import call_store

from .lease import Lease
from .registry import current_registry

logger = logging.getLogger("django_distlock")

LOOKED_AT: Final = 2_000
"""How many objects are looked at for a wrapper of ours; each of somebody else's takes about ten."""


def _install(*, connection: BaseDatabaseWrapper, **kwargs: Any) -> None:
    for name, wrapper in (("commit", commit_guarded), ("rollback", roll_back_and_release)):
        # Ours, after a reconnection; or somebody else's, which may lead to ours by now.
        instrument = vars(connection).get(name)
        if not _leads_to(wrapper, connection, instrument):
            wrapped = instrument or partial(getattr(type(connection), name), connection)
            vars(connection)[name] = partial(wrapper, connection, wrapped)


def _leads_to(wrapper: Callable[..., None], connection: BaseDatabaseWrapper, method: Any) -> bool:
    """Tell whether what was put in the place of a connection's method calls our wrapper.

    Somebody else's wrapper keeps the one below it in any way: in a closure, a partial, or an
    attribute of an object. What it refers to tells, the nearest things first.
    """
    found, seen = deque([method]), {id(method)}
    while found and len(seen) < LOOKED_AT:
        each = found.popleft()
        if isinstance(each, partial) and each.func is wrapper and each.args[0] is connection:
            return True
        new = [part for part in _parts(each) if id(part) not in seen]
        seen.update(map(id, new))
        found.extend(new)
    return False


def _parts(each: Any) -> list[Any]:
    """Return what something refers to, other than all that there is in its module or program."""
    if isinstance(each, type | ModuleType | CodeType | BaseDatabaseWrapper):
        return []
    if isinstance(each, FunctionType):
        return [each.__closure__, each.__defaults__, each.__kwdefaults__, vars(each)]
    return gc.get_referents(each)


connection_created.connect(_install, dispatch_uid="django_distlock.leases.commit_guard")


def commit_guarded(connection: BaseDatabaseWrapper, commit: Callable[[], None]) -> None:
    """Commit if this thread still has the locks that what it did depends on.

    These are those of the blocks that it is in, and those that it released in transactions that are
    open still. Else roll back, and raise LockLost.
    """
    try:
        leases = current_registry().guarding_leases()
        if leases:
            connection.validate_thread_sharing()
            connection.validate_no_atomic_block()
            _guard_all(leases, connection)
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


def _guard_all(leases: list[Lease], connection: BaseDatabaseWrapper) -> None:
    try:
        for lease in leases:
            guard(lease, connection)
    except Exception:
        _roll_back(connection)
        raise


def roll_back_and_release(connection: BaseDatabaseWrapper, rollback: Callable[[], None]) -> None:
    """Roll back, and do the releases that waited for it, before anything else is done."""
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


def may_have_committed(lease: Lease) -> bool:
    """Tell whether a transaction was committed under the lease; unknown without the guard."""
    return lease.committed or not lock_backends[lease.backend].guard_commits


def guard(lease: Lease, connection: BaseDatabaseWrapper) -> None:
    """Raise LockLost unless what was done in this transaction may be committed."""
    if lock_backends[lease.backend].guard_commits and not _is_ours(lease, connection):
        lease.mark_lost()
        raise LockLost(
            f"{lease} was lost before the commit on the database {connection.alias!r}, "
            "which was rolled back.",
            lease,
        )


def _is_ours(lease: Lease, connection: BaseDatabaseWrapper) -> bool:
    if lease.lost or lease.remaining <= 0:
        return False
    store = lock_backends[lease.backend]
    kept = call_store(store.guard, lease.claim(clocks.monotonic()), connection.alias)
    return _is_confirmed(lease, store) if kept is None else kept


def _is_confirmed(lease: Lease, store: BaseLockBackend) -> bool:
    """Ask a store that can't keep others out until the commit, but for a ttl from now.

    Where that can't be known, since the store doesn't answer, the lease is held until it expires.
    """
    if lease.is_confirmed():
        return True
    try:
        renewal = ask(store, lease.renew_once)
    except LockBackendUnavailable as error:
        logger.warning(
            "%s could not be renewed before a commit; it is held for %.1f seconds more: %s",
            lease,
            lease.remaining,
            error,
        )
    else:
        if renewal is None:
            return False
    return lease.remaining > 0


def _roll_back(connection: BaseDatabaseWrapper) -> None:
    try:
        connection.rollback()
    except Error:
        with suppress(Error):
            connection.close()
