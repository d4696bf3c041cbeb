"""Pauses in the database, apart from what the contract asks of every store."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import nullcontext
from datetime import UTC, datetime
from functools import partial
from unittest import mock

import pytest
from django.db import connection, connections, transaction

from django_distlock import lock_backends
from django_distlock.backends.database import postgresql
from django_distlock.backends.database.backend import DatabaseBackend
from django_distlock.backends.database.connections import close_own_connections
from django_distlock.leases.request import new_owner
from django_distlock.models import Lock, LockPause
from django_distlock.records import Grant, Refusal
from tests.support.concurrency import elsewhere, until
from tests.support.databases import (
    SERVERS,
    another_session,
    committed,
    locked_row,
    on_each_database,
    on_each_server,
    statements_sent,
)
from tests.support.holders import acquire
from tests.support.lock_rows import HOUR, NOW
from tests.support.postgresql_waiters import ALIAS

pytestmark = [committed, pytest.mark.once]

SEMAPHORE = "1234collectPayment"

WAITS = {
    "postgresql": "SELECT count(*) FROM pg_locks WHERE NOT granted",
    "mysql": "SELECT count(*) FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'",
}


def session_waits(alias: str) -> bool:
    """Return whether a session waits for another one's transaction."""
    with connections[alias].cursor() as cursor:
        cursor.execute(WAITS[connections[alias].vendor])
        return bool(cursor.fetchone()[0])


def store(alias: str) -> DatabaseBackend:
    found = lock_backends[alias]
    assert isinstance(found, DatabaseBackend)
    return found


def attempt(alias: str, semaphore: str = SEMAPHORE) -> Grant | Refusal:
    """Try once."""
    return store(alias).acquire(semaphore, new_owner(), 60, "another")


def reason(alias: str, semaphore: str = SEMAPHORE) -> str:
    """Return why an attempt is refused."""
    refusal = attempt(alias, semaphore)
    assert isinstance(refusal, Refusal)
    return refusal.reason


@on_each_server
def test_pause_acts_at_once_whatever_becomes_of_the_callers_transaction(alias: str) -> None:
    """As does its end: an operator's request may fail after it."""
    with transaction.atomic(using=alias):
        store(alias).pause("1234")
        assert elsewhere(lambda: reason(alias)) == "paused"
        assert [pause.prefix for pause in store(alias).pauses()] == ["1234"]
        transaction.set_rollback(True, using=alias)
    assert reason(alias) == "paused"
    with transaction.atomic(using=alias):
        assert store(alias).resume("1234")
        assert elsewhere(lambda: acquire(alias).release())


@pytest.mark.parametrize("alias", SERVERS)
def test_refusal_by_a_pause_takes_one_statement(alias: str) -> None:
    """The one that would have granted the lock."""
    store(alias).pause("1234", reason="deploy")
    reason(alias)
    reasons: list[str] = []
    assert len(statements_sent(alias, lambda: reasons.append(reason(alias)))) == 1
    assert reasons == ["paused: deploy"]


@on_each_database
def test_holder_is_told_rather_than_the_pause(alias: str) -> None:
    """A lock that is held would be refused without the pause, too."""
    lease = acquire(alias)
    store(alias).pause("", 60)
    assert reason(alias) == ""
    assert reason(alias, "another") == "paused"
    assert lease.release()


@on_each_database
def test_semaphore_that_was_paused_before_its_first_grant_is_free_afterwards(alias: str) -> None:
    """Whether its refusal wrote a row or not, nobody is said to hold it."""
    store(alias).pause("1234")
    assert reason(alias) == "paused"
    assert [*store(alias).held()] == []
    assert [*Lock.objects.using(alias).released()] == [*Lock.objects.using(alias).all()]
    assert store(alias).resume("1234")
    assert acquire(alias).release()


@on_each_database
def test_longest_of_several_pauses_is_told(alias: str) -> None:
    """One without an end is the longest."""
    for prefix, seconds, why in (("1", 60, "short"), ("12", 600, "long"), ("123", 90, "short")):
        store(alias).pause(prefix, seconds, reason=why)
    assert reason(alias) == "paused: long"
    store(alias).pause("", reason="until resumed")
    assert reason(alias) == "paused: until resumed"


@on_each_database
def test_pauses_that_ended_are_deleted_by_the_next_one(alias: str) -> None:
    """Nothing else need clean up after them."""
    LockPause.objects.using(alias).create(prefix="a", since=NOW - HOUR, until=NOW)
    store(alias).pause("b")
    assert [*LockPause.objects.using(alias).values_list("prefix", flat=True)] == ["b"]


@pytest.mark.parametrize("in_transaction", [True, False])
def test_pause_holds_where_the_orm_is_used(in_transaction: bool) -> None:
    """As on a database that is not known."""
    with mock.patch.object(connection.features, "can_return_columns_from_insert", False):
        store("default").pause("1234", 60, reason="deploy")
        store("default").pause("")
        with transaction.atomic() if in_transaction else nullcontext():
            assert reason("default") == "paused"
        assert store("default").resume("")
        assert reason("default") == "paused: deploy"
        assert acquire("default", "another").release()
        assert store("default").resume("1234")
        assert acquire("default").release()


@pytest.mark.needs("mariadb")
def test_two_operators_may_pause_the_same_at_once() -> None:
    """The second one's pause is kept."""
    pauses = LockPause.objects.using("mariadb")
    others = [lambda: pauses.create(prefix="1234", since=NOW, reason="first", by="")]
    create = type(pauses.all()).create

    def interrupted(queryset: object, **values: object) -> object:
        if others:
            elsewhere(others.pop())
        return create(queryset, **values)  # type: ignore[arg-type]

    with mock.patch.object(type(pauses.all()), "create", interrupted):
        assert store("mariadb").pause("1234", reason="second").reason == "second"
    assert [pause.reason for pause in store("mariadb").pauses()] == ["second"]


@pytest.mark.needs("postgresql")
def test_grant_beside_many_pauses_is_one_statement() -> None:
    """They are looked at in it."""
    LockPause.objects.using(ALIAS).bulk_create(
        LockPause(prefix=f"{number:03}", since=NOW) for number in range(500)
    )
    acquire(ALIAS, "another").release()
    granted: list[Grant | Refusal] = []
    sent = statements_sent(
        ALIAS, lambda: granted.append(store(ALIAS).acquire("another", new_owner(), 60, "another"))
    )
    assert len(sent) == 1
    assert granted[0]


@pytest.mark.needs("postgresql")
def test_attempt_that_began_before_a_pause_ends_before_it_has_begun(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """It can't see the pause, and may wait for a row. Nothing is granted after pause() returned."""
    acquire(ALIAS).release()
    request.addfinalizer(close_own_connections)
    monkeypatch.setattr(postgresql, "ACQUIRE", postgresql.ACQUIRE.replace("'50ms'", "'60s'"))
    monkeypatch.setattr(postgresql, "LONGEST_ATTEMPT", 60)
    close_own_connections()  # which have the statements
    with ThreadPoolExecutor() as threads, locked_row(ALIAS, SEMAPHORE):
        granted_late = threads.submit(elsewhere, lambda: acquire(ALIAS))
        until(lambda: session_waits(ALIAS))
        pause = threads.submit(elsewhere, lambda: (store(ALIAS).pause("1234"), datetime.now(UTC)))
        until(LockPause.objects.using(ALIAS).exists)
        wait([pause], 0.05)
    _, began_at = pause.result()
    lease = granted_late.result()
    assert lease.acquired_at < began_at
    assert lease.release()


@pytest.mark.needs("mariadb")
@pytest.mark.parametrize("alias", ["mariadb", "mysql"])
def test_pause_waits_for_the_attempts_that_do_not_see_it(alias: str) -> None:
    """They lock the pauses that they look at. So here, one waits until another pause is written."""
    acquire(alias).release()
    with another_session("mariadb") as operator, ThreadPoolExecutor() as threads:
        operator.set_autocommit(False)
        with operator.cursor() as cursor:
            cursor.execute("INSERT INTO distlock_lockpause VALUES ('1234', 0, NULL, 'deploy', '')")
        outcome = threads.submit(elsewhere, partial(attempt, alias))
        until(lambda: outcome.done() or session_waits("mariadb"))
        operator.commit()
        assert not outcome.result()


@pytest.mark.needs("postgresql")
def test_pause_begins_though_a_transaction_changes_a_lock_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is no attempt to acquire."""
    monkeypatch.setattr(postgresql, "LONGEST_ATTEMPT", 0.05)
    acquire(ALIAS).release()
    with another_session(ALIAS) as session, session.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute(f"UPDATE {Lock._meta.db_table} SET holder = ''")
        assert store(ALIAS).pause("1234")
        cursor.execute("ROLLBACK")
    assert reason(ALIAS) == "paused"
