"""What docs/coming-from says of locks in databases: django-pglock, django-db-mutex, FOR UPDATE."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from threading import Event
from typing import TYPE_CHECKING, Any

import pytest

for library in ("db_mutex", "pglock", "psycopg"):
    pytest.importorskip(library)

import pglock  # noqa: E402
from db_mutex.db_mutex import db_mutex  # noqa: E402
from db_mutex.exceptions import DBMutexError, DBMutexTimeoutError  # noqa: E402
from db_mutex.models import DBMutex  # noqa: E402
from django.contrib.auth.models import Group  # noqa: E402
from django.db import OperationalError, connections, transaction  # noqa: E402
from django.utils import timezone  # noqa: E402

from django_distlock import distributed_lock  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.once,
    pytest.mark.needs("postgresql"),
    pytest.mark.django_db(transaction=True, databases=["default", "postgresql"]),
]

NAME = "1234collectPayment"
DB = "postgresql"


@contextmanager
def another_connection() -> Iterator[Any]:
    """Give a cursor of a session of its own, which waits for locks for a moment only."""
    connection = connections[DB].copy()
    try:
        with connection.cursor() as cursor:
            cursor.execute("SET lock_timeout = '20ms'")
            yield cursor
    finally:
        connection.close()


def is_free(cursor: Any) -> bool:
    """Tell whether django-pglock's lock can be had by that session."""
    number = pglock.advisory(NAME, using=DB).int_lock_id
    cursor.execute("SELECT pg_try_advisory_lock(%s), pg_advisory_unlock(%s)", [number, number])
    return bool(cursor.fetchone()[0])


@pytest.fixture
def mutexes() -> Iterator[None]:
    """Make django-db-mutex's table in both databases, as its migrations do."""
    for alias in ("default", DB):
        with connections[alias].schema_editor() as editor:
            editor.create_model(DBMutex)
    yield
    for alias in ("default", DB):
        with connections[alias].schema_editor() as editor:
            editor.delete_model(DBMutex)


def test_pglock_runs_the_block_without_the_lock() -> None:
    """With a timeout, its `with` gives False and goes on; a decorated call raises."""
    with another_connection() as other, pglock.advisory(NAME, using=DB):
        assert not is_free(other)

        def elsewhere() -> list[Any]:
            try:
                with pglock.advisory(NAME, using=DB, timeout=0) as acquired:
                    entered = [acquired]
                with pytest.raises(OperationalError):
                    pglock.advisory(NAME, using=DB, timeout=0)(pytest.fail)("not called")
                skipping = pglock.advisory(NAME, using=DB, timeout=0, side_effect=pglock.Skip)
                return [*entered, skipping(lambda: "called")()]
            finally:
                connections.close_all()

        with ThreadPoolExecutor(1) as thread:
            assert thread.submit(elsewhere).result(60) == [False, None]


def test_pglock_is_reentrant() -> None:
    """The same session gets it again, and has to release it as often."""
    with pglock.advisory(NAME, using=DB), another_connection() as other:
        with pglock.advisory(NAME, using=DB, timeout=0) as acquired:
            assert acquired
        assert not is_free(other)


def test_pglock_releases_before_the_commit() -> None:
    """Another worker gets the lock, and doesn't see yet what this one wrote."""
    with another_connection() as other:
        with transaction.atomic(DB):
            with pglock.advisory(NAME, using=DB):
                Group.objects.using(DB).create(name="paid")
            assert is_free(other)
            other.execute("SELECT count(*) FROM auth_group")
            assert other.fetchone() == (0,)


def test_pglock_loses_the_lock_with_the_connection() -> None:
    """At once, which frees a crashed worker's lock. A worker that lives isn't told."""
    connection = connections[DB]
    with another_connection() as other:
        lock = pglock.advisory(NAME, using=DB)
        assert lock.acquire()
        other.execute("SELECT pg_terminate_backend(%s)", [connection.connection.info.backend_pid])
        while not is_free(other):
            pass
        # A dead connection reads as a lock that another worker holds.
        assert pglock.advisory(NAME, using=DB, timeout=0).acquire() is False
    connection.close()


def test_pglock_shares_one_object_among_the_calls_of_a_function() -> None:
    """A call that is refused makes the running one keep the lock, until its connection ends."""
    entered, refused = Event(), Event()

    @pglock.advisory(NAME, using=DB, timeout=0, side_effect=pglock.Skip)
    def collect_payment() -> None:
        entered.set()
        assert refused.wait(60)

    def call_meanwhile() -> None:
        try:
            assert entered.wait(60)
            collect_payment()
        finally:
            refused.set()
            connections.close_all()

    with another_connection() as other, ThreadPoolExecutor(1) as thread:
        meanwhile = thread.submit(call_meanwhile)
        collect_payment()
        meanwhile.result(60)
        assert not is_free(other)
        connections[DB].close()


@pytest.mark.usefixtures("mutexes")
def test_mutex_refuses_at_once_and_isn_t_renewed() -> None:
    """It lasts 30 minutes from its creation; then the next worker deletes the row."""
    lasts = db_mutex(NAME).get_mutex_ttl_seconds()
    assert lasts == timedelta(minutes=30).total_seconds()
    with pytest.raises(DBMutexTimeoutError), db_mutex(NAME):
        with pytest.raises(DBMutexError), db_mutex(NAME):
            pytest.fail("it is held")
        created = DBMutex.objects.get().creation_time
        DBMutex.objects.update(creation_time=created - timedelta(seconds=lasts))
        with db_mutex(NAME):
            pass
        raise ValueError  # DBMutexTimeoutError replaces it


@pytest.mark.usefixtures("mutexes")
def test_mutex_ends_by_the_clock_of_the_worker_that_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that is ahead by the ttl deletes a lock that is held."""
    db_mutex(NAME).start()
    ahead = timezone.now() + timedelta(minutes=30)
    monkeypatch.setattr("django.utils.timezone.now", lambda: ahead)
    with db_mutex(NAME):
        pass


@pytest.mark.usefixtures("mutexes")
def test_mutex_of_a_rolled_back_transaction_is_free() -> None:
    """Its row is written by the caller's connection."""
    lock = db_mutex(NAME)
    with transaction.atomic():
        lock.start()
        transaction.set_rollback(True)
    with db_mutex(NAME):
        pass


@pytest.mark.usefixtures("mutexes")
def test_mutex_in_a_transaction_blocks_others_rather_than_refusing_them() -> None:
    """They wait for the end of the transaction, also after the end of the block."""
    connections["default"], default = connections[DB], connections["default"]
    try:
        with another_connection() as other, transaction.atomic():
            with db_mutex(NAME):
                pass
            with pytest.raises(OperationalError, match="lock timeout"):
                other.execute(
                    "INSERT INTO db_mutex_dbmutex (lock_id, creation_time) VALUES (%s, now())",
                    [NAME],
                )
    finally:
        connections["default"] = default


@pytest.mark.usefixtures("mutexes")
def test_mutex_shares_one_object_among_the_calls_of_a_function() -> None:
    """The end of a call whose row expired deletes the row of the next call."""
    mutex = db_mutex(NAME)

    @mutex  # type: ignore[untyped-decorator]
    def collect_payment() -> None:
        DBMutex.objects.all().delete()  # it expired
        mutex.start()  # as the next call does, in another thread

    collect_payment()
    assert not DBMutex.objects.exists()


def test_for_update_keeps_out_writers_that_take_no_lock() -> None:
    """A distributed lock doesn't: it is between those who ask for it."""
    group = Group.objects.using(DB).create(name="unpaid")
    write = "UPDATE auth_group SET name = 'paid' WHERE id = %s"
    with another_connection() as other:
        with transaction.atomic(DB):
            Group.objects.using(DB).select_for_update().get(pk=group.pk)
            with pytest.raises(OperationalError, match="lock timeout"):
                other.execute(write, [group.pk])
            with pytest.raises(OperationalError, match="could not obtain lock"):
                other.execute("SELECT * FROM auth_group FOR UPDATE NOWAIT")
        with distributed_lock(NAME, backend=DB):
            other.execute(write, [group.pk])
