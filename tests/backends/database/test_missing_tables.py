"""A missing table, also one that is not migrated yet: every error says what to do."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from django.core.management import CommandError, call_command
from django.db import DatabaseError, connections, transaction

from django_distlock import LockBackendUnavailable, aacquire_lock, acquire_lock, lock_backends
from django_distlock.backends.database import connections as own
from django_distlock.backends.database.errors import is_missing_table
from tests.support.concurrency import run
from tests.support.databases import committed
from tests.support.holders import acquire

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = committed

STORES = [
    pytest.param("default", "default", id="sqlite"),
    pytest.param("orm", "default", id="orm"),
    *(
        pytest.param(alias, using, marks=pytest.mark.needs(using), id=alias)
        for alias, using in (
            ("postgresql", "postgresql"),
            ("orm_postgresql", "postgresql"),
            ("mariadb", "mariadb"),
            ("mysql", "mariadb"),
        )
    ),
]


@contextmanager
def missing(table: str, using: str) -> Iterator[None]:
    """Hide the table in the block, from open and from new connections."""
    with connections[using].cursor() as cursor:
        cursor.execute(f"ALTER TABLE {table} RENAME TO elsewhere")
        try:
            yield
        finally:
            cursor.execute(f"ALTER TABLE elsewhere RENAME TO {table}")


@pytest.mark.parametrize(("alias", "using"), STORES)
@pytest.mark.parametrize("is_known", [True, False])
def test_missing_table_is_unavailable_until_it_is_migrated(
    alias: str, using: str, is_known: bool
) -> None:
    """The message names the table and the command to run, whatever call needs it."""
    store = lock_backends[alias]
    lease = acquire(alias, "held before")
    if not is_known:
        own.close_own_connections()

    async def astep() -> object:
        return await aacquire_lock("1234collectPayment", backend=alias)

    def in_transaction() -> object:
        with transaction.atomic(using=using):
            return acquire_lock("1234collectPayment", backend=alias)

    message = (
        rf"^DISTLOCK\['{alias}'\]: .*distlock_lock.*"
        rf"\. Run python manage.py migrate --database {using} distlock\.$"
    )
    asking: list[Callable[[], object]]
    with missing("distlock_lock", using):
        asking = [
            lambda: acquire_lock("1234collectPayment", backend=alias),
            lambda: acquire_lock("1234collectPayment", backend=alias, timeout=5),
            lambda: run(astep()),
            in_transaction,
            lease.renew,
            lease.release,
            lambda: list(store.held()),
            lambda: list(store.clear_stale()),
            lambda: list(store.purge_released(timedelta(days=1))),
            lambda: store.force_release("held before", lease.token or 0),
            lambda: call_command("clear_stale_locks", backend=alias),
        ]
        for ask in asking:
            with pytest.raises((LockBackendUnavailable, CommandError), match=message) as caught:
                ask()
            assert not getattr(caught.value, "reply_lost", False)
    assert lease.release()


@pytest.mark.once
@pytest.mark.parametrize(("alias", "using"), STORES)
def test_column_of_a_later_version_is_unavailable_until_it_is_migrated(
    alias: str, using: str
) -> None:
    """Likewise."""
    column = connections[using].ops.quote_name("renewed_at")
    message = (
        rf"^DISTLOCK\['{alias}'\]: .*\. Run python manage.py migrate --database {using} distlock\.$"
    )
    own.close_own_connections()
    with connections[using].cursor() as cursor:
        cursor.execute(f"ALTER TABLE distlock_lock RENAME COLUMN {column} TO later")
        try:
            with pytest.raises(LockBackendUnavailable, match=message):
                list(lock_backends[alias].held())
        finally:
            cursor.execute(f"ALTER TABLE distlock_lock RENAME COLUMN later TO {column}")


@pytest.mark.needs("postgresql")
@pytest.mark.parametrize("table", ["distlock_lockwaiter", "distlock_waitingprocess"])
def test_missing_queue_is_unavailable_until_it_is_migrated(table: str) -> None:
    """PostgreSQL has tables for waiters, too."""
    message = rf": .*{table}.*\. Run python manage.py migrate --database postgresql distlock\.$"
    own.close_own_connections()
    with missing(table, "postgresql"), pytest.raises(LockBackendUnavailable, match=message):
        acquire_lock("1234collectPayment", backend="postgresql", timeout=5)


@pytest.mark.parametrize(
    ("vendor", "text"),
    [
        ("oracle", "ORA-00942: table or view does not exist"),
        ("microsoft", "('42S02', \"[42S02] [Microsoft] Invalid object name 'distlock'. (208)\")"),
    ],
)
def test_missing_table_is_recognized_in_other_databases_errors(vendor: str, text: str) -> None:
    """Databases that are used through the ORM, and have no server here."""
    assert is_missing_table(vendor, DatabaseError(text))
    assert not is_missing_table(vendor, DatabaseError("ORA-00054: resource busy"))
