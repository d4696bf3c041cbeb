"""Repeat what a test did to a store, if the transaction in which it did so is rolled back.

A lost lock stays lost. But in a TestCase, and on SQLite, the lock's row is part of the transaction
that is rolled back because of the loss.
"""

from collections.abc import Callable
from contextlib import suppress
from weakref import WeakKeyDictionary

from django.db.backends.base.base import BaseDatabaseWrapper

from django_distlock.backends.base import TransactionalStore
from django_distlock.conf import lock_backends
from django_distlock.exceptions import LockBackendUnavailable
from django_distlock.leases.commit_guard import on_rollback
from django_distlock.runtime import is_in_testcase, may_be_durable
from django_distlock.transactions import undoable_transactions

_repeated: WeakKeyDictionary[BaseDatabaseWrapper, list[tuple[Callable[[], object], bool]]] = (
    WeakKeyDictionary()
)
"""For each connection: what to do, and whether that ends with the transaction of a TestCase."""


def repeat_after_rollback(alias: str, action: Callable[[], object]) -> None:
    """Call this after rollbacks of the open transaction, if the store's locks are part of it."""
    store = lock_backends[alias]
    connection = store.caller() if isinstance(store, TransactionalStore) else None
    if connection is not None and connection in undoable_transactions():
        ends_with_test = is_in_testcase(connection)
        _repeated.setdefault(connection, []).append((action, ends_with_test))


def _repeat(connection: BaseDatabaseWrapper) -> None:
    repeated = _repeated.get(connection, ())
    if repeated and (not connection.in_atomic_block or may_be_durable(connection)):
        del _repeated[connection]  # the code under test has no transaction open any more
    for action, ends_with_test in repeated:
        if connection.in_atomic_block or not ends_with_test:
            with suppress(LockBackendUnavailable):
                action()


on_rollback.append(_repeat)
