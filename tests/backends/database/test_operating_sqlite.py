"""What operators do to locks in an SQLite file, which has one writer at a time."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from django.db import connections, transaction

from django_distlock import LockBackendUnavailable
from django_distlock.backends.database import operating
from django_distlock.backends.database.backend import DatabaseBackend
from django_distlock.models import Lock, LockPause
from tests.support.databases import connected_to_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from django.db.backends.base.base import BaseDatabaseWrapper

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("any_database")]

PAST = datetime(2020, 1, 1, tzinfo=UTC)
WAL = {"init_command": "PRAGMA journal_mode=WAL;", "timeout": 0.05}
LOCKS = {
    "held": {"owner": "x", "token": 5, "expires_at": None},
    "stale": {"owner": "x", "token": 5, "expires_at": PAST},
    "released": {"owner": "", "token": 5, "expires_at": PAST},
}

ACTIONS: dict[str, Callable[[DatabaseBackend], object]] = {
    "force_release": lambda store: store.force_release("held", 5),
    "clear_stale": lambda store: [lock.semaphore for lock in store.clear_stale()] == ["stale"],
    "purge": lambda store: (
        [lock.semaphore for lock in store.purge_released(timedelta(1))] == ["released"]
    ),
    "pause": lambda store: store.pause("another").prefix == "another",
    "resume": lambda store: store.resume("report"),
}
"""Each returns whether it did what it should."""
each_action = pytest.mark.parametrize("action", ACTIONS.values(), ids=ACTIONS)


@pytest.fixture
def any_database(django_db_blocker: Any) -> Iterator[None]:
    """Allow connections to a database that the settings don't have."""
    with django_db_blocker.unblock():
        yield


@contextmanager
def locks_in_file(path: Path, options: dict[str, Any]) -> Iterator[BaseDatabaseWrapper]:
    """Connect to a file with a lock in each state, and a pause."""
    with connected_to_file(path, OPTIONS=options) as connection:
        Lock.objects.using("file").bulk_create(Lock(pk=pk, **row) for pk, row in LOCKS.items())
        LockPause.objects.using("file").create(prefix="report", since=PAST)
        with mock.patch.dict(connections.settings, file=connection.settings_dict):
            yield connection


@contextmanager
def reading(*, in_transaction: bool) -> Iterator[None]:
    """Have read some rows of a list, and not all: in autocommit mode, or in a request."""
    with transaction.atomic(using="file") if in_transaction else nullcontext():
        rows = Lock.objects.using("file").iterator(chunk_size=1)
        next(rows)
        yield
        assert len([*rows]) == 2  # the list as it was when it was begun


def write(connection: BaseDatabaseWrapper) -> None:
    """Write something, and leave it to the caller to commit."""
    with connection.cursor() as cursor:
        cursor.execute("UPDATE distlock_lock SET holder = 'another' WHERE semaphore = 'held'")


@each_action
@pytest.mark.parametrize("in_transaction", [True, False], ids=["request", "autocommit"])
def test_operator_need_not_mind_what_was_read(
    action: Callable[[DatabaseBackend], object], in_transaction: bool, tmp_path: Path
) -> None:
    """Another process has written since, so this connection can't write any more."""
    with locks_in_file(tmp_path, WAL) as connection, reading(in_transaction=in_transaction):
        another = connection.copy()
        write(another)
        another.close()
        assert action(DatabaseBackend("file", using="file"))


@each_action
def test_operator_waits_for_a_writer_while_reading(
    action: Callable[[DatabaseBackend], object], tmp_path: Path
) -> None:
    """Without a write-ahead log, the driver refuses at once instead."""
    with locks_in_file(tmp_path, {}) as connection:
        another = connection.copy()
        with reading(in_transaction=False):
            another.set_autocommit(False)
            write(another)
            with mock.patch.object(
                operating, "sleep", side_effect=lambda _: another.rollback()
            ) as slept:
                assert action(DatabaseBackend("file", using="file"))
            assert slept.called
        another.close()


@each_action
def test_writer_that_takes_too_long_is_reported(
    action: Callable[[DatabaseBackend], object], tmp_path: Path
) -> None:
    """Nothing was changed, and the operator can try again."""
    with locks_in_file(tmp_path, WAL) as connection:
        another = connection.copy()
        another.set_autocommit(False)
        write(another)
        with pytest.raises(LockBackendUnavailable, match=r"DISTLOCK\['file'\]: database is locked"):
            action(DatabaseBackend("file", using="file"))
        another.rollback()
        another.close()
        assert action(DatabaseBackend("file", using="file"))


@each_action
def test_operators_change_joins_a_transaction_that_writes(
    action: Callable[[DatabaseBackend], object], tmp_path: Path
) -> None:
    """Any other connection would wait for it for ever."""
    with locks_in_file(tmp_path, WAL) as connection:
        with transaction.atomic(using="file"):
            write(connection)
            assert action(DatabaseBackend("file", using="file"))
            transaction.set_rollback(True, using="file")
        assert action(DatabaseBackend("file", using="file"))
