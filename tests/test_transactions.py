"""A release inside a transaction waits for its end, however it ends; nothing harms the caller's."""

import gc
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, TypeVar
from unittest import mock

import pytest
from django.db import DatabaseError, OperationalError, connections, transaction

from django_distlock import (
    Lease,
    LockBackendUnavailable,
    LockError,
    LockLost,
    LockNotHeld,
    acquire_lock,
    clocks,
    distributed_lock,
    lock_backends,
    release_lock,
)
from django_distlock.backends.database import connections as own
from django_distlock.background import Background, background
from django_distlock.models import Lock
from tests.app.models import Counter
from tests.conftest import DATABASES, SERVERS, committed
from tests.processes import Workers

T = TypeVar("T")

pytestmark = committed
on_each_database = pytest.mark.parametrize("alias", DATABASES)
on_each_server = pytest.mark.parametrize("alias", SERVERS)


def acquire(alias: str, semaphore: str = "a", **arguments: Any) -> Lease:
    """Acquire what must be free."""
    lease = acquire_lock(semaphore, backend=alias, **arguments)
    assert lease is not None
    return lease


def elsewhere(call: Callable[[], T]) -> T:
    """Call in another thread, as another request would."""

    def work() -> T:
        try:
            return call()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(work).result(60)


def free_for_others(alias: str, *, timeout: float = 0) -> bool:
    """Tell whether another thread gets the lock, and let it give it back."""

    def take_and_return() -> bool:
        lease = acquire_lock("a", backend=alias, timeout=timeout)
        return lease is not None and lease.release()

    return elsewhere(take_and_return)


def take_away(lease: Lease) -> None:
    """Force the release, as an operator would."""
    token = lease.token
    assert token is not None
    assert elsewhere(lambda: lock_backends[lease.backend].force_release(lease.semaphore, token))


# The end of a transaction


@on_each_server
def test_release_waits_for_the_commit(alias: str) -> None:
    """Whoever gets the lock next sees what was done under it."""
    with transaction.atomic(using=alias):
        with distributed_lock("a", backend=alias):
            Counter.objects.using(alias).create(value=1)
        assert not free_for_others(alias)
    assert free_for_others(alias)


@on_each_server
def test_release_by_name_waits_too(alias: str) -> None:
    """It says True, and the name is nobody's any more."""
    with transaction.atomic(using=alias):
        acquire(alias)
        assert release_lock("a", backend=alias) is True
        with pytest.raises(LockNotHeld):
            release_lock("a", backend=alias)
        assert not free_for_others(alias)
    assert free_for_others(alias)


@on_each_database
def test_commit_releases_in_this_thread(alias: str) -> None:
    """When the atomic block has been left, it is done."""
    with transaction.atomic(using=alias):
        acquire(alias).release()
    assert not list(lock_backends[alias].held())


@on_each_database
def test_rollback_releases_in_this_thread(alias: str) -> None:
    """Though Django calls nothing then; a script that fails may end before another thread runs."""
    with mock.patch.object(background, "do") as do:
        with suppress(SystemExit), transaction.atomic(using=alias):
            acquire(alias).release()
            raise SystemExit
    assert not do.called
    assert free_for_others(alias)


@on_each_database
def test_rollback_of_what_was_acquired_before_releases(alias: str) -> None:
    """On SQLite, too, where the rollback would have undone the release."""
    lease = acquire(alias)
    with suppress(ZeroDivisionError), transaction.atomic(using=alias):
        lease.release()
        raise ZeroDivisionError
    assert free_for_others(alias, timeout=30)


@on_each_database
def test_lock_can_be_acquired_again_at_once_after_a_rollback(alias: str) -> None:
    """As a loop does that tries a transaction again; whoever is faster, this or the background."""
    for _ in range(20):
        with suppress(ZeroDivisionError), transaction.atomic(using=alias):
            with distributed_lock("a", backend=alias):
                raise ZeroDivisionError
    assert acquire(alias).release()


@on_each_server
def test_release_outlasts_an_inner_rollback(alias: str) -> None:
    """What was done before under the same lock may yet be committed."""
    with transaction.atomic(using=alias):
        with suppress(ZeroDivisionError), transaction.atomic(using=alias):
            acquire(alias).release()
            raise ZeroDivisionError
        assert not free_for_others(alias)
    assert free_for_others(alias)


@on_each_database
def test_commit_releases_what_an_inner_rollback_kept(alias: str) -> None:
    """On SQLite the inner block's rollback undid the release."""
    with transaction.atomic(using=alias):
        lease = acquire(alias)
        with suppress(ZeroDivisionError), transaction.atomic(using=alias):
            lease.release()
            raise ZeroDivisionError
    assert free_for_others(alias)


@on_each_database
def test_errors_of_other_callbacks_do_not_keep_the_lock(alias: str) -> None:
    """Nor does the traceback of one, that somebody keeps."""
    with pytest.raises(ZeroDivisionError) as kept, transaction.atomic(using=alias):
        transaction.on_commit(lambda: 1 // 0, using=alias)
        acquire(alias).release()
    assert kept.value.__traceback__
    assert free_for_others(alias)


@on_each_server
def test_connection_closed_in_a_transaction_releases(alias: str) -> None:
    """It is rolled back."""
    with suppress(DatabaseError), transaction.atomic(using=alias):
        acquire(alias).release()
        connections[alias].close()
        assert free_for_others(alias, timeout=30)


@on_each_server
def test_release_after_the_connection_was_closed_waits_for_nothing(alias: str) -> None:
    """The server has rolled the transaction back."""
    with suppress(DatabaseError), transaction.atomic(using=alias):
        lease = acquire(alias)
        connections[alias].close()
        lease.release()
        assert free_for_others(alias)


@on_each_server
def test_connection_killed_in_a_transaction_releases(alias: str) -> None:
    """By the server, an operator or the network."""
    with pytest.raises(DatabaseError), transaction.atomic(using=alias):
        acquire(alias).release()
        kill_session(alias)
        Counter.objects.using(alias).create()
    assert free_for_others(alias, timeout=30)


def kill_session(alias: str) -> None:
    """Let another session end this thread's."""
    own, kill = {
        "postgresql": ("SELECT pg_backend_pid()", "SELECT pg_terminate_backend(%s)"),
        "mysql": ("SELECT connection_id()", "KILL %s"),
    }[connections[alias].vendor]
    with connections[alias].cursor() as cursor:
        cursor.execute(own)
        (session,) = cursor.fetchone()
    other = connections[alias].copy()
    with other.cursor() as cursor:
        cursor.execute(kill, [session])
    other.close()


# PostgreSQL's driver warns of a connection that nobody closed.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@on_each_server
def test_thread_that_ends_in_a_transaction_releases(alias: str) -> None:
    """Its connection is closed by nobody but the garbage collector."""

    def work() -> None:
        transaction.atomic(using=alias).__enter__()
        acquire(alias).release()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    gc.collect()
    assert free_for_others(alias, timeout=30)


@on_each_server
def test_forked_child_leaves_the_parents_release_alone(alias: str) -> None:
    """Though it has a copy of the transaction's callbacks, which it drops."""
    with transaction.atomic(using=alias):
        acquire(alias).release()
        if not (pid := os.fork()):
            try:
                connections[alias].run_on_commit = []
                worked_off = threading.Event()
                background.expect(worked_off)
                background.do(worked_off.set)
                worked_off.wait(60)
            finally:
                os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        assert not free_for_others(alias)
    assert free_for_others(alias)


@on_each_server
@pytest.mark.parametrize("failing", [None, "outer", "inner"])
@pytest.mark.parametrize("inside", ["outer", "both"])
def test_release_waits_for_the_transactions_of_all_databases(
    alias: str, failing: str | None, inside: str
) -> None:
    """Also for one that has nothing to do with the lock's; the last one counts."""
    with suppress(ZeroDivisionError), transaction.atomic():
        with suppress(ZeroDivisionError), transaction.atomic(using=alias):
            acquire(alias)
            if inside == "both":
                release_lock("a", backend=alias)
            if failing == "inner":
                raise ZeroDivisionError
        if inside == "outer":
            release_lock("a", backend=alias)
        assert not free_for_others(alias)
        if failing == "outer":
            raise ZeroDivisionError
    assert free_for_others(alias, timeout=30)


@on_each_server
def test_durable_block_inside_the_lock_commits_before_the_release(alias: str) -> None:
    """The lock is outside, so the release waits for nothing."""
    with distributed_lock("a", backend=alias):
        with transaction.atomic(using=alias, durable=True):
            Counter.objects.using(alias).create()
        assert not free_for_others(alias)
    assert free_for_others(alias)


@on_each_server
def test_store_that_is_down_after_the_commit_harms_no_other_callback(
    alias: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The lease ends by itself; the log says why."""
    called = []
    down = LockBackendUnavailable("down")
    with transaction.atomic(using=alias):
        acquire(alias).release()
        transaction.on_commit(lambda: called.append(True), using=alias)
        refusing = mock.patch.object(type(lock_backends[alias]), "release", side_effect=down)
        refusing.start()
    refusing.stop()
    assert called == [True]
    assert "could not be released after a transaction" in caplog.text
    assert not free_for_others(alias)


@on_each_database
def test_error_of_the_store_after_the_commit_harms_no_other_callback(
    alias: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever error it is."""
    called = []
    broken = mock.patch.object(type(lock_backends[alias]), "release", side_effect=RuntimeError)
    with suppress(ZeroDivisionError), transaction.atomic(using=alias):
        with transaction.atomic(using=alias):  # on SQLite, too, it is released after the commit
            acquire(alias).release()
        transaction.on_commit(lambda: called.append(True), using=alias)
        broken.start()
    broken.stop()
    assert called == [True]
    assert "could not be released after a transaction; it ends by itself" in caplog.text


@on_each_database
def test_error_of_the_database_in_a_block_is_no_error_of_the_lock(
    alias: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The transaction is broken, so the release waits for its rollback, on SQLite too."""
    with suppress(DatabaseError), transaction.atomic(using=alias):
        with distributed_lock("a", backend=alias):
            Counter.objects.using(alias).create(pk=1)
            Counter.objects.using(alias).create(pk=1)
    assert not [record for record in caplog.records if record.name == "django_distlock"]
    assert free_for_others(alias)


# SQLite, with a file for the locks


@pytest.mark.parametrize("failing", [False, True])
def test_release_waits_for_the_data_in_another_file(failing: bool) -> None:
    """There a grant is visible at once, as on a server."""
    with suppress(ZeroDivisionError), transaction.atomic():
        Counter.objects.create()
        with distributed_lock("a", backend="locks"):
            assert not free_for_others("locks")
        assert not free_for_others("locks")
        if failing:
            raise ZeroDivisionError
    assert free_for_others("locks", timeout=30)


def test_release_waits_for_the_data_beside_a_transaction_of_the_locks() -> None:
    """Two transactions: what the inner one commits is not to be seen before the outer one's."""
    with transaction.atomic():
        Counter.objects.create()
        with transaction.atomic(using="locks"):
            acquire("locks").release()
        assert not free_for_others("locks")
    assert free_for_others("locks")


# Again in the same transaction


@on_each_server
def test_sequential_blocks_in_one_transaction_have_one_lease(alias: str) -> None:
    """Nobody else had the lock in between."""
    with transaction.atomic(using=alias):
        tokens = set()
        for ttl in (60, 30, 90):
            with distributed_lock("a", backend=alias, ttl=ttl) as lease:
                assert lease.held
                assert ttl - 5 < lease.remaining <= ttl
                tokens.add(lease.token)
    assert len(tokens) == 1
    assert free_for_others(alias)


@on_each_server
def test_earlier_lease_of_a_transaction_has_no_part_in_the_later_one(alias: str) -> None:
    """It was released, and does nothing more."""
    with transaction.atomic(using=alias):
        first = acquire(alias)
        first.release()
        second = acquire(alias, label="second")
        assert first.release() is False
        assert second.held
        assert Lock.objects.using(alias).get(pk="a").holder.startswith("second (")
    assert not free_for_others(alias)
    assert second.release()


@on_each_server
@pytest.mark.parametrize("tries", [1, 2])
def test_loss_between_two_blocks_is_not_committed_whoever_catches_it(
    alias: str, tries: int
) -> None:
    """Nor by who tries again: what the first block wrote depends on the lock."""
    with pytest.raises(LockLost, match="before the commit"), transaction.atomic(using=alias):
        with distributed_lock("a", backend=alias) as lease:
            Counter.objects.using(alias).create()
        take_away(lease)
        for _ in range(tries):
            with pytest.raises(LockLost, match="since an earlier block"):
                acquire_lock("a", backend=alias)
    assert not Counter.objects.using(alias).exists()
    assert free_for_others(alias)


@on_each_server
def test_store_that_is_down_between_two_blocks_leaves_the_commit_guarded(alias: str) -> None:
    """It is not known then whether the lease is still there."""
    down = LockBackendUnavailable("down", reply_lost=True)
    with pytest.raises(LockLost, match="before the commit"), transaction.atomic(using=alias):
        with distributed_lock("a", backend=alias):
            Counter.objects.using(alias).create()
        with mock.patch.object(type(lock_backends[alias]), "acquire", side_effect=down):
            with pytest.raises(LockBackendUnavailable):
                acquire_lock("a", backend=alias)
    assert not Counter.objects.using(alias).exists()
    assert free_for_others(alias)


@on_each_server
def test_lease_taken_back_is_kept_beyond_the_transaction(alias: str) -> None:
    """If it is not released again in it."""
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
    """A successor may have been at work since: the transaction must not be committed."""
    with pytest.raises(LockLost), transaction.atomic(using=alias):
        first = acquire(alias)
        first.release()
        take_away(first)
        assert free_for_others(alias)
        acquire(alias)
    assert free_for_others(alias)


def test_lock_that_a_savepoint_gave_up_is_acquired_afresh() -> None:
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
    """Whoever acquires could not know when what is done is committed; atomic() says."""
    transaction.set_autocommit(False, using=alias)
    try:
        with pytest.raises(LockError, match="Autocommit is off on the database"):
            acquire_lock("a", backend=alias)
        with transaction.atomic(using=alias):
            with pytest.raises(LockError, match=r"transaction\.atomic\(\)"):
                acquire_lock("a", backend=alias)
    finally:
        transaction.rollback(using=alias)
        transaction.set_autocommit(True, using=alias)
    assert acquire(alias).release()


@on_each_server
@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_transaction_that_reads_an_older_snapshot_is_refused(alias: str, level: str) -> None:
    """It would not see what the last holder committed; the lock has to come first."""
    with isolated(alias, level):
        with transaction.atomic(using=alias):
            Counter.objects.using(alias).count()
            with pytest.raises(LockError, match=r"Acquire the lock before transaction\.atomic\(\)"):
                acquire_lock("a", backend=alias)
        with distributed_lock("a", backend=alias), transaction.atomic(using=alias):
            Counter.objects.using(alias).create()
    assert Counter.objects.using(alias).exists()


class isolated:  # noqa: N801 - a block
    """Connect with another isolation level in the block."""

    def __init__(self, alias: str, level: str) -> None:
        self.connection = connections[alias]
        self.level: Any = level
        if self.connection.vendor == "postgresql":
            from django.db.backends.postgresql.psycopg_any import IsolationLevel

            self.level = IsolationLevel[level.upper().replace(" ", "_")]

    def __enter__(self) -> None:
        self.connection.close()
        self.connection.settings_dict["OPTIONS"]["isolation_level"] = self.level

    def __exit__(self, *exception: object) -> None:
        self.connection.close()
        del self.connection.settings_dict["OPTIONS"]["isolation_level"]


@pytest.mark.needs("postgresql")
def test_transaction_that_has_read_nothing_yet_is_not_refused() -> None:
    """PostgreSQL takes the snapshot at the first statement."""
    with isolated("postgresql", "serializable"), transaction.atomic(using="postgresql"):
        acquire("postgresql").release()


@pytest.mark.needs("postgresql")
def test_level_that_a_statement_set_counts() -> None:
    """The server is asked, not the settings."""
    with transaction.atomic(using="postgresql"):
        with connections["postgresql"].cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            cursor.execute("SELECT 1")
        with pytest.raises(LockError, match="REPEATABLE READ"):
            acquire_lock("a", backend="postgresql")


@pytest.mark.needs("mariadb")
def test_servers_own_level_counts_where_the_settings_name_none() -> None:
    """MariaDB's is REPEATABLE READ."""
    with isolated("mariadb", "read committed"):
        connections["mariadb"].settings_dict["OPTIONS"]["isolation_level"] = None
        with transaction.atomic(using="mariadb"), pytest.raises(LockError, match="REPEATABLE"):
            acquire_lock("a", backend="mariadb")


# The background


def test_background_thread_goes_when_nothing_is_expected(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And no failure of some work ends it before."""
    monkeypatch.setattr("django_distlock.background.IDLE", 0.01)
    thread_of = Background()
    occasion, done = object(), threading.Event()
    thread_of.expect(occasion)
    thread = thread_of.thread
    assert thread is not None
    assert thread.daemon
    thread_of.do(lambda: 1 // 0)  # type: ignore[arg-type]
    thread_of.do(done.set)
    assert done.wait(60)
    assert "What was left to the background failed." in caplog.text
    thread.join(0.1)
    assert thread.is_alive()
    thread_of.over(occasion)
    thread.join(60)
    assert not thread.is_alive()
    thread_of.expect(occasion)
    assert thread_of.thread is not thread
    thread_of.over(occasion)


def test_background_does_without_a_thread_where_there_can_be_none(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """And tries again the next time."""
    thread_of = Background()
    with mock.patch.object(threading.Thread, "start", side_effect=RuntimeError("no more threads")):
        thread_of.expect("a")
    assert "end by themselves" in caplog.text
    done = threading.Event()
    thread_of.do(done.set)
    assert not done.is_set()
    thread_of.expect("b")
    assert done.wait(60)
    thread_of.over("a")
    thread_of.over("b")


def test_background_may_be_needed_while_it_starts() -> None:
    """When the garbage collector closes a generator with a locked block in between."""
    thread_of = Background()
    start = threading.Thread.start

    def interrupted_start(thread: threading.Thread) -> None:
        with mock.patch.object(threading.Thread, "start", start):
            thread_of.expect("collected")
        start(thread)

    with mock.patch.object(threading.Thread, "start", interrupted_start):
        thread_of.expect("a")
    done = threading.Event()
    thread_of.do(done.set)
    assert done.wait(60)
    thread_of.over("a")
    thread_of.over("collected")


@on_each_server
def test_release_left_to_the_background_concerns_no_later_transaction(alias: str) -> None:
    """The lock of one that was rolled back may well be lost."""
    with mock.patch.object(background, "do") as do:
        with suppress(DatabaseError), transaction.atomic(using=alias):
            lease = acquire(alias)
            lease.release()
            connections[alias].close()
    take_away(lease)
    with transaction.atomic(using=alias):
        Counter.objects.using(alias).create()
    assert Counter.objects.using(alias).exists()
    [[finish]] = [call.args for call in do.call_args_list]
    finish()


@on_each_server
def test_release_left_to_the_background_is_done_once(alias: str) -> None:
    """Even if the thread that wanted the lock again was faster."""
    with mock.patch.object(background, "do") as do:
        with suppress(DatabaseError), transaction.atomic(using=alias):
            acquire(alias).release()
            connections[alias].close()
    lease = acquire(alias)
    [[finish]] = [call.args for call in do.call_args_list]
    finish()
    assert not free_for_others(alias)
    assert lease.release()


# The guard of the commit


@on_each_server
def test_commit_under_a_lost_lock_is_rolled_back(alias: str) -> None:
    """Somebody else may have had the lock meanwhile, though nobody told the holder."""
    with pytest.raises(LockLost, match="before the commit") as lost:
        with distributed_lock("a", backend=alias) as lease, transaction.atomic(using=alias):
            Counter.objects.using(alias).create()
            take_away(lease)
    assert lost.value.lease is lease
    assert not lease.held
    assert not Counter.objects.using(alias).exists()
    assert connections[alias].get_autocommit()


@on_each_server
def test_commit_after_a_release_of_a_lost_lock_is_rolled_back(alias: str) -> None:
    """The release waits for the commit, so the lock has to be there until then."""
    with pytest.raises(LockLost, match="before the commit"), transaction.atomic(using=alias):
        with distributed_lock("a", backend=alias) as lease:
            Counter.objects.using(alias).create()
        take_away(lease)
    assert not Counter.objects.using(alias).exists()
    assert free_for_others(alias)


@on_each_database
def test_sequential_blocks_whose_transaction_fails_leave_nothing_behind(alias: str) -> None:
    """What was acquired before it, too, on SQLite as elsewhere."""
    lease = acquire(alias)
    for _ in range(5):
        with suppress(ZeroDivisionError), transaction.atomic(using=alias):
            lease.release()
            for _ in range(2):
                with distributed_lock("a", backend=alias) as lease:
                    pass
            raise ZeroDivisionError
        lease = acquire(alias)
    assert lease.release()
    assert free_for_others(alias)


def test_release_of_a_grant_that_a_savepoint_undid_is_false_on_sqlite() -> None:
    """There the grant is in the transaction, as the data is; what was done since is not kept."""
    with pytest.raises(LockLost, match="before the commit"), transaction.atomic():
        with suppress(ZeroDivisionError), transaction.atomic():
            acquire("default")
            raise ZeroDivisionError
        Counter.objects.create()
        assert release_lock("a") is False
    assert not Counter.objects.exists()


def test_commit_under_a_lock_that_the_row_denies_is_rolled_back_on_sqlite() -> None:
    """The last statement of the transaction sees what it is about to commit."""
    with pytest.raises(LockLost, match="before the commit"), distributed_lock("a"):
        with transaction.atomic():
            Counter.objects.create()
            Lock.objects.update(owner="somebody else")
    assert not Counter.objects.exists()


@on_each_server
def test_commit_under_a_lock_that_was_acquired_again_and_lost_is_rolled_back(alias: str) -> None:
    """What the first block wrote depends on it still, though it is held by name only."""
    with pytest.raises(LockLost, match="before the commit"), transaction.atomic(using=alias):
        with distributed_lock("a", backend=alias):
            Counter.objects.using(alias).create()
        take_away(acquire(alias))
    assert not Counter.objects.using(alias).exists()


@on_each_server
def test_commit_on_another_database_under_a_lock_that_is_known_to_be_lost_is_rolled_back(
    alias: str,
) -> None:
    """Though its time is not up yet."""
    with pytest.raises(LockLost, match="commit on the database 'default'"):
        with distributed_lock("a", backend=alias) as lease, transaction.atomic():
            Counter.objects.create()
            take_away(lease)
            with suppress(LockLost):
                lease.renew()
    assert not Counter.objects.exists()


@on_each_database
def test_commit_after_a_failed_block_that_lost_its_lock_is_rolled_back(
    alias: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever catches the block's own error may not know of the loss."""
    with pytest.raises(LockLost, match="before the commit"), transaction.atomic(using=alias):
        with suppress(ZeroDivisionError), distributed_lock("a", backend=alias) as lease:
            Counter.objects.using(alias).create()
            monkeypatch.setattr(lease, "_deadline", 0.0)
            raise ZeroDivisionError
    assert not Counter.objects.using(alias).exists()


@pytest.mark.needs("postgresql")
def test_transaction_that_only_reads_is_committed() -> None:
    """PostgreSQL lets it lock no row, and there is nothing to be guarded."""
    called = []
    with distributed_lock("a", backend="postgresql"), transaction.atomic(using="postgresql"):
        with connections["postgresql"].cursor() as cursor:
            cursor.execute("SET TRANSACTION READ ONLY")
            cursor.execute("SELECT 1")
        transaction.on_commit(lambda: called.append(True), using="postgresql")
    assert called == [True]


@pytest.mark.needs("postgresql")
def test_guards_own_error_is_one_of_the_databases() -> None:
    """So that who tries a transaction again does so: here the row was renewed since it began."""
    with isolated("postgresql", "repeatable read"), pytest.raises(OperationalError, match="serial"):
        with distributed_lock("a", backend="postgresql") as lease:
            with transaction.atomic(using="postgresql"):
                Counter.objects.using("postgresql").create()
                lease.renew()


@on_each_server
def test_guard_waits_for_no_connection_of_the_locks(alias: str) -> None:
    """They may all be in use."""
    acquire(alias, "b").release()
    with distributed_lock("a", backend=alias):
        with transaction.atomic(using=alias):
            Counter.objects.using(alias).create()
        with ExitStack() as busy, transaction.atomic(using=alias):
            for pool in own._pools.values():
                for each in pool.all:
                    busy.enter_context(each.lock)
            Counter.objects.using(alias).create()
    assert Counter.objects.using(alias).count() == 2


@on_each_database
def test_block_that_is_left_in_another_thread_guards_nothing_more(
    alias: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a generator that is closed there."""

    def locked() -> Generator[Lease]:
        with distributed_lock("a", backend=alias) as lease:
            yield lease

    generator = locked()
    lease = next(generator)
    elsewhere(generator.close)
    monkeypatch.setattr(lease, "_deadline", 0.0)
    with transaction.atomic(using=alias):
        Counter.objects.using(alias).create()
    assert free_for_others(alias)


@on_each_server
def test_connection_that_leads_elsewhere_is_not_guarded(alias: str) -> None:
    """Such as to a tenant's database: the locks are where DATABASES says."""

    def work() -> None:
        connections[alias] = tenant = connections[alias].copy()
        tenant.settings_dict["NAME"] = "postgres" if tenant.vendor == "postgresql" else "mysql"
        with distributed_lock("a", backend=alias), transaction.atomic(using=alias):
            with tenant.cursor() as cursor:
                cursor.execute("SELECT 1")
            assert not free_for_others(alias)

    elsewhere(work)
    assert free_for_others(alias)


@on_each_database
def test_expired_lease_lets_no_database_commit(alias: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor one that the lock's store knows nothing of."""
    other = "default" if alias != "default" else "postgresql"
    with pytest.raises(LockLost, match=f"commit on the database '{other}'"):
        with distributed_lock("a", backend=alias) as lease, transaction.atomic(using=other):
            Counter.objects.using(other).create()
            monkeypatch.setattr(lease, "_deadline", 0.0)
    assert not Counter.objects.using(other).exists()


@pytest.mark.parametrize(
    ("backend", "using"),
    [
        ("modest", "default"),
        ("orm", "default"),
        pytest.param("orm_postgresql", "postgresql", marks=pytest.mark.needs("postgresql")),
        pytest.param("mysql", "mariadb", marks=pytest.mark.needs("mariadb")),
    ],
)
def test_every_store_lets_its_holder_commit(backend: str, using: str) -> None:
    """Whether or not it has a part in the transaction; inside of it, too."""
    with distributed_lock("a", backend=backend), transaction.atomic(using=using):
        Counter.objects.using(using).create()
    with transaction.atomic(using=using), distributed_lock("a", backend=backend):
        Counter.objects.using(using).create()
    assert Counter.objects.using(using).count() == 2
    assert acquire(backend).release()


@on_each_server
def test_holder_stopped_between_the_guard_and_the_commit_keeps_successors_out(alias: str) -> None:
    """Though its lease expires: a successor is refused at once until the commit is done."""
    with stopped_holder(alias, "commit") as workers:
        while not elsewhere(lambda: Lock.objects.using(alias).stale().exists()):
            pass
        before = clocks.monotonic()
        assert acquire_lock("stopped", backend=alias) is None
        assert clocks.monotonic() - before < 5
        workers.processes[0].send_signal(signal.SIGCONT)
        assert workers.results() == ["committed"]
    assert Counter.objects.using(alias).exists()
    assert acquire(alias, "stopped").release()


@on_each_server
def test_holder_stopped_before_the_guard_is_rolled_back(alias: str) -> None:
    """When it goes on, a successor has the lock."""
    with stopped_holder(alias, "guard") as workers:
        successor = acquire(alias, "stopped", timeout=30)
        workers.processes[0].send_signal(signal.SIGCONT)
        assert workers.results() == ["lost"]
    assert not Counter.objects.using(alias).exists()
    assert successor.release()


@contextmanager
def stopped_holder(alias: str, where: str) -> Iterator[Workers]:
    """Let a process write under a lock, and stop it before it commits, or before the guard."""
    with Workers(1, "stop", alias, where) as workers:
        _, status = os.waitpid(workers.processes[0].pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        yield workers


@on_each_server
def test_guard_leaves_other_instruments_of_a_connection_alone(alias: str) -> None:
    """And is there once, however often the connection is opened."""
    connection = connections[alias]
    connection.close()
    commit = type(connection).commit
    instrument = mock.Mock(side_effect=lambda: commit(connection))
    with mock.patch.dict(vars(connection)):
        vars(connection)["commit"] = instrument
        for _ in range(2):
            connection.ensure_connection()
            with distributed_lock("a", backend=alias), transaction.atomic(using=alias):
                Counter.objects.using(alias).create()
            with pytest.raises(LockLost), distributed_lock("a", backend=alias) as lease:
                with transaction.atomic(using=alias):
                    take_away(lease)
            connection.close()
        assert instrument.call_count == 2
    assert Counter.objects.using(alias).count() == 2


def test_guard_that_fails_rolls_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever stops it: nothing is committed by accident."""
    refuse = mock.Mock(side_effect=KeyboardInterrupt)
    monkeypatch.setattr(type(lock_backends["default"]), "guard", refuse)
    with suppress(KeyboardInterrupt), distributed_lock("a"), transaction.atomic():
        Counter.objects.create()
    assert refuse.called
    assert not Counter.objects.exists()


@on_each_server
def test_connection_lost_before_the_guard_commits_nothing(alias: str) -> None:
    """The error is the database's own, as of a commit that fails."""
    with pytest.raises(DatabaseError), distributed_lock("a", backend=alias):
        with transaction.atomic(using=alias):
            Counter.objects.using(alias).create()
            kill_session(alias)
    assert not Counter.objects.using(alias).exists()
    assert free_for_others(alias)
