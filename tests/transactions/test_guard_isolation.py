"""The guard in each kind of transaction on PostgreSQL."""

from unittest import mock

import pytest
from django.db import OperationalError, connections, transaction

from django_distlock import LockBackendUnavailable, LockLost, distributed_lock, lock_backends
from django_distlock.test import expire
from tests.app.models import Counter
from tests.support.databases import committed, isolated, locked_row
from tests.support.holders import take_away

pytestmark = [committed, pytest.mark.needs("postgresql")]


def test_transaction_that_only_reads_is_committed() -> None:
    """PostgreSQL doesn't allow it to lock rows, and it has no writes to guard."""
    called = []
    with (
        distributed_lock("1234collectPayment", backend="postgresql"),
        transaction.atomic(using="postgresql"),
    ):
        with connections["postgresql"].cursor() as cursor:
            cursor.execute("SET TRANSACTION READ ONLY")
            cursor.execute("SELECT 1")
        transaction.on_commit(lambda: called.append(True), using="postgresql")
    assert called == [True]


def test_guards_own_error_is_one_of_the_databases() -> None:
    """Code that retries such transactions retries this one: the row was renewed since its start."""
    with pytest.raises(OperationalError, match="serial"):
        with distributed_lock("1234collectPayment", backend="postgresql") as lease:
            with transaction.atomic(using="postgresql"):
                with connections["postgresql"].cursor() as cursor:
                    cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                Counter.objects.using("postgresql").create()
                lease.renew()


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_transaction_with_a_snapshot_outlasts_renewals(level: str) -> None:
    """Even though it can no longer lock the row. Without the lock it doesn't commit."""
    counters = Counter.objects.using("postgresql")
    with isolated("postgresql", level):
        with distributed_lock("1234collectPayment", backend="postgresql") as lease:
            with transaction.atomic(using="postgresql"):
                counters.create()
                lease.renew()
        assert counters.count() == 1
        with pytest.raises(LockLost, match="before the commit"):
            with distributed_lock("1234collectPayment", backend="postgresql") as lease:
                with transaction.atomic(using="postgresql"):
                    counters.create()
                    lease.renew()
                    take_away(lease)
        assert counters.count() == 1


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_guard_of_a_transaction_with_a_snapshot_lasts_one_ttl(level: str) -> None:
    """As docs/how-to/transactions.md warns: a later commit is done beside a successor."""
    store = lock_backends["postgresql"]
    counters = Counter.objects.using("postgresql")
    with isolated("postgresql", level):
        counters.count()  # opens the connection
        session = connections["postgresql"].connection
        commit = session.commit

        def commit_late() -> None:
            expire("1234collectPayment", backend="postgresql", noticed=False)
            assert store.acquire("1234collectPayment", "next", 60, "a successor")
            commit()

        with pytest.raises(LockLost, match="before its block ended"):
            with distributed_lock("1234collectPayment", backend="postgresql"):
                with mock.patch.object(session, "commit", commit_late):
                    with transaction.atomic(using="postgresql"):
                        counters.create()
        assert counters.count() == 1


def test_transaction_with_a_snapshot_is_not_committed_on_a_locked_row() -> None:
    """The lease couldn't be renewed, so it may end before the commit."""
    with isolated("postgresql", "repeatable read"):
        with distributed_lock("1234collectPayment", backend="postgresql"):
            with locked_row("postgresql", "1234collectPayment"):
                with pytest.raises(LockBackendUnavailable, match="locked the lock's row"):
                    with transaction.atomic(using="postgresql"):
                        Counter.objects.using("postgresql").create()
    assert not Counter.objects.using("postgresql").exists()
