"""The locks' own connections: apart from the caller's, and from its transaction."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest import mock

import pytest
from django.core.signals import request_finished, request_started
from django.db import DatabaseError, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Model

from django_distlock import LockBackendUnavailable, acquire_lock, distributed_lock
from django_distlock.backends.database import connections as own
from django_distlock.backends.database.backend import DatabaseBackend
from django_distlock.backends.database.statements import Statements
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
)
from tests.support.holders import acquire
from tests.support.processes import forked

pytestmark = committed


@on_each_server
def test_grant_inside_a_transaction_is_visible_at_once(alias: str) -> None:
    """The refused try does not wait for the transaction (peer defect 6)."""
    with transaction.atomic(using=alias):
        acquire(alias)
        with another_session(alias) as other, other.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM distlock_lock WHERE owner <> ''")
            assert cursor.fetchone() == (1,)
        assert acquire_lock("1234collectPayment", backend=alias) is None


@on_each_server
def test_rollback_does_not_erase_a_grant(alias: str) -> None:
    """The lock stays held."""
    with pytest.raises(ZeroDivisionError), transaction.atomic(using=alias):
        lease = acquire(alias)
        raise ZeroDivisionError
    assert acquire_lock("1234collectPayment", backend=alias) is None
    assert lease.release()


@on_each_server
def test_trouble_leaves_the_callers_transaction_usable(alias: str) -> None:
    """Contention, and an error of the database (peer defect 2)."""
    acquire(alias)
    with transaction.atomic(using=alias):
        assert acquire_lock("1234collectPayment", backend=alias) is None
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
    with pytest.raises(DatabaseError), distributed_lock("1234collectPayment", backend=alias):
        with transaction.atomic(using=alias), connections[alias].cursor() as cursor:
            cursor.execute("SELECT nonsense")
    assert acquire(alias).release()


@on_each_server
def test_forked_child_has_connections_of_its_own(alias: str) -> None:
    """It leaves the parent's connections alone."""
    lease = acquire(alias)

    def work_in_child() -> None:
        connections[alias].connection = None  # the parent's
        assert acquire_lock("1234collectPayment", backend=alias) is None
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


@pytest.mark.once
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


@pytest.mark.once
@pytest.mark.needs("postgresql")
def test_table_does_not_depend_on_the_search_path() -> None:
    """A tenant's schema does not split a lock."""
    acquire("postgresql")
    with connections["postgresql"].cursor() as cursor:
        cursor.execute("CREATE SCHEMA tenant")
        try:
            cursor.execute("CREATE TABLE tenant.distlock_lock (LIKE distlock_lock)")
            cursor.execute("SET search_path = tenant, public")
            assert acquire_lock("1234collectPayment", backend="postgresql") is None
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
    """Even if the caller's don't: a new connection for each acquisition would be slow."""
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
def test_routers_do_not_move_locks(alias: str, settings: Any) -> None:
    """The option `using` says where they are."""
    settings.DATABASE_ROUTERS = [Elsewhere()]
    assert acquire(alias)
    assert acquire_lock("1234collectPayment", backend=alias) is None
    assert Lock.objects.using(alias).held().count() == 1
    assert not Lock.objects.exists()


@pytest.mark.once
@pytest.mark.needs("postgresql")
def test_replica_is_refused() -> None:
    """It can't keep a lock, whatever rows it has: that is "down", not "busy"."""
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
    """It is opened again, since an answer may still be on its way."""
    acquire(alias).release()
    pool = pool_of(alias)
    before = own_statements(alias)
    for _ in range(3):
        with mock.patch.object(type(before), "acquire", side_effect=Interrupted):
            with pytest.raises(Interrupted):
                acquire_lock("1234collectPayment", backend=alias)
    assert not any(each.is_used for each in pool.all)
    assert acquire(alias).release()
    assert own_statements(alias) is not before


@on_each_server
def test_connection_that_could_not_be_prepared_is_closed(alias: str) -> None:
    """At once, and not by the garbage collector."""
    own.close_own_connections()
    before = sessions(alias)
    with mock.patch.object(Statements, "use", side_effect=DatabaseError("no")):
        for _ in range(3):
            with pytest.raises(LockBackendUnavailable) as kept:
                acquire_lock("1234collectPayment", backend=alias)
        assert kept.value.__cause__
        until(lambda: sessions(alias) <= before)
