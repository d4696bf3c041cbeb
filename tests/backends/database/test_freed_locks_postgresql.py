"""Locks on PostgreSQL that operators free, and their waiters."""

import pytest
from django.db import transaction

from django_distlock.models import Lock
from tests.support.databases import committed, statements_sent
from tests.support.holders import acquire, take_away
from tests.support.postgresql_waiters import (
    ALIAS,
    FUTURE,
    PAST,
    Line,
    another_waits,
    granted,
    store,
    waiters,
)

SEMAPHORE = "1234collectPayment"

pytestmark = [
    committed,
    pytest.mark.needs("postgresql"),
    pytest.mark.usefixtures("fresh_listeners"),
]


@pytest.mark.parametrize("how", ["by force", "as stale"])
def test_lock_that_is_freed_by_an_operator_is_handed_over(only_woken: None, how: str) -> None:
    """It goes to the first waiter."""
    lease = acquire(ALIAS)
    with Line() as line:
        waiting = line.join()
        if how == "by force":
            take_away(lease)
        else:
            Lock.objects.using(ALIAS).update(expires_at=PAST)
            assert len([*store().clear_stale()]) <= 1
        assert granted(waiting).release()
    lease.release()


@pytest.mark.usefixtures("long_offers")
def test_lock_that_is_freed_by_force_is_handed_over_in_the_same_statement(only_woken: None) -> None:
    """Whatever becomes of the operator's own transaction; the new token is higher."""
    lease = acquire(ALIAS)
    with Line() as line:
        waiting = line.join()
        with transaction.atomic(using=ALIAS):
            token = lease.token or 0
            sent = statements_sent(ALIAS, lambda: store().force_release(SEMAPHORE, token))
            assert len(sent) == 1
            assert not store().force_release(SEMAPHORE, token)
            transaction.set_rollback(True, using=ALIAS)
        successor = granted(waiting)
        assert (successor.token or 0) > token
        assert successor.release()
    assert not lease.release()


def test_lock_that_is_freed_by_force_in_a_pause_is_handed_over_after_it(only_woken: None) -> None:
    """Until then it is free."""
    lease = acquire(ALIAS)
    with Line() as line:
        waiting = line.join()
        store().pause(SEMAPHORE)
        assert store().force_release(SEMAPHORE, lease.token or 0)
        assert [*store().held()] == []
        assert store().resume(SEMAPHORE)
        assert granted(waiting).release()
    lease.release()


def test_stale_locks_can_be_cleared_in_a_transaction() -> None:
    """It has locked their rows, and nothing waits for these until it ends."""
    acquire(ALIAS, renew=False)
    Lock.objects.using(ALIAS).update(expires_at=PAST)
    with transaction.atomic(using=ALIAS):
        assert len([*store().clear_stale()]) == 1
    assert acquire(ALIAS).release()


def test_dry_run_offers_nothing() -> None:
    """Even if somebody waits for the stale lock."""
    acquire(ALIAS, renew=False)
    Lock.objects.using(ALIAS).update(expires_at=PAST)
    another_waits(FUTURE)
    [before] = Lock.objects.using(ALIAS).values()
    assert len([*store().clear_stale(dry_run=True)]) == 1
    assert [before] == [*Lock.objects.using(ALIAS).values()]
    assert waiters() == 1
