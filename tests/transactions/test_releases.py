"""A release inside a transaction waits for its end, however it ends."""

import threading
from contextlib import ExitStack, suppress
from unittest import mock

import pytest
from django.db import DatabaseError, connections, transaction

from django_distlock import (
    LockBackendUnavailable,
    LockNotHeld,
    distributed_lock,
    lock_backends,
    release_lock,
)
from django_distlock.concurrency.background import Background, background
from django_distlock.leases.outcomes import end_released
from tests.app.models import Counter
from tests.support.concurrency import until
from tests.support.databases import committed, on_each_database, on_each_server
from tests.support.holders import acquire, due_now, free_for_others, renewed_since
from tests.support.processes import forked

pytestmark = committed


# At the commit


@on_each_server
def test_release_waits_for_the_commit(alias: str) -> None:
    """The next holder sees what was written under it."""
    with transaction.atomic(using=alias):
        with distributed_lock("1234collectPayment", backend=alias):
            Counter.objects.using(alias).create(value=1)
        assert not free_for_others(alias)
    assert free_for_others(alias)


@on_each_server
def test_release_by_name_waits_too(alias: str) -> None:
    """It returns True, and the name is no longer held here."""
    with transaction.atomic(using=alias):
        acquire(alias)
        assert release_lock("1234collectPayment", backend=alias) is True
        with pytest.raises(LockNotHeld):
            release_lock("1234collectPayment", backend=alias)
        assert not free_for_others(alias)
    assert free_for_others(alias)


@on_each_database
def test_commit_releases_in_this_thread(alias: str) -> None:
    """The release is done when the atomic block has been left."""
    with transaction.atomic(using=alias):
        acquire(alias).release()
    assert not list(lock_backends[alias].held())


@on_each_server
def test_durable_block_inside_the_lock_commits_before_the_release(alias: str) -> None:
    """The lock is outside, so the release waits for nothing."""
    with distributed_lock("1234collectPayment", backend=alias):
        with transaction.atomic(using=alias, durable=True):
            Counter.objects.using(alias).create()
        assert not free_for_others(alias)
    assert free_for_others(alias)


@on_each_server
def test_lease_whose_release_waits_is_renewed(alias: str) -> None:
    """So a transaction may outlast the ttl and still be committed."""
    with transaction.atomic(using=alias):
        with distributed_lock("1234collectPayment", backend=alias) as lease:
            Counter.objects.using(alias).create()
        is_renewed = renewed_since([lease])
        due_now([lease])
        until(is_renewed)
        assert not free_for_others(alias)
    assert Counter.objects.using(alias).exists()
    assert free_for_others(alias)


@on_each_server
def test_forked_child_does_not_run_the_parents_release(alias: str) -> None:
    """It has a copy of the transaction's callbacks, but drops it."""

    def drop_callbacks() -> None:
        connections[alias].run_on_commit = []
        worked_off = threading.Event()
        background(alias).pin(worked_off)
        background(alias).submit(worked_off.set)
        assert worked_off.wait(60)

    with transaction.atomic(using=alias):
        acquire(alias).release()
        with forked(drop_callbacks):
            pass
        assert not free_for_others(alias)
    assert free_for_others(alias)


# At the rollback


@on_each_database
def test_rollback_releases_in_this_thread(alias: str) -> None:
    """Django calls nothing then; a failing script may end before another thread runs."""
    with mock.patch.object(Background, "submit") as left_to_the_background:
        with suppress(SystemExit), transaction.atomic(using=alias):
            lease = acquire(alias)
            lease.release()
            raise SystemExit
    assert free_for_others(alias)
    [[announcement]] = [call.args for call in left_to_the_background.call_args_list]
    assert (announcement.func, announcement.args) == (end_released, (lease,))


@on_each_database
def test_rollback_releases_an_earlier_lease(alias: str) -> None:
    """On SQLite, too, where the rollback undoes a release in the transaction."""
    lease = acquire(alias)
    with suppress(ZeroDivisionError), transaction.atomic(using=alias):
        lease.release()
        raise ZeroDivisionError
    assert free_for_others(alias, timeout=30)


@on_each_database
def test_lock_can_be_acquired_again_at_once_after_a_rollback(alias: str) -> None:
    """As in a loop that retries a transaction, whichever thread is faster."""
    for _ in range(20):
        with suppress(ZeroDivisionError), transaction.atomic(using=alias):
            with distributed_lock("1234collectPayment", backend=alias):
                raise ZeroDivisionError
    assert acquire(alias).release()


@on_each_server
def test_release_outlasts_an_inner_rollback(alias: str) -> None:
    """Earlier work under the same lock may still be committed."""
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


# Errors


@on_each_database
def test_errors_of_other_callbacks_do_not_keep_the_lock(alias: str) -> None:
    """Nor does a reference to the traceback of one."""
    with pytest.raises(ZeroDivisionError) as kept, transaction.atomic(using=alias):
        transaction.on_commit(lambda: 1 // 0, using=alias)
        acquire(alias).release()
    assert kept.value.__traceback__
    assert free_for_others(alias)


@on_each_database
@pytest.mark.parametrize(
    "error", [LockBackendUnavailable("down"), RuntimeError("broken")], ids=["down", "broken"]
)
def test_error_of_the_store_after_the_commit_harms_no_other_callback(
    alias: str, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever the error. The lease ends by itself; the log has the reason."""
    called = []
    with ExitStack() as until_committed, transaction.atomic(using=alias):
        with transaction.atomic(using=alias):  # on SQLite, too, it is released after the commit
            acquire(alias).release()
        transaction.on_commit(lambda: called.append(True), using=alias)
        store = type(lock_backends[alias])
        release = until_committed.enter_context(
            mock.patch.object(store, "release", side_effect=error)
        )
    assert called == [True]
    assert release.called
    assert "could not be released after a transaction; it ends by itself" in caplog.text
    # On SQLite the release in the transaction was committed; this one only confirms it.
    assert free_for_others(alias) is (alias == "default")


@on_each_database
def test_database_error_in_a_block_does_not_become_an_error_of_the_lock(
    alias: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The transaction is broken, so the release waits for its rollback, on SQLite too."""
    with suppress(DatabaseError), transaction.atomic(using=alias):
        with distributed_lock("1234collectPayment", backend=alias):
            Counter.objects.using(alias).create(pk=1)
            Counter.objects.using(alias).create(pk=1)
    assert not [record for record in caplog.records if record.name.startswith("django_distlock")]
    assert free_for_others(alias)
