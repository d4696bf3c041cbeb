"""Do again what a test did to a store, if a transaction in which that was done is rolled back.

A lost lock stays lost. But in a TestCase, and on SQLite, the lock's row is part of the transaction
that is rolled back because of the loss.
"""

from contextlib import suppress
from typing import Any
from weakref import WeakKeyDictionary

from django.db.backends.base.base import BaseDatabaseWrapper

from django_distlock.backends.base import TransactionalStore
from django_distlock.concurrency.store_calls import Policy, ask
from django_distlock.conf import lock_backends
from django_distlock.exceptions import LockBackendUnavailable
from django_distlock.leases.commit_guard import on_rollback
from django_distlock.runtime import is_in_testcase

_repeated: WeakKeyDictionary[BaseDatabaseWrapper, list[tuple[str, Policy[Any], bool]]] = (
    WeakKeyDictionary()
)
"""For each connection: the aliases of stores, the policies, and whether a TestCase ends all."""


def repeat_after_rollback(alias: str, policy: Policy[Any]) -> None:
    """Run the policy again after each rollback, as long as the transaction lasts."""
    store = lock_backends[alias]
    connection = store.caller() if isinstance(store, TransactionalStore) else None
    if connection is not None and connection.in_atomic_block:
        _repeated.setdefault(connection, []).append((alias, policy, is_in_testcase(connection)))


def _repeat(connection: BaseDatabaseWrapper) -> None:
    repeated = _repeated.get(connection, ())
    if not connection.in_atomic_block:
        _repeated.pop(connection, None)
    for alias, policy, ends_with_test in repeated:
        if connection.in_atomic_block or not ends_with_test:
            with suppress(LockBackendUnavailable):
                ask(lock_backends[alias], policy)


on_rollback.append(_repeat)
