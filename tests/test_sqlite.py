"""What a release on SQLite waits for: nothing that its ttl makes needless."""

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
from django.db import connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.utils import OperationalError

from django_distlock.backends.database.sqlite import SQLiteStatements
from django_distlock.backends.database.statements import Parameters
from django_distlock.models import Lock

FULL = 2
NEITHER_WAITS = ["PRAGMA synchronous = 1", "PRAGMA synchronous = 2"]


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[BaseDatabaseWrapper]:
    """Connect to an empty database file by an alias of its own."""
    connection = connections["default"].copy("file")
    connection.settings_dict |= {"NAME": str(tmp_path / "file.sqlite3"), "OPTIONS": {"timeout": 0}}
    connections["file"] = connection
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute(f"PRAGMA synchronous = {FULL}")
    with connection.schema_editor() as editor:
        editor.create_model(Lock)
    yield connection
    del connections["file"]
    connection.close()


def parameters(ttl: int | None = 60_000_000) -> Parameters:
    """Return what the statements are told."""
    return Parameters(semaphore="a", owner="o", ttl=ttl, holder="")


def levels_set_by_release(
    connection: BaseDatabaseWrapper, ttl: int | None = 60_000_000, *, in_transaction: bool = False
) -> list[str]:
    """Acquire and release, and return how the release changed what a commit waits for."""
    lock = SQLiteStatements(connection, "django_distlock_lock")
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
def test_release_does_not_wait_for_the_disk(connection: BaseDatabaseWrapper) -> None:
    """With a write-ahead log; what the caller commits afterwards does."""
    assert levels_set_by_release(connection) == NEITHER_WAITS
    assert level(connection) == FULL


@pytest.mark.django_db
def test_release_without_ttl_waits(connection: BaseDatabaseWrapper) -> None:
    """If it got lost, the lock would stay for ever."""
    assert levels_set_by_release(connection, ttl=None) == []


@pytest.mark.django_db
def test_release_waits_where_it_could_do_harm_not_to(connection: BaseDatabaseWrapper) -> None:
    """Without a write-ahead log a file that isn't flushed in time may be damaged."""
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA journal_mode = DELETE")
    assert levels_set_by_release(connection) == []


@pytest.mark.django_db
def test_release_in_a_transaction_leaves_the_commit_alone(connection: BaseDatabaseWrapper) -> None:
    """It is the caller's, who wants it to be durable."""
    assert levels_set_by_release(connection, in_transaction=True) == []
    assert level(connection) == FULL


@pytest.mark.django_db
@pytest.mark.parametrize("chosen", [0, 1])
def test_caller_who_waits_for_nothing_is_asked_nothing(
    connection: BaseDatabaseWrapper, chosen: int
) -> None:
    """PRAGMA synchronous = OFF or NORMAL stays as it is."""
    with connection.cursor() as cursor:
        cursor.execute(f"PRAGMA synchronous = {chosen}")
    assert levels_set_by_release(connection) == []
    assert level(connection) == chosen


@pytest.mark.django_db
def test_failed_release_leaves_the_callers_commits_durable(
    connection: BaseDatabaseWrapper,
) -> None:
    """The file is locked, say."""
    lock = SQLiteStatements(connection, "django_distlock_lock")
    assert lock.acquire(parameters())
    other = connection.copy()
    with other.cursor() as cursor:
        cursor.execute("BEGIN IMMEDIATE")
    with pytest.raises(OperationalError, match="locked"), connection.wrap_database_errors:
        lock.release(parameters())
    other.close()
    assert level(connection) == FULL
    assert lock.release(parameters())
