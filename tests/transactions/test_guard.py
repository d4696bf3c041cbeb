"""A holder that lost the lock does not commit."""

import os
import signal
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager, suppress
from unittest import mock

import pytest
from django.db import DatabaseError, connections, transaction

from django_distlock import (
    Lease,
    LockLost,
    acquire_lock,
    distributed_lock,
    lock_backends,
    release_lock,
)
from django_distlock.models import Lock
from tests.app.models import Counter
from tests.support.concurrency import elsewhere, until, used_elsewhere
from tests.support.databases import (
    committed,
    kill_session,
    on_each_database,
    on_each_server,
    pool_of,
)
from tests.support.holders import acquire, free_for_others, take_away
from tests.support.moved_clock import MovedClock
from tests.support.processes import Workers

pytestmark = committed


@on_each_server
def test_commit_under_a_lost_lock_is_rolled_back(alias: str) -> None:
    """A successor may hold the lock, though the holder has not noticed the loss."""
    with pytest.raises(LockLost, match="before the commit") as lost:
        with (
            distributed_lock("1234collectPayment", backend=alias) as lease,
            transaction.atomic(using=alias),
        ):
            Counter.objects.using(alias).create()
            take_away(lease)
    assert lost.value.lease is lease
    assert not lease.held
    assert not Counter.objects.using(alias).exists()
    assert connections[alias].get_autocommit()


@on_each_server
def test_commit_under_a_lock_that_a_successor_holds_is_rolled_back(alias: str) -> None:
    """The semaphore is held, but by another owner."""
    with (
        pytest.raises(LockLost, match="before the commit"),
        distributed_lock("1234collectPayment", backend=alias) as lease,
        transaction.atomic(using=alias),
    ):
        Counter.objects.using(alias).create()
        take_away(lease)
        successor = elsewhere(lambda: acquire(alias))
    assert not Counter.objects.using(alias).exists()
    assert successor.release()


@on_each_server
def test_commit_after_a_release_of_a_lost_lock_is_rolled_back(alias: str) -> None:
    """The release waits for the commit, so the lock has to be held until then."""
    with pytest.raises(LockLost, match="before the commit"), transaction.atomic(using=alias):
        with distributed_lock("1234collectPayment", backend=alias) as lease:
            Counter.objects.using(alias).create()
        take_away(lease)
    assert not Counter.objects.using(alias).exists()
    assert free_for_others(alias)


@on_each_database
def test_sequential_blocks_whose_transaction_fails_leave_nothing_behind(alias: str) -> None:
    """Nor does a lease that was acquired before the transaction, also on SQLite."""
    lease: Lease = acquire(alias)
    for _ in range(5):
        with suppress(ZeroDivisionError), transaction.atomic(using=alias):
            lease.release()
            for _ in range(2):
                with distributed_lock("1234collectPayment", backend=alias) as lease:
                    pass
            raise ZeroDivisionError
        lease = acquire(alias)
    assert lease.release()
    assert free_for_others(alias)


def test_release_of_a_grant_that_a_savepoint_undid_is_false_on_sqlite() -> None:
    """There the grant is in the transaction, like the data; work since the grant is not kept."""
    with pytest.raises(LockLost, match="before the commit"), transaction.atomic():
        with suppress(ZeroDivisionError), transaction.atomic():
            acquire("default")
            raise ZeroDivisionError
        Counter.objects.create()
        assert release_lock("1234collectPayment") is False
    assert not Counter.objects.exists()


def test_commit_under_a_lock_that_the_row_denies_is_rolled_back_on_sqlite() -> None:
    """The transaction's last statement sees the row that is about to be committed."""
    with pytest.raises(LockLost, match="before the commit"), distributed_lock("1234collectPayment"):
        with transaction.atomic():
            Counter.objects.create()
            Lock.objects.update(owner="somebody else")
    assert not Counter.objects.exists()


@on_each_server
def test_commit_under_a_lock_that_was_acquired_again_and_lost_is_rolled_back(alias: str) -> None:
    """The first block's writes still depend on it."""
    with pytest.raises(LockLost, match="before the commit"), transaction.atomic(using=alias):
        with distributed_lock("1234collectPayment", backend=alias):
            Counter.objects.using(alias).create()
        take_away(acquire(alias))
    assert not Counter.objects.using(alias).exists()


@on_each_server
def test_commit_on_another_database_under_a_lock_that_is_known_to_be_lost_is_rolled_back(
    alias: str,
) -> None:
    """Even if its ttl has not passed yet."""
    with pytest.raises(LockLost, match="commit on the database 'default'"):
        with distributed_lock("1234collectPayment", backend=alias) as lease, transaction.atomic():
            Counter.objects.create()
            take_away(lease)
            with suppress(LockLost):
                lease.renew()
    assert not Counter.objects.exists()


@on_each_database
def test_commit_after_a_failed_block_that_lost_its_lock_is_rolled_back(
    alias: str, moved_clock: MovedClock
) -> None:
    """Code that catches the block's own error may not know of the loss."""
    with pytest.raises(LockLost, match="before the commit"), transaction.atomic(using=alias):
        with (
            suppress(ZeroDivisionError),
            distributed_lock("1234collectPayment", backend=alias) as lease,
        ):
            Counter.objects.using(alias).create()
            moved_clock.expire(lease)
            raise ZeroDivisionError
    assert not Counter.objects.using(alias).exists()


@on_each_server
def test_guard_waits_for_no_connection_of_the_locks(alias: str) -> None:
    """All of them may be in use."""
    with distributed_lock("1234collectPayment", backend=alias):
        with transaction.atomic(using=alias):
            Counter.objects.using(alias).create()
        with ExitStack() as busy, transaction.atomic(using=alias):
            for connection in pool_of(alias).all:
                busy.enter_context(used_elsewhere(connection))
            Counter.objects.using(alias).create()
    assert Counter.objects.using(alias).count() == 2


@on_each_database
def test_block_that_is_left_in_another_thread_guards_nothing_more(
    alias: str, moved_clock: MovedClock
) -> None:
    """As when a generator is closed there."""

    def locked() -> Generator[Lease]:
        with distributed_lock("1234collectPayment", backend=alias) as lease:
            yield lease

    generator = locked()
    lease = next(generator)
    elsewhere(generator.close)
    moved_clock.expire(lease)
    with transaction.atomic(using=alias):
        Counter.objects.using(alias).create()
    assert free_for_others(alias)


@on_each_server
def test_connection_that_leads_elsewhere_is_not_guarded(alias: str) -> None:
    """Such as to a tenant's database: the locks are in the database that DATABASES names."""

    def work() -> None:
        connections[alias] = tenant = connections[alias].copy()
        tenant.settings_dict["NAME"] = "postgres" if tenant.vendor == "postgresql" else "mysql"
        with distributed_lock("1234collectPayment", backend=alias), transaction.atomic(using=alias):
            with tenant.cursor() as cursor:
                cursor.execute("SELECT 1")
            assert not free_for_others(alias)

    elsewhere(work)
    assert free_for_others(alias)


@pytest.mark.parametrize(
    ("backend", "using"),
    [
        ("default", "locks"),
        pytest.param("default", "postgresql", marks=pytest.mark.needs("postgresql")),
        pytest.param("postgresql", "default", marks=pytest.mark.needs("postgresql")),
        pytest.param("mariadb", "default", marks=pytest.mark.needs("mariadb")),
    ],
)
def test_expired_lease_prevents_commits_on_every_database(
    backend: str, using: str, moved_clock: MovedClock
) -> None:
    """Not even a database that the lock's store doesn't use."""
    with pytest.raises(LockLost, match=f"commit on the database '{using}'"):
        with (
            distributed_lock("1234collectPayment", backend=backend) as lease,
            transaction.atomic(using=using),
        ):
            Counter.objects.using(using).create()
            moved_clock.expire(lease)
    assert not Counter.objects.using(using).exists()


@pytest.mark.parametrize(
    ("backend", "using"),
    [
        ("minimal", "default"),
        ("orm", "default"),
        pytest.param("orm_postgresql", "postgresql", marks=pytest.mark.needs("postgresql")),
        pytest.param("mysql", "mariadb", marks=pytest.mark.needs("mariadb")),
    ],
)
def test_every_store_lets_its_holder_commit(backend: str, using: str) -> None:
    """Whether or not the store uses the transaction's database, around it or inside it."""
    with distributed_lock("1234collectPayment", backend=backend), transaction.atomic(using=using):
        Counter.objects.using(using).create()
    with transaction.atomic(using=using), distributed_lock("1234collectPayment", backend=backend):
        Counter.objects.using(using).create()
    assert Counter.objects.using(using).count() == 2
    assert acquire(backend).release()


@pytest.mark.once
@on_each_server
def test_holder_stopped_between_the_guard_and_the_commit_keeps_successors_out(alias: str) -> None:
    """Even after its lease expires: a successor is refused, and doesn't wait for the commit."""
    with stopped_holder(alias, "commit") as workers:
        until(lambda: Lock.objects.using(alias).stale().exists())
        assert acquire_lock("stopped", backend=alias) is None
        workers.processes[0].send_signal(signal.SIGCONT)
        assert workers.results() == ["committed"]
    assert Counter.objects.using(alias).exists()
    assert acquire(alias, "stopped").release()


@pytest.mark.once
@on_each_server
def test_holder_stopped_before_the_guard_is_rolled_back(alias: str) -> None:
    """By the time it continues, a successor holds the lock."""
    with stopped_holder(alias, "guard") as workers:
        successor = acquire(alias, "stopped", timeout=30)
        workers.processes[0].send_signal(signal.SIGCONT)
        assert workers.results() == ["lost"]
    assert not Counter.objects.using(alias).exists()
    assert successor.release()


@contextmanager
def stopped_holder(alias: str, where: str) -> Iterator[Workers]:
    """Stop a process that writes under a lock, before it commits, or before the guard."""
    with Workers(1, "stop", alias, where, "0.3") as workers:
        _, status = os.waitpid(workers.processes[0].pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        yield workers


def test_guard_that_fails_rolls_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the error: nothing is committed by accident."""
    refuse = mock.Mock(side_effect=KeyboardInterrupt)
    monkeypatch.setattr(type(lock_backends["default"]), "guard", refuse)
    with suppress(KeyboardInterrupt), distributed_lock("1234collectPayment"), transaction.atomic():
        Counter.objects.create()
    assert refuse.called
    assert not Counter.objects.exists()


@pytest.mark.once
@on_each_server
def test_connection_lost_before_the_guard_commits_nothing(alias: str) -> None:
    """The error is the database's own, like that of a failed commit."""
    with pytest.raises(DatabaseError), distributed_lock("1234collectPayment", backend=alias):
        with transaction.atomic(using=alias):
            Counter.objects.using(alias).create()
            kill_session(alias)
    assert not Counter.objects.using(alias).exists()
    assert free_for_others(alias)
