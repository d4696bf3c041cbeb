"""Rows that are briefly locked by renewals, purges and other tries, not by a holder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from django.db import connections, transaction

from django_distlock import LockBackendUnavailable, acquire_lock, lock_backends
from django_distlock.backends.database import backend as database
from django_distlock.backends.database import connections as own
from django_distlock.backends.database.backend import DatabaseBackend
from django_distlock.backends.database.errors import RowLocked
from django_distlock.backends.database.sqlite import SQLiteStatements
from django_distlock.backends.database.statements import pack
from tests.support.databases import another_session, committed, isolated, own_statements
from tests.support.holders import acquire
from tests.support.processes import Workers

if TYPE_CHECKING:
    from django.db.backends.base.base import BaseDatabaseWrapper

    from django_distlock.backends.database.statements import Statements
    from tests.support.moved_clock import MovedClock

pytestmark = [committed, pytest.mark.once]

MINUTE = 60_000_000
UNLOCKED = "SELECT semaphore FROM distlock_lock FOR UPDATE SKIP LOCKED"
LOCK = "SELECT token FROM distlock_lock WHERE semaphore = %s FOR UPDATE"


def statements(alias: str, connection: BaseDatabaseWrapper) -> Statements:
    """Return the statements that the store sends on this connection."""
    store = lock_backends[alias]
    assert isinstance(store, DatabaseBackend)
    return store.statements(connection)


@pytest.mark.needs("mariadb")
@pytest.mark.parametrize("alias", ["mariadb", "mysql"])
def test_renewal_locks_the_rows_of_its_leases_alone(alias: str) -> None:
    """Also in a table of a few rows: what is locked for a moment shows at REPEATABLE READ."""
    leases = [acquire(alias, f"report {number}") for number in range(5)]
    renewed = leases[1:3]
    with isolated("mariadb", "repeatable read"), transaction.atomic(using="mariadb"):
        lock = statements(alias, connections["mariadb"])
        claims = (
            {"semaphore": one.semaphore, "owner": one.owner, "ttl": MINUTE} for one in renewed
        )
        assert len(lock.renew(pack(claims))) == len(renewed)
        with another_session("mariadb") as other, other.cursor() as cursor:
            cursor.execute(UNLOCKED)
            unlocked = {semaphore.decode() for (semaphore,) in cursor.fetchall()}
    assert unlocked == {lease.semaphore for lease in leases if lease not in renewed}


def test_row_that_stays_locked_is_tried_until_the_time_is_over(
    moved_clock: MovedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call that took all of its time is not repeated."""
    lease = acquire("default", ttl=1000, renew=False)
    store = lock_backends["default"]
    seconds = iter([0.0, 1000.0])

    def be_refused(*arguments: Any) -> None:
        moved_clock.advance(next(seconds))
        raise RowLocked

    with monkeypatch.context() as patch:
        patch.setattr(SQLiteStatements, "release", be_refused)
        with pytest.raises(LockBackendUnavailable):
            store.release(lease)
    assert [*seconds] == []
    assert store.release(lease)


@pytest.fixture
def long_row_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make an attempt wait for a locked row for longer than this machine may stall."""
    monkeypatch.setattr(database, "ROW_WAIT", 30.0)


@pytest.mark.usefixtures("long_row_wait")
@pytest.mark.needs("mariadb")
def test_row_that_is_locked_for_a_moment_is_asked_for_again() -> None:
    """PostgreSQL waits by itself: nobody holds the lock."""
    acquire("mariadb").release()
    with another_session("mariadb") as other:
        other.set_autocommit(False)
        with other.cursor() as cursor:
            cursor.execute(LOCK, [b"1234collectPayment"])
        unlock = mock.Mock(side_effect=lambda seconds: other.rollback())
        with mock.patch.object(database, "sleep", unlock):
            assert acquire("mariadb").release()
    unlock.assert_called_once()


@pytest.mark.usefixtures("long_row_wait")
@pytest.mark.needs("mariadb")
def test_free_lock_is_granted_while_others_are_renewed_and_purged() -> None:
    """Always: without another try, one in a hundred was refused."""
    store = lock_backends["mariadb"]
    renewing, purging = Workers(2, "renew_on", "mariadb", "2"), Workers(1, "purge_on", "mariadb")
    with renewing, purging:
        refused = 0
        for _ in range(1_500):
            lease = acquire_lock("1234collectPayment", backend="mariadb", renew=False)
            refused += lease is None
            assert lease is None or lease.release()
        renewing.proceed()
        purging.proceed()
        assert renewing.results() == [[0], [0]]
        assert purging.results() > [[0]]
    assert refused == 0
    assert [*store.held()] == []


SERIALIZABLE = {"options": "-c default_transaction_isolation=serializable"}


@pytest.mark.needs("postgresql")
@pytest.mark.parametrize(
    ("behind_pooler", "level"), [(False, "read committed"), (True, "serializable")]
)
def test_sessions_are_read_committed_unless_a_pooler_lends_them_to_others(
    behind_pooler: bool, level: str
) -> None:
    """The other users of a pooled session may rely on the default isolation level."""
    settings: dict[str, Any] = connections.settings["postgresql"]
    own.close_own_connections()
    options = settings["OPTIONS"] | SERIALIZABLE
    lent = {"OPTIONS": options, "DISABLE_SERVER_SIDE_CURSORS": behind_pooler}
    with mock.patch.dict(settings, lent):
        claims = own_statements("postgresql").fetch("SHOW transaction_isolation", {})
        own.close_own_connections()
    assert claims == [(level,)]
