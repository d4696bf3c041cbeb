"""Locks and data in one SQLite file, under ATOMIC_REQUESTS, in each mode that Django offers."""

from __future__ import annotations

import json
import threading
from contextlib import closing
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from django.core import checks
from django.db import connections, transaction

from django_distlock import LockBackendUnavailable
from django_distlock.backends.database.backend import DatabaseBackend
from django_distlock.fields import EPOCH
from django_distlock.models import Lock
from tests.app.backends import ORMBackend
from tests.app.models import Counter
from tests.support.databases import connected_to_file
from tests.support.processes import Workers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from django.db.backends.base.base import BaseDatabaseWrapper

WAL = {"init_command": "PRAGMA journal_mode=WAL;"}
IMMEDIATE = {"transaction_mode": "IMMEDIATE"}
MANY = 2_500
"""More than Django fetches at once."""
MANY_TRIES = 20
VIEW = "/read-and-write/1234/"
WAITING_VIEW = "/wait-read-and-write/1234/"

pytestmark = pytest.mark.django_db
in_each_mode = pytest.mark.parametrize(
    "sqlite_options",
    [{}, IMMEDIATE, WAL, IMMEDIATE | WAL],
    ids=["default", "immediate", "wal", "immediate-wal"],
)


@pytest.fixture
def sqlite_file(tmp_path: Path, sqlite_options: dict[str, str]) -> Iterator[BaseDatabaseWrapper]:
    """Connect to a new file with locks and data, as Django does; the test has the options."""
    with connected_to_file(tmp_path, OPTIONS=sqlite_options, ATOMIC_REQUESTS=True) as connection:
        with connection.schema_editor() as editor:
            editor.create_model(Counter)
        yield connection


def workers(file: BaseDatabaseWrapper, *command: str) -> Workers:
    """Start worker processes that serve requests from the file."""
    return Workers(
        1,
        *command,
        DISTLOCK_TEST_SQLITE=file.settings_dict["NAME"],
        DISTLOCK_TEST_SQLITE_OPTIONS=json.dumps(file.settings_dict["OPTIONS"]),
        DISTLOCK_TEST_ATOMIC="default",
    )


def next_line(worker: Workers) -> Any:
    """Return the worker's next line."""
    return json.loads(worker.read(worker.processes[0]))


def visit(worker: Workers) -> Any:
    """Make the worker send its next request; return the status."""
    worker.proceed()
    return next_line(worker)


@pytest.mark.once
@in_each_mode
def test_requests_for_a_held_lock_do_not_harm_the_holder(sqlite_file: BaseDatabaseWrapper) -> None:
    """While the holder reads, works and writes, other requests are refused at once, or wait."""
    holder = workers(sqlite_file, "pause_request", VIEW)
    contender = workers(sqlite_file, "visit_when_told", *[VIEW] * (3 + MANY_TRIES))
    waiter = workers(sqlite_file, "visit_when_told", VIEW, WAITING_VIEW)
    with holder, contender, waiter:
        assert next_line(holder) == "read"
        assert [visit(contender) for _ in range(3)] == [409] * 3
        assert visit(waiter) == 409
        waiter.proceed()
        # The waiter tries, too, in the meantime.
        assert [visit(contender) for _ in range(MANY_TRIES)] == [409] * MANY_TRIES
        holder.proceed()
        assert holder.results() == [200]
        assert next_line(waiter) == 200
    # The waiter has read what the holder wrote.
    assert [*Counter.objects.using("file").values_list("value", flat=True)] == [0, 1]


def in_file(
    connection: BaseDatabaseWrapper, backend: type[DatabaseBackend] = DatabaseBackend
) -> DatabaseBackend:
    """Return a store whose locks are in the file."""
    with mock.patch.dict(connections.settings, file=connection.settings_dict):
        return backend("jobs", using="file")


@pytest.mark.parametrize("sqlite_options", [{}, WAL], ids=["default", "wal"])
def test_force_release_during_a_listing_waits_for_a_writing_transaction(
    sqlite_file: BaseDatabaseWrapper,
) -> None:
    """A half-read list of many locks would keep it from waiting."""
    store = in_file(sqlite_file)
    Lock.objects.using("file").bulk_create(
        Lock(semaphore=f"{number:04}", owner="o", token=1, acquired_at=EPOCH)
        for number in range(MANY)
    )
    writer = sqlite_file.copy()
    writer.inc_thread_sharing()
    with writer.cursor() as cursor:
        cursor.execute("BEGIN IMMEDIATE")
        cursor.execute("INSERT INTO app_counter (value) VALUES (0)")
    ending = threading.Timer(0.1, writer.connection.commit)  # while it is waited for
    locks = store.held()
    lock = next(locks)
    ending.start()
    try:
        assert lock.token is not None
        assert store.force_release(lock.semaphore, lock.token)
    finally:
        ending.join()
        writer.close()
    assert len([*store.held()]) == MANY - 1


@pytest.mark.parametrize(
    "sqlite_options", [{"timeout": 0}, WAL | {"timeout": 0}], ids=["default", "wal"]
)
@pytest.mark.parametrize("backend", [DatabaseBackend, ORMBackend])
def test_refused_try_is_a_plain_read(
    sqlite_file: BaseDatabaseWrapper, backend: type[DatabaseBackend]
) -> None:
    """Through the ORM, too, as with SQLite before 3.35."""
    store = in_file(sqlite_file, backend)
    assert store.acquire("held", "holder", 60, "")
    with closing(sqlite_file.copy()) as writer, writer.cursor() as cursor:
        cursor.execute("BEGIN IMMEDIATE")
        assert not store.acquire("held", "contender", 60, "")
    assert store.acquire("free", "contender", 60, "")


@pytest.mark.parametrize(
    "sqlite_options", [{"timeout": 0}, WAL | {"timeout": 0}], ids=["default", "wal"]
)
def test_try_in_a_transaction_that_cannot_write_now_is_contended_if_the_lock_is_held(
    sqlite_file: BaseDatabaseWrapper,
) -> None:
    """Busy is not down. A free lock can't be granted there, and that is not "busy"."""
    store = in_file(sqlite_file)
    assert store.acquire("held", "holder", 60, "")
    with closing(sqlite_file.copy()) as writer, writer.cursor() as cursor:
        with transaction.atomic(using="file"):
            assert not Counter.objects.using("file").exists()
            cursor.execute("BEGIN IMMEDIATE")
            assert not store.acquire("held", "contender", 60, "")
            with pytest.raises(LockBackendUnavailable, match="database is locked"):
                store.acquire("free", "contender", 60, "")


def check(**entry: Any) -> list[checks.CheckMessage]:
    """Return the check's messages about locks in a database with these settings."""
    connection = connections["default"].copy("file")
    connection.settings_dict |= entry
    connections["file"] = connection
    try:
        return in_file(connection).check()
    finally:
        del connections["file"]


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"OPTIONS": {}, "ATOMIC_REQUESTS": True}, "ATOMIC_REQUESTS"),
        ({"OPTIONS": WAL, "ATOMIC_REQUESTS": True}, "ATOMIC_REQUESTS"),
        ({"OPTIONS": {"transaction_mode": "exclusive"}}, "EXCLUSIVE"),
    ],
)
def test_modes_in_which_other_locks_do_harm_are_warned_of(entry: dict[str, Any], said: str) -> None:
    """Other locks, that is: the tests above pass in each of these modes but the last."""
    (message,) = check(NAME="site.sqlite3", **entry)
    assert (message.id, message.level) == ("distlock.W007", checks.WARNING)
    assert message.msg.startswith("DISTLOCK['jobs']: the SQLite database 'file' has")
    assert said in message.msg


@pytest.mark.parametrize(
    "entry",
    [
        {"OPTIONS": {}},
        {"OPTIONS": IMMEDIATE, "ATOMIC_REQUESTS": True},
        {"OPTIONS": WAL | {"transaction_mode": "EXCLUSIVE"}, "ATOMIC_REQUESTS": True},
        {"OPTIONS": {}, "ATOMIC_REQUESTS": True, "NAME": ":memory:"},
    ],
)
def test_other_modes_have_no_warning(entry: dict[str, Any]) -> None:
    """Nor has a database in memory, which one process has to itself."""
    assert check(**{"NAME": "site.sqlite3"} | entry) == []
