"""Locks that are acquired in a transaction: once, again, or never."""

from contextlib import suppress
from unittest import mock

import pytest
from django.db import connections, transaction

from django_distlock import (
    LockBackendUnavailable,
    LockError,
    LockLost,
    acquire_lock,
    distributed_lock,
    lock_backends,
)
from django_distlock.models import Lock
from tests.app.models import Counter
from tests.support.databases import committed, isolated, on_each_database, on_each_server
from tests.support.holders import acquire, free_for_others, take_away

pytestmark = committed


# Again in the same transaction


@on_each_server
def test_sequential_blocks_in_one_transaction_have_one_lease(alias: str) -> None:
    """Nobody else held the lock in between."""
    with transaction.atomic(using=alias):
        tokens = set()
        for ttl in (60, 30, 90):
            with distributed_lock("1234collectPayment", backend=alias, ttl=ttl) as lease:
                assert lease.held
                assert ttl - 5 < lease.remaining <= ttl
                tokens.add(lease.token)
    assert len(tokens) == 1
    assert free_for_others(alias)


@on_each_server
def test_earlier_lease_of_a_transaction_has_no_part_in_the_later_one(alias: str) -> None:
    """It was released, and has no further effect."""
    with transaction.atomic(using=alias):
        first = acquire(alias)
        first.release()
        second = acquire(alias, label="second")
        assert first.release() is False
        assert second.held
        assert Lock.objects.using(alias).get(pk="1234collectPayment").holder.startswith("second (")
    assert not free_for_others(alias)
    assert second.release()


@on_each_server
@pytest.mark.parametrize("tries", [1, 2])
def test_loss_between_two_blocks_is_not_committed_though_the_error_is_caught(
    alias: str, tries: int
) -> None:
    """Nor after another attempt: the first block's writes depend on the lock."""
    with pytest.raises(LockLost, match="before the commit"), transaction.atomic(using=alias):
        with distributed_lock("1234collectPayment", backend=alias) as lease:
            Counter.objects.using(alias).create()
        take_away(lease)
        for _ in range(tries):
            with pytest.raises(LockLost, match="since an earlier block"):
                acquire_lock("1234collectPayment", backend=alias)
    assert not Counter.objects.using(alias).exists()
    assert free_for_others(alias)


@on_each_server
def test_store_that_is_down_between_two_blocks_leaves_the_commit_guarded(alias: str) -> None:
    """Then it is unknown whether the lease is still held."""
    down = LockBackendUnavailable("down", reply_lost=True)
    with pytest.raises(LockLost, match="before the commit"), transaction.atomic(using=alias):
        with distributed_lock("1234collectPayment", backend=alias):
            Counter.objects.using(alias).create()
        with mock.patch.object(type(lock_backends[alias]), "acquire", side_effect=down):
            with pytest.raises(LockBackendUnavailable):
                acquire_lock("1234collectPayment", backend=alias)
    assert not Counter.objects.using(alias).exists()
    assert free_for_others(alias)


@on_each_server
def test_lease_taken_back_is_kept_beyond_the_transaction(alias: str) -> None:
    """If it is not released again in the transaction."""
    with transaction.atomic(using=alias):
        acquire(alias).release()
        acquire(alias).release()
        lease = acquire(alias)
    assert lease.held
    assert not free_for_others(alias)
    assert lease.release()
    assert free_for_others(alias)


@on_each_server
def test_lease_that_was_lost_between_two_blocks_is_not_taken_back(alias: str) -> None:
    """A successor may have worked since: the transaction must not be committed."""
    with (
        pytest.raises(LockLost, match="since an earlier block"),
        transaction.atomic(using=alias),
    ):
        first = acquire(alias)
        first.release()
        take_away(first)
        assert free_for_others(alias)
        acquire(alias)
    assert free_for_others(alias)


def test_lock_undone_by_a_savepoint_is_acquired_again() -> None:
    """On SQLite a grant is undone with the work that was done under it."""
    with transaction.atomic():
        with suppress(ZeroDivisionError), transaction.atomic():
            acquire("default").release()
            raise ZeroDivisionError
        lease = acquire("default")
        assert lease.held
    assert not free_for_others("default")
    assert lease.release()


# Transactions in which no lock can be held


@on_each_database
def test_autocommit_off_is_refused(alias: str) -> None:
    """The time of the commit is unknown, unlike with atomic()."""
    transaction.set_autocommit(False, using=alias)
    try:
        with pytest.raises(LockError, match="Autocommit is off on the database"):
            acquire_lock("1234collectPayment", backend=alias)
        with transaction.atomic(using=alias):
            with pytest.raises(LockError, match=r"transaction\.atomic\(\)"):
                acquire_lock("1234collectPayment", backend=alias)
    finally:
        transaction.rollback(using=alias)
        transaction.set_autocommit(True, using=alias)
    assert acquire(alias).release()


@on_each_server
@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_transaction_that_reads_an_older_snapshot_is_refused(alias: str, level: str) -> None:
    """It would not see the last holder's commit; the lock has to come first."""
    with isolated(alias, level):
        with transaction.atomic(using=alias):
            Counter.objects.using(alias).count()
            with pytest.raises(LockError, match=r"Acquire the lock before transaction\.atomic\(\)"):
                acquire_lock("1234collectPayment", backend=alias)
        with distributed_lock("1234collectPayment", backend=alias), transaction.atomic(using=alias):
            Counter.objects.using(alias).create()
    assert Counter.objects.using(alias).exists()


@pytest.mark.needs("postgresql")
def test_transaction_that_has_read_nothing_yet_is_not_refused() -> None:
    """PostgreSQL takes the snapshot at the first statement."""
    with isolated("postgresql", "serializable"), transaction.atomic(using="postgresql"):
        assert acquire("postgresql").release()


@pytest.mark.needs("postgresql")
def test_level_that_a_statement_set_counts() -> None:
    """The server is asked, not the settings."""
    with transaction.atomic(using="postgresql"):
        with connections["postgresql"].cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            cursor.execute("SELECT 1")
        with pytest.raises(LockError, match="REPEATABLE READ"):
            acquire_lock("1234collectPayment", backend="postgresql")


@pytest.mark.needs("mariadb")
def test_servers_own_level_counts_where_the_settings_name_none() -> None:
    """MariaDB's is REPEATABLE READ."""
    with isolated("mariadb", "read committed"):
        connections["mariadb"].settings_dict["OPTIONS"]["isolation_level"] = None
        with transaction.atomic(using="mariadb"), pytest.raises(LockError, match="REPEATABLE"):
            acquire_lock("1234collectPayment", backend="mariadb")
