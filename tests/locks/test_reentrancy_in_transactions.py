"""Reentrant locks in transactions."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from django.core.signals import request_finished, request_started
from django.db import transaction

from django_distlock import (
    LockError,
    LockLost,
    LockNotHeld,
    acquire_lock,
    distributed_lock,
    release_lock,
)
from django_distlock.models import Lock
from tests.support.concurrency import elsewhere
from tests.support.databases import committed, on_each_database, on_each_server
from tests.support.holders import acquire, free_for_others, held_in, reenter, take_away

if TYPE_CHECKING:
    from tests.support.scripted_store import ScriptedBackend

pytestmark = committed


# In transactions


@on_each_database
def test_release_of_nested_blocks_waits_for_the_transaction(alias: str) -> None:
    """Only that of the outermost one does."""
    lock = distributed_lock("1234collectPayment", backend=alias, reentrant=True)
    with transaction.atomic(using=alias):
        for _ in range(2):
            with lock as outer:
                with lock as inner:
                    assert outer is inner
                assert outer.held
                assert acquire_lock("1234collectPayment", backend=alias) is None
                assert outer.held
                with pytest.raises(LockError, match="wait for itself"):
                    acquire_lock("1234collectPayment", backend=alias, timeout=1)
    assert free_for_others(alias)


@on_each_database
def test_inner_block_may_have_a_transaction_of_its_own(alias: str) -> None:
    """Its commit releases nothing."""
    lock = distributed_lock("1234collectPayment", backend=alias, reentrant=True)
    with lock as outer:
        for error in (KeyError, None):
            with suppress(KeyError), transaction.atomic(using=alias), lock as inner:
                assert outer is inner
                if error:
                    raise error
        assert not free_for_others(alias)
    assert free_for_others(alias)


@on_each_server
def test_grant_that_does_not_continue_a_lost_one_is_released(alias: str) -> None:
    """Others can acquire the lock, and this thread can't release it by name."""
    lock = distributed_lock("1234collectPayment", backend=alias, reentrant=True)
    with suppress(LockLost), transaction.atomic(using=alias):
        with lock as lease:
            pass
        take_away(lease)
        with lock:
            pytest.fail("somebody else may have had it in between")
    assert held_in(alias) == []
    other = elsewhere(lambda: acquire(alias))
    assert acquire_lock("1234collectPayment", backend=alias, reentrant=True) is None
    with pytest.raises(LockNotHeld):
        release_lock("1234collectPayment", backend=alias)
    assert other.release()


@pytest.mark.parametrize("alias", ["default", "locks"])
def test_lease_that_was_rolled_back_is_not_reentered(alias: str) -> None:
    """On SQLite a grant is part of the transaction in which it was acquired."""
    with suppress(ZeroDivisionError), transaction.atomic(using=alias):
        lease = acquire(alias)
        raise ZeroDivisionError
    other = elsewhere(lambda: acquire(alias))
    for arguments in ({"reentrant": True}, {"timeout": 0.01}):
        assert acquire_lock("1234collectPayment", backend=alias, **arguments) is None
    assert lease.lost
    assert other.release()


@pytest.mark.django_db(databases="__all__")
@on_each_database
@pytest.mark.parametrize("arguments", [{"timeout": 0.01}, {"reentrant": True}], ids=str)
def test_lease_of_an_earlier_testcase_is_not_reentered(
    alias: str, arguments: dict[str, Any]
) -> None:
    """Its row went with that test's transaction, but the thread still has the lease by its name."""
    rows = Lock.objects.using(alias)
    earlier = acquire(alias)
    rows.all().delete()
    rows.create(semaphore="1234collectPayment", owner="other", expires_at=None)
    assert acquire_lock("1234collectPayment", backend=alias, **arguments) is None
    rows.all().delete()
    lease = reenter(alias)
    assert lease is not earlier
    assert reenter(alias) is lease
    with pytest.raises(LockError, match="wait for itself"):
        acquire_lock("1234collectPayment", backend=alias, timeout=1)


@on_each_database
def test_early_release_in_an_inner_block_leaves_the_outer_ones_lock(alias: str) -> None:
    """However often it is released in there."""
    with distributed_lock("1234collectPayment", backend=alias) as lease:
        with distributed_lock("1234collectPayment", backend=alias, reentrant=True):
            assert lease.release() is True
        assert lease.held
        assert not free_for_others(alias)
    assert free_for_others(alias)


def test_request_that_reenters_and_forgets_leaves_the_earlier_lease_as_it_was(
    scripted: ScriptedBackend,
) -> None:
    """Afterwards one release is enough for the earlier lease."""
    lease = acquire("default")
    request_started.send(sender=None)
    assert acquire_lock("1234collectPayment", reentrant=True) is lease
    request_finished.send(sender=None)
    assert lease.release() is True
    assert lease.released


@on_each_server
def test_max_hold_is_counted_from_the_first_block_of_a_transaction(alias: str) -> None:
    """Acquiring the same grant again doesn't prolong it."""
    with transaction.atomic(using=alias):
        with distributed_lock("1234collectPayment", backend=alias, ttl=5, max_hold=10) as first:
            pass
        with distributed_lock("1234collectPayment", backend=alias, ttl=60, max_hold=60) as again:
            assert again.token == first.token
            assert again.remaining <= 10
