"""Locks on PostgreSQL that operators free, and their waiters."""

import pytest
from django.db import transaction

from django_distlock.models import Lock
from tests.support.databases import committed
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


def test_lock_that_is_freed_in_a_transaction_is_handed_over_after_it(only_woken: None) -> None:
    """The transaction has locked its row until then."""
    lease = acquire(ALIAS)
    with Line() as line:
        waiting = line.join()
        with transaction.atomic(using=ALIAS):
            assert store().force_release("1234collectPayment", lease.token or 0)
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
