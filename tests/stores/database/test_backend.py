"""The database backend's connections, round trips and errors."""

import logging
import threading
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest import mock

import pytest
from django.core.signals import request_finished, request_started
from django.db import DatabaseError, connections, transaction
from django.db import connection as default_connection
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Model
from django.test import override_settings

from django_distlock import LockBackendUnavailable, acquire_lock, clocks, distributed_lock
from django_distlock.backends.base import LockState, Owner
from django_distlock.backends.database import connections as own
from django_distlock.backends.database.backend import TRIES, DatabaseBackend
from django_distlock.backends.database.mysql import MariaDBStatements, MySQLStatements
from django_distlock.backends.database.orm import ORMStatements
from django_distlock.backends.database.sqlite import SQLiteStatements
from django_distlock.backends.database.statements import Parameters, Row, Statements
from django_distlock.handler import lock_backends
from django_distlock.models import Lock
from tests.support.concurrency import Interrupted, elsewhere, until
from tests.support.databases import (
    another_database,
    another_session,
    committed,
    noting_connections,
    on_each_database,
    on_each_server,
    own_statements,
    pool_of,
    sessions,
    statements_sent,
)
from tests.support.holders import acquire
from tests.support.processes import forked

pytestmark = committed

PAST = datetime(2020, 1, 1, tzinfo=UTC)


@contextmanager
def locked_row(alias: str, semaphore: str) -> Iterator[None]:
    """Let another transaction keep the semaphore's row locked."""
    with another_session(alias) as other:
        other.set_autocommit(False)
        with other.cursor() as cursor:
            cursor.execute(
                "UPDATE django_distlock_lock SET holder = 'operator' WHERE semaphore = %s",
                [semaphore.encode() if other.vendor == "mysql" else semaphore],
            )
        try:
            yield
        finally:
            other.rollback()


def acquire_expired(alias: str, semaphore: str = "a") -> None:
    """Acquire a lock whose lease ends at once."""
    acquire(alias, semaphore, renew=False)
    Lock.objects.using(alias).filter(semaphore=semaphore).update(expires_at=PAST)


# Apart from the caller's transaction


@on_each_server
def test_grant_inside_a_transaction_is_visible_at_once(alias: str) -> None:
    """And the refused one does not wait for it (peer defect 6)."""
    with transaction.atomic(using=alias):
        acquire(alias)
        with another_session(alias) as other, other.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM django_distlock_lock WHERE owner <> ''")
            assert cursor.fetchone() == (1,)
        assert acquire_lock("a", backend=alias) is None


@on_each_server
def test_rollback_does_not_erase_a_grant(alias: str) -> None:
    """Whoever got the lock has it."""
    with pytest.raises(ZeroDivisionError), transaction.atomic(using=alias):
        lease = acquire(alias)
        raise ZeroDivisionError
    assert acquire_lock("a", backend=alias) is None
    assert lease.release()


@on_each_server
def test_trouble_leaves_the_callers_transaction_usable(alias: str) -> None:
    """Contention, and an error of the database (peer defect 2)."""
    acquire(alias)
    with transaction.atomic(using=alias):
        assert acquire_lock("a", backend=alias) is None
        broken = mock.patch.object(DatabaseBackend, "statements", side_effect=_fail(alias))
        with broken, pytest.raises(LockBackendUnavailable):
            acquire_lock("report", backend=alias)
        assert Lock.objects.using(alias).count() == 1


def _fail(alias: str) -> Callable[[BaseDatabaseWrapper], None]:
    def fail(connection: BaseDatabaseWrapper) -> None:
        with connection.cursor() as cursor, connection.wrap_database_errors:
            cursor.execute("SELECT nonsense")

    return fail


@on_each_database
def test_database_error_inside_a_block_releases_the_lock(alias: str) -> None:
    """The broken transaction is the caller's (peer defect 2)."""
    with pytest.raises(DatabaseError), distributed_lock("a", backend=alias):
        with transaction.atomic(using=alias), connections[alias].cursor() as cursor:
            cursor.execute("SELECT nonsense")
    assert acquire(alias).release()


@on_each_server
def test_forked_child_has_connections_of_its_own(alias: str) -> None:
    """And leaves the parent's alone."""
    lease = acquire(alias)

    def work_in_child() -> None:
        connections[alias].connection = None  # the parent's
        assert acquire_lock("a", backend=alias) is None
        assert acquire(alias, "child").release()

    with forked(work_in_child):
        pass
    assert lease.release()


@on_each_server
def test_own_connections_are_closed_before_a_test_database_is_dropped(alias: str) -> None:
    """PostgreSQL drops none that has sessions."""
    with another_database(alias):
        acquire(alias).release()
        pool = pool_of(alias)
        assert any(each.is_open for each in pool.all)
    assert not any(each.is_open for each in pool.all)


@on_each_server
def test_dropped_session_is_replaced_unnoticed(alias: str) -> None:
    """Idle connections that the server or a proxy closed are opened again."""
    acquire(alias).release()
    with connections[alias].cursor() as cursor:
        if connections[alias].vendor == "postgresql":
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
            )
        else:
            cursor.execute("SELECT connection_id()")
            (mine,) = cursor.fetchone()
            cursor.execute("SELECT id FROM information_schema.processlist WHERE user = 'root'")
            for (session,) in cursor.fetchall():
                if session != mine:
                    cursor.execute(f"KILL {session}")
    assert acquire(alias).release()


@pytest.mark.needs("postgresql")
def test_table_is_the_same_whatever_the_search_path_is() -> None:
    """A tenant's schema does not split a lock."""
    acquire("postgresql")
    with connections["postgresql"].cursor() as cursor:
        cursor.execute("CREATE SCHEMA tenant")
        try:
            cursor.execute("CREATE TABLE tenant.django_distlock_lock (LIKE django_distlock_lock)")
            cursor.execute("SET search_path = tenant, public")
            assert acquire_lock("a", backend="postgresql") is None
        finally:
            cursor.execute("RESET search_path")
            cursor.execute("DROP SCHEMA tenant CASCADE")


@pytest.mark.needs("postgresql")
@pytest.mark.parametrize("behind_pooler", [False, True])
def test_statements_are_prepared_unless_a_pooler_may_forget_them(behind_pooler: bool) -> None:
    """DISABLE_SERVER_SIDE_CURSORS says so."""
    settings = connections["postgresql"].settings_dict
    own.close_own_connections()
    with mock.patch.dict(
        settings, DISABLE_SERVER_SIDE_CURSORS=behind_pooler, PORT=int(settings["PORT"])
    ):
        assert acquire("postgresql").release()
        cursor = own_statements("postgresql").cursor()
        cursor.execute("SELECT count(*) FROM pg_prepared_statements WHERE statement ~ 'distlock'")
        [prepared] = cursor.fetchone()
        own.close_own_connections()
    assert (prepared > 0) is not behind_pooler


@on_each_server
@pytest.mark.parametrize("max_age", [0, None])
def test_own_connections_outlast_the_requests(alias: str, max_age: int | None) -> None:
    """Whether the caller's are persistent or not: each acquisition by a new one would be slow."""
    own.close_own_connections()
    persistent = mock.patch.dict(connections.settings[alias], CONN_MAX_AGE=max_age)
    with persistent, noting_connections(alias) as made:
        for _ in range(3):
            request_started.send(sender=None)
            assert acquire(alias).release()
            request_finished.send(sender=None)
    assert len(made) == 1


@pytest.mark.needs("postgresql")
def test_lock_needs_none_of_the_callers_pool() -> None:
    """Two threads that have all of its connections in transactions get their locks."""
    settings = connections.settings["postgresql"]
    barrier = threading.Barrier(2)

    def work(number: int) -> bool:
        try:
            with transaction.atomic(using="postgresql"):
                Lock.objects.using("postgresql").count()
                barrier.wait(60)
                lease = acquire("postgresql", f"thread {number}")
                barrier.wait(60)
                return lease.release()
        finally:
            connections.close_all()

    options = settings["OPTIONS"] | {"pool": {"min_size": 1, "max_size": 2, "timeout": 60}}
    with mock.patch.dict(settings, OPTIONS=options):
        connections["postgresql"].close()
        try:
            with ThreadPoolExecutor(2) as threads:
                assert list(threads.map(work, range(2))) == [True, True]
        finally:
            pooled: Any = connections["postgresql"]
            pooled.close_pool()


class Elsewhere:
    """A router that has all models on another database."""

    def db_for_read(self, model: type[Model], **hints: Any) -> str:
        return "default"

    db_for_write = db_for_read


@on_each_server
def test_connection_in_use_is_not_closed_by_another_thread(alias: str) -> None:
    """Before a fork, say: the parent's thread goes on with it."""
    acquire(alias).release()
    used = pool_of(alias).all[0]
    with used.lock:
        elsewhere(own.close_own_connections)
        assert used.is_open


@on_each_server
def test_routers_do_not_lead_locks_astray(alias: str, settings: Any) -> None:
    """The option `using` says where they are."""
    settings.DATABASE_ROUTERS = [Elsewhere()]
    assert acquire(alias)
    assert acquire_lock("a", backend=alias) is None
    assert Lock.objects.using(alias).held().count() == 1
    assert not Lock.objects.exists()


@pytest.mark.needs("postgresql")
def test_replica_is_refused() -> None:
    """It can't keep a lock, whatever it has copied: that is "down", not "busy"."""
    entry = connections.settings["postgresql"]
    options = entry["OPTIONS"] | {"options": "-c default_transaction_read_only=on"}
    acquire("postgresql", "held elsewhere")
    own.close_own_connections()
    with mock.patch.dict(entry, OPTIONS=options):
        for semaphore in ("free", "held elsewhere"):
            with pytest.raises(LockBackendUnavailable, match="read-only"):
                acquire_lock(semaphore, backend="postgresql")
        own.close_own_connections()


@on_each_server
def test_interrupted_call_leaves_its_connection_to_others(alias: str) -> None:
    """Opened anew, since it may be in the midst of an answer."""
    acquire(alias).release()
    pool = pool_of(alias)
    before = own_statements(alias)
    for _ in range(3):
        with mock.patch.object(type(before), "acquire", side_effect=Interrupted):
            with pytest.raises(Interrupted):
                acquire_lock("a", backend=alias)
    assert not any(each.is_used for each in pool.all)
    assert acquire(alias).release()
    assert own_statements(alias) is not before


@on_each_server
def test_connection_that_could_not_be_prepared_is_closed(alias: str) -> None:
    """Not when the garbage is collected."""
    own.close_own_connections()
    before = sessions(alias)
    with mock.patch.object(Statements, "use", side_effect=DatabaseError("no")):
        for _ in range(3):
            with pytest.raises(LockBackendUnavailable) as kept:
                acquire_lock("a", backend=alias)
        assert kept.value.__cause__
        until(lambda: sessions(alias) <= before)


@pytest.mark.needs("postgresql")
def test_owner_is_not_in_the_message_of_an_error() -> None:
    """PostgreSQL's second line has the whole row when a constraint of the site's refuses it."""
    with connections["postgresql"].cursor() as cursor:
        cursor.execute("ALTER TABLE django_distlock_lock ADD CONSTRAINT no CHECK (token = 0)")
        try:
            with mock.patch(
                "django_distlock.acquiring.new_owner", return_value=Owner("5ec2e7" * 5)
            ):
                with pytest.raises(LockBackendUnavailable, match="constraint") as caught:
                    acquire_lock("a", backend="postgresql")
        finally:
            cursor.execute("ALTER TABLE django_distlock_lock DROP CONSTRAINT no")
    assert "5ec2e7" not in str(caught.value)


# Round trips


@pytest.mark.needs("postgresql")
def test_refused_try_is_one_statement_that_writes_nothing_on_postgresql() -> None:
    """No WAL record of ours: the position of the log stays."""
    acquire("postgresql")

    def position() -> Any:
        with connections["postgresql"].cursor() as cursor:
            cursor.execute(
                "SELECT pg_current_wal_insert_lsn(), pg_snapshot_xmax(pg_current_snapshot())"
            )
            return cursor.fetchone()

    before = position()
    sent = statements_sent("postgresql", lambda: acquire_lock("a", backend="postgresql"))
    assert len(sent) == 1
    assert position() == before


def test_refused_try_is_one_statement_that_writes_nothing_on_sqlite() -> None:
    """The file's change counter stays."""
    acquire("default")
    with another_session("default") as other, other.cursor() as cursor:
        version = cursor.execute("PRAGMA data_version").fetchone()
        default_connection.ensure_connection()
        sent: list[str] = []
        default_connection.connection.set_trace_callback(sent.append)
        try:
            assert acquire_lock("a") is None
        finally:
            default_connection.connection.set_trace_callback(None)
        assert len(sent) == 1
        assert cursor.execute("PRAGMA data_version").fetchone() == version


@pytest.mark.needs("mariadb")
@pytest.mark.parametrize(("alias", "most"), [("mariadb", 1), ("mysql", 2)])
def test_refused_try_takes_at_most_two_round_trips_on_mariadb(alias: str, most: int) -> None:
    """One where there is RETURNING."""
    acquire(alias)
    acquire_lock("a", backend=alias)
    sent = statements_sent(alias, lambda: acquire_lock("a", backend=alias))
    assert len(sent) == most


# Errors


@on_each_server
def test_locked_row_is_contended_at_once_and_not_down(alias: str) -> None:
    """An operator's transaction, say; nobody waits for it longer than 50 ms plus the round trip."""
    acquire_expired(alias)
    before = clocks.monotonic()
    with locked_row(alias, "a"):
        assert acquire_lock("a", backend=alias) is None
        assert clocks.monotonic() - before < 5
    assert acquire(alias, timeout=10)


@pytest.mark.needs("postgresql")
def test_release_of_a_locked_row_is_unavailable_and_can_be_repeated() -> None:
    """After several tries: it is not known to be lost."""
    lease = acquire("postgresql")
    with locked_row("postgresql", "a"):
        with pytest.raises(LockBackendUnavailable, match="lock timeout"):
            lease.release()
    assert lease.release()


@on_each_server
def test_deadlock_is_tried_again(alias: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bounded number of times."""
    kind = type(own_statements(alias))
    try_to_acquire = kind.acquire
    failures = [deadlock(alias)] * 3

    def fail_first(statements: Statements, parameters: Parameters) -> Row | None:
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


@on_each_database
def test_missing_table_is_unavailable(alias: str) -> None:
    """And the message has the table's name."""
    table = "django_distlock_lock"
    own.close_own_connections()
    with connections[alias].cursor() as cursor:
        cursor.execute(f"ALTER TABLE {table} RENAME TO elsewhere")
        try:
            with pytest.raises(LockBackendUnavailable, match=table):
                acquire_lock("a", backend=alias)
            with pytest.raises(LockBackendUnavailable, match="DISTLOCK"):
                list(lock_backends[alias].held())
        finally:
            cursor.execute(f"ALTER TABLE elsewhere RENAME TO {table}")


@on_each_server
def test_database_that_is_not_there_is_unavailable_and_not_busy(alias: str) -> None:
    """Whether or not it was there before (peer defects 3 and 20)."""
    settings = connections[alias].settings_dict
    with mock.patch.dict(settings, PORT="1"):
        with pytest.raises(LockBackendUnavailable, match="DISTLOCK") as caught:
            acquire_lock("a", backend=alias, timeout=None)
    assert not caught.value.reply_lost


@on_each_database
@pytest.mark.parametrize("debug", [True, False])
def test_owner_reaches_no_log(alias: str, debug: bool, caplog: pytest.LogCaptureFixture) -> None:
    """Not even the SQL that DEBUG logs."""
    caplog.set_level(logging.DEBUG)
    with override_settings(DEBUG=debug):
        lease = acquire(alias)
        acquire_lock("a", backend=alias)
        lease.renew()
        lease.release()
        logged = caplog.text + str(connections[alias].queries)
    assert str(lease.owner) not in logged


@on_each_database
def test_unrelated_expired_locks_are_left_alone(alias: str) -> None:
    """An acquisition touches its own row only (peer defect 7)."""
    acquire_expired(alias, "other")
    acquire(alias).release()
    states = {lock.semaphore: lock.state for lock in lock_backends[alias].held()}
    assert states == {"other": LockState.STALE}
    assert list(lock_backends[alias].purge_released(timedelta(hours=1))) == []


@on_each_database
def test_names_that_a_hash_would_merge_are_different_locks(alias: str) -> None:
    """They are compared whole; these two have one CRC-32 (peer defect 23)."""
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
def test_statements_are_what_the_database_can_do(
    vendor: str, returning: bool, statements: type[Statements]
) -> None:
    """Those with RETURNING where there is RETURNING, and the ORM on databases we don't know."""
    features = mock.Mock(can_return_columns_from_insert=returning)
    connection = mock.Mock(vendor=vendor, features=features, alias="default")
    assert type(DatabaseBackend("default").statements(connection)) is statements
