"""The database backend: its round trips, and what an error means."""

import logging
import zlib
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest import mock

import pytest
from django.db import connection as default_connection
from django.db import connections
from django.test import override_settings

from django_distlock import LockBackendUnavailable, acquire_lock, clocks
from django_distlock.backends.database.backend import DatabaseBackend
from django_distlock.backends.database.base import TRIES
from django_distlock.backends.database.mariadb import MariaDBStatements
from django_distlock.backends.database.mysql import MySQLStatements
from django_distlock.backends.database.orm import ORMStatements
from django_distlock.backends.database.sqlite import SQLiteStatements
from django_distlock.backends.database.statements import Parameters, Statements
from django_distlock.conf import lock_backends
from django_distlock.models import Lock
from django_distlock.records import Grant, LockState, Owner, Refusal
from tests.support.databases import (
    another_session,
    committed,
    locked_row,
    on_each_database,
    on_each_server,
    own_statements,
    statements_sent,
)
from tests.support.holders import acquire

pytestmark = committed

PAST = datetime(2020, 1, 1, tzinfo=UTC)


def acquire_expired(alias: str, semaphore: str = "1234collectPayment") -> None:
    """Acquire a lock whose lease ends at once."""
    acquire(alias, semaphore, renew=False)
    Lock.objects.using(alias).filter(semaphore=semaphore).update(expires_at=PAST)


# Round trips


@pytest.mark.once
@pytest.mark.needs("postgresql")
def test_refused_try_is_one_statement_that_writes_nothing_on_postgresql() -> None:
    """No WAL record of ours: the position of the log stays, unless the server writes one itself."""
    acquire("postgresql")

    def position() -> Any:
        with connections["postgresql"].cursor() as cursor:
            cursor.execute(
                "SELECT pg_current_wal_insert_lsn(), pg_snapshot_xmax(pg_current_snapshot())"
            )
            return cursor.fetchone()

    def writes() -> bool:
        before = position()
        sent = statements_sent(
            "postgresql", lambda: acquire_lock("1234collectPayment", backend="postgresql")
        )
        assert len(sent) == 1
        return bool(position() != before)

    assert not all(writes() for _ in range(10))


def test_refused_try_is_one_statement_that_writes_nothing_on_sqlite() -> None:
    """The file's change counter stays."""
    acquire("default")
    with another_session("default") as other, other.cursor() as cursor:
        version = cursor.execute("PRAGMA data_version").fetchone()
        default_connection.ensure_connection()
        sent: list[str] = []
        default_connection.connection.set_trace_callback(sent.append)
        try:
            assert acquire_lock("1234collectPayment") is None
        finally:
            default_connection.connection.set_trace_callback(None)
        assert len(sent) == 1
        assert cursor.execute("PRAGMA data_version").fetchone() == version


@pytest.mark.once
@pytest.mark.needs("mariadb")
@pytest.mark.parametrize(("alias", "most"), [("mariadb", 1), ("mysql", 2)])
def test_refused_try_takes_at_most_two_round_trips_on_mariadb(alias: str, most: int) -> None:
    """One where there is RETURNING."""
    acquire(alias)
    acquire_lock("1234collectPayment", backend=alias)
    sent = statements_sent(alias, lambda: acquire_lock("1234collectPayment", backend=alias))
    assert len(sent) == most


# Errors


@pytest.mark.once
@pytest.mark.needs("postgresql")
def test_owner_is_not_in_the_message_of_an_error() -> None:
    """PostgreSQL's second line has the whole row when a constraint of the site's refuses it."""
    with connections["postgresql"].cursor() as cursor:
        cursor.execute("ALTER TABLE distlock_lock ADD CONSTRAINT no CHECK (token = 0)")
        try:
            with mock.patch(
                "django_distlock.locks.acquisition.new_owner", return_value=Owner("5ec2e7" * 5)
            ):
                with pytest.raises(LockBackendUnavailable, match="constraint") as caught:
                    acquire_lock("1234collectPayment", backend="postgresql")
        finally:
            cursor.execute("ALTER TABLE distlock_lock DROP CONSTRAINT no")
    assert "5ec2e7" not in str(caught.value)


@pytest.mark.once
@on_each_server
def test_locked_row_is_contended_at_once_and_not_down(alias: str) -> None:
    """An operator's transaction, say: a try waits at most 50 ms plus the round trip for it."""
    acquire_expired(alias)
    with locked_row(alias, "1234collectPayment"):
        before = clocks.monotonic()
        assert acquire_lock("1234collectPayment", backend=alias) is None
        assert clocks.monotonic() - before < 20  # MySQL's own wait is 50 seconds
    assert acquire(alias, timeout=10)


@pytest.mark.once
@pytest.mark.needs("postgresql")
def test_release_of_a_locked_row_is_unavailable_and_can_be_repeated() -> None:
    """That is known after several tries; the lease is not known to be lost."""
    lease = acquire("postgresql")
    with locked_row("postgresql", "1234collectPayment"):
        with pytest.raises(LockBackendUnavailable, match="lock timeout"):
            lease.release()
    assert lease.release()


@on_each_server
def test_deadlock_is_tried_again(alias: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bounded number of times."""
    kind = type(own_statements(alias))
    try_to_acquire = kind.acquire
    failures = [deadlock(alias)] * 3

    def fail_first(statements: Statements, parameters: Parameters) -> Grant | Refusal:
        if failures:
            raise failures.pop()
        return try_to_acquire(statements, parameters)

    monkeypatch.setattr(kind, "acquire", fail_first)
    assert acquire(alias)
    assert failures == []
    failures += [deadlock(alias)] * TRIES
    with pytest.raises(LockBackendUnavailable, match="deadlock"):
        acquire_lock("report", backend=alias)
    assert failures == []


def deadlock(alias: str) -> Exception:
    """Return the driver's error when a deadlock was detected."""
    if alias == "postgresql":
        from psycopg.errors import DeadlockDetected

        return DeadlockDetected("deadlock detected")
    driver: Any = connections[alias]
    error: Exception = driver.Database.OperationalError(1213, "deadlock found")
    return error


@on_each_server
def test_database_that_is_not_there_is_unavailable_and_not_busy(alias: str) -> None:
    """Whether or not it was there before (peer defects 3 and 20)."""
    settings = connections[alias].settings_dict
    with mock.patch.dict(settings, PORT="1"):
        with pytest.raises(LockBackendUnavailable, match="DISTLOCK") as caught:
            acquire_lock("1234collectPayment", backend=alias, timeout=None)
    assert not caught.value.reply_lost


@on_each_database
@pytest.mark.parametrize("debug", [True, False])
def test_owner_reaches_no_log(alias: str, debug: bool, caplog: pytest.LogCaptureFixture) -> None:
    """Not even the SQL that DEBUG logs."""
    caplog.set_level(logging.DEBUG)
    with override_settings(DEBUG=debug):
        lease = acquire(alias)
        acquire_lock("1234collectPayment", backend=alias)
        lease.renew()
        lease.release()
        logged = caplog.text + str(connections[alias].queries)
    assert str(lease.owner) not in logged


@pytest.mark.once
@on_each_database
def test_unrelated_expired_locks_are_not_touched(alias: str) -> None:
    """An acquisition touches its own row only (peer defect 7)."""
    acquire_expired(alias, "other")
    acquire(alias).release()
    states = {lock.semaphore: lock.state for lock in lock_backends[alias].held()}
    assert states == {"other": LockState.STALE}
    assert list(lock_backends[alias].purge_released(timedelta(hours=1))) == []


@pytest.mark.once
@on_each_database
def test_names_that_a_hash_would_merge_are_different_locks(alias: str) -> None:
    """They are compared whole; these two have the same CRC-32 (peer defect 23)."""
    assert zlib.crc32(b"plumless") == zlib.crc32(b"buckeroo")
    acquire(alias, "plumless")
    acquire(alias, "buckeroo")


@pytest.mark.parametrize(
    ("vendor", "returning", "statements"),
    [
        ("sqlite", True, SQLiteStatements),
        ("sqlite", False, ORMStatements),
        ("mysql", True, MariaDBStatements),
        ("mysql", False, MySQLStatements),
        ("oracle", True, ORMStatements),
    ],
)
def test_statements_fit_the_database(
    vendor: str, returning: bool, statements: type[Statements]
) -> None:
    """RETURNING where the database has it, and the ORM on unknown databases."""
    features = mock.Mock(can_return_columns_from_insert=returning)
    connection = mock.Mock(vendor=vendor, features=features, alias="default")
    assert type(DatabaseBackend("default").statements(connection)) is statements
