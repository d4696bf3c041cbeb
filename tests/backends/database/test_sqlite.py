"""A release on SQLite waits for the disk only where its ttl doesn't make that needless."""

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from django.db import transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.utils import OperationalError

from django_distlock.backends.database.sqlite import SQLiteStatements
from django_distlock.backends.database.statements import LAST, Parameters
from tests.support.concurrency import Interrupted
from tests.support.databases import connected_to_file

FULL = 2
LOWERED_AND_RESTORED = ["PRAGMA synchronous = 1", "PRAGMA synchronous = 2"]


@pytest.fixture
def sqlite_connection(tmp_path: Path) -> Iterator[BaseDatabaseWrapper]:
    """Connect to a file with a write-ahead log, whose commits wait for the disk."""
    with connected_to_file(tmp_path, OPTIONS={"timeout": 0}) as connection:
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA journal_mode = WAL")
            cursor.execute(f"PRAGMA synchronous = {FULL}")
        yield connection


def parameters(ttl: int | None = 60_000_000) -> Parameters:
    """Return the parameters of the statements."""
    return Parameters(
        semaphore="1234collectPayment",
        owner="o",
        ttl=ttl,
        holder="",
        place=LAST,
        after="",
        keep=0,
    )


def levels_set_by_release(
    connection: BaseDatabaseWrapper, ttl: int | None = 60_000_000, *, in_transaction: bool = False
) -> list[str]:
    """Acquire and release, and return how the release changed what a commit waits for."""
    lock = SQLiteStatements(connection, "distlock_lock")
    with transaction.atomic(using="file") if in_transaction else nullcontext():
        assert lock.acquire(parameters(ttl))
        sent: list[str] = []
        connection.connection.set_trace_callback(sent.append)
        assert lock.release(parameters(ttl))
        connection.connection.set_trace_callback(None)
    return [sql for sql in sent if sql.startswith("PRAGMA synchronous =")]


def level(connection: BaseDatabaseWrapper) -> int:
    """Return what a commit on this connection waits for."""
    with connection.cursor() as cursor:
        return int(cursor.execute("PRAGMA synchronous").fetchone()[0])


@pytest.mark.django_db
def test_release_does_not_wait_for_the_disk(sqlite_connection: BaseDatabaseWrapper) -> None:
    """With a write-ahead log; what the caller commits afterwards does."""
    assert levels_set_by_release(sqlite_connection) == LOWERED_AND_RESTORED
    assert level(sqlite_connection) == FULL


@pytest.mark.django_db
def test_release_without_ttl_waits(sqlite_connection: BaseDatabaseWrapper) -> None:
    """If the release got lost, the lock would be held for ever."""
    assert levels_set_by_release(sqlite_connection, ttl=None) == []


@pytest.mark.django_db
def test_release_waits_where_it_could_do_harm_not_to(
    sqlite_connection: BaseDatabaseWrapper,
) -> None:
    """Without a write-ahead log a file that isn't flushed in time may be damaged."""
    with sqlite_connection.cursor() as cursor:
        cursor.execute("PRAGMA journal_mode = DELETE")
    assert levels_set_by_release(sqlite_connection) == []


@pytest.mark.django_db
def test_release_in_a_transaction_leaves_the_commit_alone(
    sqlite_connection: BaseDatabaseWrapper,
) -> None:
    """The commit is the caller's, and has to be durable."""
    assert levels_set_by_release(sqlite_connection, in_transaction=True) == []
    assert level(sqlite_connection) == FULL


@pytest.mark.django_db
@pytest.mark.parametrize("chosen", [0, 1])
def test_level_that_is_already_low_does_not_change(
    sqlite_connection: BaseDatabaseWrapper, chosen: int
) -> None:
    """PRAGMA synchronous = OFF or NORMAL is the caller's choice."""
    with sqlite_connection.cursor() as cursor:
        cursor.execute(f"PRAGMA synchronous = {chosen}")
    assert levels_set_by_release(sqlite_connection) == []
    assert level(sqlite_connection) == chosen


@pytest.mark.django_db
def test_failed_release_leaves_the_callers_commits_durable(
    sqlite_connection: BaseDatabaseWrapper,
) -> None:
    """The file is locked, say."""
    lock = SQLiteStatements(sqlite_connection, "distlock_lock")
    assert lock.acquire(parameters())
    other = sqlite_connection.copy()
    with other.cursor() as cursor:
        cursor.execute("BEGIN IMMEDIATE")
    with pytest.raises(OperationalError, match="locked"), sqlite_connection.wrap_database_errors:
        lock.release(parameters())
    other.close()
    assert level(sqlite_connection) == FULL
    assert lock.release(parameters())


@pytest.mark.django_db
def test_autocommit_off_leaves_the_callers_commits_durable(
    sqlite_connection: BaseDatabaseWrapper,
) -> None:
    """The release begins a transaction then, in which the level couldn't be restored."""
    lock = SQLiteStatements(sqlite_connection, "distlock_lock")
    assert lock.acquire(parameters())
    sqlite_connection.set_autocommit(False)
    assert lock.release(parameters())
    sqlite_connection.commit()
    sqlite_connection.set_autocommit(True)
    assert level(sqlite_connection) == FULL


@pytest.mark.django_db
def test_shared_cache_shares_the_level(sqlite_connection: BaseDatabaseWrapper) -> None:
    """So it isn't lowered: another connection's commit would not wait either."""
    sqlite_connection.close()
    sqlite_connection.settings_dict["NAME"] = (
        f"file:{sqlite_connection.settings_dict['NAME']}?cache=shared"
    )
    sqlite_connection.settings_dict["OPTIONS"]["uri"] = True
    assert levels_set_by_release(sqlite_connection) == []


@pytest.mark.django_db
def test_interrupted_acquire_leaves_the_file_unlocked(
    sqlite_connection: BaseDatabaseWrapper,
) -> None:
    """Although a kept traceback keeps the cursor."""
    lock = SQLiteStatements(sqlite_connection, "distlock_lock")
    cursor = lock.cursor()
    interrupted = mock.Mock(wraps=cursor)
    interrupted.fetchall.side_effect = Interrupted
    with (
        mock.patch.object(lock, "cursor", return_value=interrupted),
        pytest.raises(Interrupted) as kept,
    ):
        lock.acquire(parameters())
    assert kept.value.__traceback__
    other = sqlite_connection.copy()
    with other.cursor() as writer:
        writer.execute("BEGIN IMMEDIATE")
    other.close()


class TracedCursor:
    """A cursor that an instrument has wrapped, which isn't sqlite3's own class."""

    def __init__(self, wrapped: Any) -> None:
        self.wrapped = wrapped

    def __getattr__(self, name: str) -> Any:
        return getattr(self.wrapped, name)


class TracedConnection(TracedCursor):
    """A connection that wraps its cursors."""

    def cursor(self, *args: Any, **kwargs: Any) -> TracedCursor:
        return TracedCursor(self.wrapped.cursor(*args, **kwargs))


@pytest.mark.django_db
def test_instruments_may_wrap_the_drivers_cursor(sqlite_connection: BaseDatabaseWrapper) -> None:
    """As OpenTelemetry does."""
    lock = SQLiteStatements(sqlite_connection, "distlock_lock")
    with mock.patch.object(
        sqlite_connection, "connection", TracedConnection(sqlite_connection.connection)
    ):
        assert lock.acquire(parameters())
        assert lock.release(parameters())
