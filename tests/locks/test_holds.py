"""How long a lock is held: at least `min_hold`, at most `max_hold`."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from io import StringIO
from typing import TYPE_CHECKING

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import transaction

from django_distlock import (
    LockLost,
    acquire_lock,
    clocks,
    distributed_lock,
    lock_backends,
)
from django_distlock.concurrency.background import background
from django_distlock.models import Lock
from django_distlock.records import LOST, LockState
from tests.support.concurrency import elsewhere, until
from tests.support.databases import committed, on_each_database, on_each_server
from tests.support.holders import acquire, free_for_others, kept, states

if TYPE_CHECKING:
    from django.test import Client

    from tests.support.moved_clock import MovedClock

pytestmark = committed

# At least


@on_each_database
def test_lock_is_kept_until_min_hold_has_passed_since_the_grant(alias: str) -> None:
    """Then a waiter gets it, with a greater token."""
    begun = clocks.monotonic()
    lease = acquire(alias, min_hold=0.3)
    assert lease.release() is True
    assert not lease.held
    assert lease.released
    successor = elsewhere(lambda: acquire(alias, timeout=60))
    assert clocks.monotonic() - begun >= 0.3
    assert successor.token
    assert lease.token
    assert successor.token > lease.token
    assert successor.release()


@on_each_database
def test_kept_lock_is_contended_for_all(alias: str) -> None:
    """For its last holder, too, which can wait for it like others, but can't reenter it."""
    with distributed_lock("1234collectPayment", backend=alias, min_hold=60) as lease:
        assert not free_for_others(alias)
    assert not free_for_others(alias)
    for arguments in ({}, {"timeout": 0.01}, {"reentrant": True}):
        assert acquire_lock("1234collectPayment", backend=alias, **arguments) is None
    assert lease.release() is False
    assert kept(alias)


@on_each_database
def test_min_hold_that_has_passed_is_an_ordinary_release(
    alias: str, moved_clock: MovedClock
) -> None:
    """As without min_hold."""
    lease = acquire(alias, min_hold=60)
    moved_clock.advance(60)
    lease.release()
    assert states(alias) == []
    assert Lock.objects.using(alias).get(semaphore="1234collectPayment").owner == ""
    assert free_for_others(alias)


@on_each_database
def test_min_hold_of_zero_has_no_effect(alias: str) -> None:
    """0 is accepted."""
    acquire(alias, min_hold=0).release()
    assert free_for_others(alias)


@on_each_database
@pytest.mark.parametrize("how", ["block", "call"])
def test_body_that_raises_keeps_nothing(alias: str, how: str) -> None:
    """So the job can be retried at once."""
    lock = distributed_lock("1234collectPayment", backend=alias, min_hold=60)

    @lock
    def fail() -> None:
        raise ZeroDivisionError

    with suppress(ZeroDivisionError):
        if how == "call":
            fail()
        with lock:
            raise ZeroDivisionError
    assert free_for_others(alias)


@on_each_database
def test_error_that_an_outer_reentrant_block_overcomes_keeps(alias: str) -> None:
    """Only the outcome of the outermost block counts."""
    lock = distributed_lock("1234collectPayment", backend=alias, reentrant=True, min_hold=60)
    with lock:
        with suppress(ZeroDivisionError), lock:
            raise ZeroDivisionError
    assert kept(alias)


@on_each_database
@pytest.mark.parametrize("acquired", ["before", "inside"])
@pytest.mark.parametrize("failing", [False, True])
def test_min_hold_counts_if_the_transaction_is_committed(
    alias: str, acquired: str, failing: bool
) -> None:
    """After a rollback the job can be retried at once."""
    lease = acquire(alias, min_hold=60) if acquired == "before" else None
    with suppress(ZeroDivisionError), transaction.atomic(using=alias):
        lease = lease or acquire(alias, min_hold=60)
        assert lease.release() is True
        if failing:
            raise ZeroDivisionError
    if failing:
        assert free_for_others(alias)
    else:
        assert kept(alias)
        assert not free_for_others(alias)


@on_each_database
def test_commit_keeps_what_an_inner_rollback_released(alias: str) -> None:
    """On SQLite that undid the first release."""
    with transaction.atomic(using=alias):
        lease = acquire(alias, min_hold=60)
        with suppress(ZeroDivisionError), transaction.atomic(using=alias):
            lease.release()
            raise ZeroDivisionError
    assert kept(alias)


@on_each_server
def test_failed_block_in_a_transaction_that_is_committed_keeps_nothing(alias: str) -> None:
    """The block's error counts, not the commit."""
    with transaction.atomic(using=alias):
        with suppress(ZeroDivisionError):
            with distributed_lock("1234collectPayment", backend=alias, min_hold=60):
                raise ZeroDivisionError
    assert free_for_others(alias)


@on_each_database
def test_kept_lock_is_held_for_people_and_released_afterwards(alias: str) -> None:
    """It is never stale: no holder has died."""
    acquire(alias, min_hold=60, label="who").release()
    locks = Lock.objects.using(alias)
    [listed] = lock_backends[alias].held()
    assert listed.state == LockState.HELD
    assert listed.holder.startswith("who (")
    assert [*locks.held()] == [*locks.unreleased()] == [*locks.all()]
    assert not locks.stale().exists()
    assert not locks.released().exists()
    acquire(alias, "kept for a moment", min_hold=0.05).release()
    moment = locks.filter(semaphore="kept for a moment")
    until(lambda: not moment.held().exists())
    assert states(alias) == [LockState.HELD]
    assert [*locks.released()] == [*moment]
    assert [lock.state for lock in moment.with_state()] == [LockState.RELEASED]
    assert not locks.stale().exists()


@on_each_database
def test_command_skips_kept_locks(alias: str) -> None:
    """Until they are released: then it may delete them."""

    def run() -> str:
        output = StringIO()
        arguments = [f"--backend={alias}", "--purge-released=0s"]
        call_command("clear_stale_locks", *arguments, stdout=output)
        return output.getvalue()

    acquire(alias, min_hold=60).release()
    assert "0 stale locks released" in run()
    assert kept(alias)
    acquire(alias, "kept for a moment", min_hold=0.05).release()
    until(lambda: Lock.objects.using(alias).held().count() == 1)
    assert "0 stale locks released" in run()
    assert [lock.semaphore for lock in Lock.objects.using(alias)] == ["1234collectPayment"]
    purged = lock_backends[alias].purge_released(timedelta(0))
    assert list(purged) == []


@pytest.mark.django_db(databases=["default"])
def test_admin_lists_a_kept_lock_as_held(client: Client) -> None:
    """And none as stale, even after its time."""
    acquire("default", min_hold=60, label="kept for a while").release()
    client.force_login(User.objects.create_superuser("admin"))
    held = client.get("/admin/distlock/lock/").content.decode()
    assert "kept for a while" in held
    stale = client.get("/admin/distlock/lock/?state=stale").content.decode()
    assert "kept for a while" not in stale


@on_each_database
def test_kept_lock_is_not_renewed(alias: str) -> None:
    """The lease has ended."""
    lease = acquire(alias, min_hold=60, ttl=60)
    lease.release()
    end = Lock.objects.using(alias).get(semaphore="1234collectPayment").expires_at
    lease.due = 0
    assert lease not in background(alias).renewals
    background(alias).renewals.renew_due()
    with pytest.raises(LockLost, match="was released"):
        lease.renew()
    assert lock_backends[alias].renew([lease]) == {lease.owner: LOST}
    assert Lock.objects.using(alias).get(semaphore="1234collectPayment").expires_at == end


@on_each_database
def test_kept_lock_can_be_force_released(alias: str) -> None:
    """With its last holder's token."""
    lease = acquire(alias, min_hold=60)
    lease.release()
    assert lock_backends[alias].force_release("1234collectPayment", lease.token or 0)
    assert states(alias) == []
    assert free_for_others(alias)


@on_each_database
def test_release_of_a_lost_lease_keeps_nothing(alias: str) -> None:
    """Its successor is untouched."""
    lease = acquire(alias, min_hold=60, renew=False)
    assert lock_backends[alias].force_release("1234collectPayment", lease.token or 0)
    successor = elsewhere(lambda: acquire(alias))
    assert lease.release() is False
    assert not kept(alias)
    assert elsewhere(successor.release)
    assert free_for_others(alias)
