"""Renewal of leases in a database: locked rows, transactions and errors."""

from contextlib import ExitStack, suppress
from typing import Any
from unittest import mock

import pytest
from django.db import DatabaseError, connections, transaction
from django.test import TestCase
from django.views.debug import ExceptionReporter

from django_distlock import Lease, LockBackendUnavailable, LockLost, clocks, lock_backends
from django_distlock.backends.base import TransactionalStore
from django_distlock.backends.database.connections import close_own_connections
from django_distlock.backends.database.mysql import MySQLStatements
from django_distlock.backends.database.sqlite import SQLiteStatements
from django_distlock.backends.database.statements import Statements
from django_distlock.concurrency.background import background
from tests.support.databases import (
    committed,
    locked_row,
    on_each_database,
    on_each_server,
)
from tests.support.holders import acquire, hold, take_away
from tests.support.moved_clock import MovedClock
from tests.support.renewals import renewals_of

on_each_way = pytest.mark.parametrize(
    "store",
    [
        "default",
        "orm",
        pytest.param("postgresql", marks=pytest.mark.needs("postgresql")),
        pytest.param("mariadb", marks=pytest.mark.needs("mariadb")),
        pytest.param("mysql", marks=pytest.mark.needs("mariadb")),
    ],
)


# Rows that are locked, or gone


@committed
@pytest.mark.once
@on_each_server
def test_locked_row_stalls_no_other_renewal(
    alias: str,
    moved_clock: MovedClock,
    lost: dict[Lease, str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is skipped, and tried again soon; it does not count as lost."""
    leases = hold(100, alias)
    renewals = renewals_of(*leases)
    ends = [lease.expires_at for lease in leases]
    moved_clock.stop()
    with locked_row(alias, f"{alias} 50"):
        moved_clock.advance(30)
        renewals.renew_due()
        moved = [lease.expires_at != end for lease, end in zip(leases, ends, strict=True)]
        assert moved == [True] * 50 + [False] + [True] * 49
        assert f"'{alias} 50', of {leases[50].holder}, could not" in caplog.text
        assert 0 < leases[50].due - clocks.monotonic() < 5
        assert leases[50].held
        with pytest.raises(LockBackendUnavailable, match="has its row locked"):
            leases[50].renew()
    moved_clock.advance(10)
    renewals.renew_due()
    assert leases[50].expires_at != ends[50]
    assert not lost


@committed
@pytest.mark.once
@on_each_server
def test_unknown_end_in_a_row_is_not_a_renewal(alias: str, moved_clock: MovedClock) -> None:
    """A skipped row may have an end that this lease does not know."""
    lease = acquire(alias, ttl=60, renew=False)
    lock_backends[alias].renew([lease])  # whose answer was lost, say
    moved_clock.stop()
    moved_clock.advance(20)
    remaining = lease.remaining
    with locked_row(alias, "1234collectPayment"):
        renewals_of(lease).renew_due()
        with pytest.raises(LockBackendUnavailable):
            lease.renew()
    assert lease.remaining == remaining


@committed
@on_each_database
def test_lease_that_was_taken_away_is_lost_at_the_next_renewal(
    alias: str,
    moved_clock: MovedClock,
    lost: dict[Lease, str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """lock_lost is sent once, with the reason; the others are renewed."""
    taken, *others = leases = hold(3, alias)
    renewals = renewals_of(*leases)
    take_away(taken)
    moved_clock.stop()
    moved_clock.advance(30)
    renewals.renew_due()
    [(lease, reason)] = lost.items()
    assert lease is taken
    assert "its store no longer has it" in reason
    assert all(other.remaining > 50 for other in others)
    assert f"{taken}, of {taken.holder}, was lost: {reason}." in caplog.text
    assert str(taken.owner) not in caplog.text
    with pytest.raises(LockLost, match="was lost: its store no longer has it"):
        taken.check()
    assert taken.release() is False


# Transactions


@committed
def test_renewal_that_is_rolled_back_does_not_count(moved_clock: MovedClock) -> None:
    """On SQLite it is part of the transaction; so `remaining` doesn't count on it."""
    lease = acquire("default", ttl=60, renew=False)
    moved_clock.stop()
    moved_clock.advance(1)
    end, remaining = lease.expires_at, lease.remaining
    with suppress(ZeroDivisionError), transaction.atomic():
        lease.renew()
        raise ZeroDivisionError
    assert lease.expires_at == end
    assert lease.remaining == remaining


@committed
def test_renewal_spares_a_transaction_that_has_read(moved_clock: MovedClock) -> None:
    """On SQLite it could no longer write; when it is urgent the lease comes first."""
    lease = acquire("default", ttl=60, renew=False)
    moved_clock.stop()
    with transaction.atomic():
        assert lease.would_disturb_transaction()
        moved_clock.advance(lease.remaining - 19)
        assert not lease.would_disturb_transaction()
    assert not lease.would_disturb_transaction()
    lease.release()


class InATestCase(TestCase):
    """Other threads can't see the test's own transaction."""

    databases = {"default"}

    def test_nothing_is_renewed_in_the_background(self) -> None:
        """The lease can be renewed by hand."""
        lease = acquire("default")
        assert lease not in background("default").renewals
        lease.renew()
        assert lease.release() is True


def can_renew(alias: str) -> bool:
    store = lock_backends[alias]
    assert isinstance(store, TransactionalStore)
    return store.can_renew()


@committed
def test_lease_of_a_transaction_that_sqlite_will_commit_is_renewed() -> None:
    """The renewal waits for the commit, which other databases could not see before."""
    with transaction.atomic():
        assert can_renew("default")


@committed
@pytest.mark.needs("postgresql")
def test_lease_of_a_transaction_that_others_do_not_see_is_not_renewed() -> None:
    """It would count as lost."""
    with transaction.atomic(using="postgresql"):
        assert not can_renew("orm_postgresql")
    assert can_renew("orm_postgresql")


@pytest.mark.needs("mariadb")
@pytest.mark.django_db(databases=["mariadb"])
def test_renewal_in_a_testcase_leaves_its_transaction_alone() -> None:
    """MySQL would commit it at the beginning of another."""
    lease = acquire("mysql")
    end = lease.expires_at
    lease.renew()
    assert lease.expires_at != end
    transaction.set_rollback(False, using="mariadb")  # an error if there were none
    assert lease.release()


# Errors


@committed
@on_each_way
def test_no_traceback_of_a_renewal_has_the_owner(store: str) -> None:
    """Debug pages and error reports show every frame's variables."""
    lease = acquire(store)

    def fail(*args: Any, **kwargs: Any) -> Any:
        raise DatabaseError("no such table")

    with ExitStack() as broken:
        for kind in (Statements, SQLiteStatements):
            for name in ("fetch", "execute"):
                broken.enter_context(mock.patch.object(kind, name, fail))
        broken.enter_context(mock.patch("django_distlock.models.LockQuerySet.update", fail))
        with pytest.raises(LockBackendUnavailable) as caught:
            lease.renew()
    page = ExceptionReporter(None, caught.type, caught.value, caught.tb).get_traceback_html()
    assert "no such table" in page
    assert str(lease.owner) not in page


@committed
@pytest.mark.once
@pytest.mark.needs("mariadb")
@pytest.mark.parametrize("store", ["mariadb", "mysql"])
def test_database_without_skip_locked_renews_one_by_one(store: str) -> None:
    """MariaDB before 10.6."""
    close_own_connections()
    features = type(connections["mariadb"].features)
    with mock.patch.object(features, "has_select_for_update_skip_locked", False):
        taken, *others = leases = hold(3, store)
        take_away(taken)
        ends = lock_backends[store].renew(leases)
        close_own_connections()
    assert ends.keys() == {lease.owner for lease in leases}
    assert ends[taken.owner].lost
    for lease in others:
        assert ends[lease.owner].renewed
        end = ends[lease.owner].expires_at
        assert end is not None
        assert lease.expires_at is not None
        assert end > lease.expires_at


@committed
@pytest.mark.once
@pytest.mark.needs("mariadb")
def test_deadlock_during_a_renewal_is_tried_again() -> None:
    """MySQL's way takes several statements, which are undone as one."""
    from MySQLdb import OperationalError

    lease = acquire("mysql")
    end = lease.expires_at
    errors = [OperationalError(1213, "Deadlock found")]
    execute = MySQLStatements.execute

    def fail_once(statements: MySQLStatements, sql: str, parameters: Any) -> int:
        if errors and sql.strip().startswith("UPDATE"):
            raise errors.pop()
        return execute(statements, sql, parameters)

    with mock.patch.object(MySQLStatements, "execute", fail_once):
        lease.renew()
    assert not errors
    assert lease.expires_at != end
