"""What a thread holds already: contended for it, too, unless it asks for it once more."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from django.core.signals import request_finished, request_started
from django.db import transaction
from django.http import HttpResponse
from django.test import RequestFactory

from django_distlock import (
    Lease,
    LockBackendUnavailable,
    LockError,
    LockLost,
    LockNotAcquired,
    LockNotHeld,
    acquire_lock,
    distributed_lock,
    lock_backends,
    release_lock,
)
from django_distlock.models import Lock
from tests.support.concurrency import elsewhere, run
from tests.support.databases import committed, on_each_database, on_each_server
from tests.support.holders import acquire, expired, free_for_others, take_away

if TYPE_CHECKING:
    from django.http import HttpRequest

    from tests.support.scripted_store import ScriptedBackend

pytestmark = committed


def reenter(alias: str) -> Lease:
    """Acquire once more."""
    return acquire(alias, reentrant=True)


def held_here(alias: str) -> list[str]:
    """Return the semaphores that the store says are held."""
    return [lock.semaphore for lock in lock_backends[alias].held()]


# Not reentrant


@on_each_database
def test_own_lock_is_contended_without_a_wait(alias: str) -> None:
    """As anybody else's; and held as before."""
    with distributed_lock("1234collectPayment", backend=alias) as lease:
        assert acquire_lock("1234collectPayment", backend=alias) is None
        with pytest.raises(LockNotAcquired), distributed_lock("1234collectPayment", backend=alias):
            pytest.fail("it is held")
        assert lease.held
    assert free_for_others(alias)


HELD_HERE = "This thread or task holds '1234collectPayment' itself; reentrant=True gives it"
HELD_ELSEWHERE = "^Somebody else holds '1234collectPayment'.$"


@pytest.mark.parametrize("alias", ["default", "memory"])
def test_nested_block_is_told_that_this_thread_holds_the_lock_itself(alias: str) -> None:
    """Nobody else does: who reads that would look for another process."""
    nested = distributed_lock("1234collectPayment", backend=alias)
    with distributed_lock("1234collectPayment", backend=alias):
        with pytest.raises(LockNotAcquired, match=HELD_HERE), nested:
            pytest.fail("it is held")

        def enter() -> None:
            with pytest.raises(LockNotAcquired, match=HELD_ELSEWHERE), nested:
                pytest.fail("it is held")

        elsewhere(enter)


def test_recursive_call_is_told_that_this_thread_holds_the_lock_itself() -> None:
    """As a nested block is; and in async code as in sync code."""

    @distributed_lock("1234collectPayment", backend="memory")
    def recurse() -> None:
        recurse()

    @distributed_lock("1234collectPayment", backend="memory")
    async def arecurse() -> None:
        await arecurse()

    with pytest.raises(LockNotAcquired, match=HELD_HERE):
        recurse()
    with pytest.raises(LockNotAcquired, match=HELD_HERE):
        run(arecurse())


@pytest.mark.parametrize("alias", ["default", "memory"])
def test_nested_async_block_is_told_that_this_task_holds_the_lock_itself(alias: str) -> None:
    """Its child, which is another task, is told otherwise."""
    nested = distributed_lock("1234collectPayment", backend=alias)

    async def enter(told: str) -> None:
        with pytest.raises(LockNotAcquired, match=told):
            async with nested:
                pytest.fail("it is held")

    async def hold() -> None:
        async with distributed_lock("1234collectPayment", backend=alias):
            await enter(HELD_HERE)
            await asyncio.create_task(enter(HELD_ELSEWHERE))

    run(hold())


def test_block_that_lost_its_lock_is_told_that_somebody_else_holds_it() -> None:
    """What this thread knows to have lost is another's by now."""
    nested = distributed_lock("1234collectPayment", backend="default")
    with suppress(LockLost), distributed_lock("1234collectPayment") as lease:
        take_away(lease)
        with suppress(LockLost):
            lease.renew()
        other = elsewhere(lambda: acquire("default"))
        with pytest.raises(LockNotAcquired, match=HELD_ELSEWHERE), nested:
            pytest.fail("it is held")
        assert other.release()


@on_each_database
@pytest.mark.parametrize("timeout", [None, 3600, 0.001])
def test_wait_for_oneself_is_an_error_at_once(alias: str, timeout: float | None) -> None:
    """Nobody else could end it; the message says what to do."""
    lease = acquire(alias)
    with pytest.raises(LockError, match="wait for itself; reentrant=True"):
        acquire_lock("1234collectPayment", backend=alias, timeout=timeout)
    with pytest.raises(LockError, match="reentrant=True"):
        with distributed_lock("1234collectPayment", backend=alias, timeout=timeout):
            pytest.fail("it is held")
    assert lease.release()


def test_wait_for_ones_own_lock_in_another_store_is_an_ordinary_one(
    scripted: ScriptedBackend,
) -> None:
    """It is another lock."""
    acquire("default")
    lease = acquire("locks", timeout=1)
    assert lease.release()


@on_each_database
def test_wait_is_worth_it_when_the_own_lease_has_expired(alias: str) -> None:
    """By the local clock, which is a little earlier than the store's."""
    lease = expired(alias)
    successor = acquire(alias, timeout=60)
    assert successor.token
    assert lease.token
    assert successor.token > lease.token
    assert lease.lost
    assert successor.release()


# Reentrant


@on_each_database
def test_reentry_gives_the_same_lease(alias: str) -> None:
    """As it is; and only as many releases release it."""
    lease = acquire(alias, reentrant=True, ttl=30)
    for _ in range(2):
        assert acquire(alias, reentrant=True, ttl=5, timeout=1) is lease
    assert lease.ttl == 30
    for _ in range(2):
        assert lease.release() is True
        assert lease.held
        assert not free_for_others(alias)
    assert lease.release() is True
    assert not lease.held
    assert free_for_others(alias)
    assert lease.release() is False


@on_each_database
def test_only_the_outermost_of_nested_blocks_releases(alias: str) -> None:
    """Of one object or of several, with the outermost reentrant or not."""
    lock = distributed_lock("1234collectPayment", backend=alias, reentrant=True)
    for outer in (lock, distributed_lock("1234collectPayment", backend=alias)):
        with outer as first:
            with lock as second:
                with lock as third:
                    assert first is second is third
                assert not free_for_others(alias)
            assert first.held
            assert not free_for_others(alias)
        assert free_for_others(alias)


@on_each_database
def test_error_in_an_inner_block_releases_nothing(alias: str) -> None:
    """The outer one goes on."""
    lock = distributed_lock("1234collectPayment", backend=alias, reentrant=True)
    with lock as lease:
        with suppress(ZeroDivisionError), lock:
            raise ZeroDivisionError
        lease.check()
        assert not free_for_others(alias)
    assert free_for_others(alias)


@on_each_database
def test_release_by_name_counts_too(alias: str) -> None:
    """The name is there until the last."""
    acquire(alias)
    reenter(alias)
    assert release_lock("1234collectPayment", backend=alias) is True
    assert not free_for_others(alias)
    assert release_lock("1234collectPayment", backend=alias) is True
    assert free_for_others(alias)
    with pytest.raises(LockNotHeld):
        release_lock("1234collectPayment", backend=alias)


@on_each_database
def test_recursive_function_is_locked_as_a_whole(alias: str) -> None:
    """Each call of the decorated function enters once more."""
    free: list[bool] = []

    @distributed_lock("<name>", backend=alias, reentrant=True)
    def count_down(name: str, number: int) -> int:
        deepest = count_down(name, number - 1) if number else 0
        free.append(free_for_others(alias))
        return deepest + 1

    assert count_down("1234collectPayment", 3) == 4
    assert free == [False] * 4
    assert free_for_others(alias)


def test_recursive_function_that_is_not_reentrant_is_refused(scripted: ScriptedBackend) -> None:
    """And everything is released."""

    @distributed_lock("<name>")
    def recurse(name: str) -> None:
        recurse(name)

    with pytest.raises(LockNotAcquired):
        recurse("1234collectPayment")
    assert scripted.owner == ""


@on_each_database
def test_locked_view_may_call_a_reentrant_helper(alias: str) -> None:
    """The answer is the view's, and the lock too."""

    @distributed_lock("<name>", backend=alias, reentrant=True)
    def help_out(request: HttpRequest, name: str) -> bool:
        return free_for_others(alias)

    @distributed_lock("<name>", backend=alias, http=True)
    def view(request: HttpRequest, name: str) -> HttpResponse:
        return HttpResponse(f"{help_out(request, name)} {free_for_others(alias)}")

    assert view(RequestFactory().get("/"), name="1234collectPayment").content == b"False False"
    assert free_for_others(alias)


@on_each_database
def test_inner_block_raises_when_the_lease_was_lost(alias: str) -> None:
    """And the outer one, too."""
    lock = distributed_lock("1234collectPayment", backend=alias, reentrant=True, renew=False)
    inner = threading.Event()
    with pytest.raises(LockLost, match="before its block ended") as outer, lock as lease:
        with pytest.raises(LockLost) as lost, lock:
            take_away(lease)
            lease.mark_lost()
            inner.set()
        assert lost.value.lease is lease
    assert outer.value.lease is lease
    assert inner.is_set()


@on_each_database
def test_lost_lease_is_not_reentered(alias: str) -> None:
    """It is acquired anew, with a greater token; each block has its own."""
    lock = distributed_lock("1234collectPayment", backend=alias, reentrant=True, renew=False)
    with pytest.raises(LockLost), lock as lease:
        take_away(lease)
        lease.mark_lost()
        with lock as successor:
            assert successor is not lease
            assert successor.token
            assert lease.token
            assert successor.token > lease.token
            assert not free_for_others(alias)
        assert free_for_others(alias)


@on_each_database
def test_lost_lease_is_contended_when_others_have_the_lock(alias: str) -> None:
    """Though the name is still known."""
    lease = acquire(alias, renew=False)
    take_away(lease)
    lease.mark_lost()
    other = elsewhere(lambda: acquire(alias))
    assert acquire_lock("1234collectPayment", backend=alias, reentrant=True) is None
    assert acquire_lock("1234collectPayment", backend=alias, reentrant=True, timeout=0.01) is None
    assert release_lock("1234collectPayment", backend=alias) is False
    assert other.release()


@on_each_database
def test_expired_lease_is_not_reentered(alias: str) -> None:
    """Whether or not anybody has noticed."""
    lease = expired(alias)
    successor = acquire(alias, reentrant=True, timeout=60)
    assert successor is not lease
    assert lease.lost
    assert successor.release()


@on_each_database
def test_other_threads_do_not_inherit_it(alias: str) -> None:
    """There it is contended, and a wait is an ordinary one."""
    with distributed_lock("1234collectPayment", backend=alias, reentrant=True) as lease:
        for timeout in (0, 0.01):
            assert (
                elsewhere(
                    lambda timeout=timeout: acquire_lock(  # type: ignore[misc]
                        "1234collectPayment", backend=alias, reentrant=True, timeout=timeout
                    )
                )
                is None
            )
        assert lease.held
    assert free_for_others(alias)


def test_store_that_is_down_is_not_asked_about_a_reentry(scripted: ScriptedBackend) -> None:
    """The lease is known to be held until its ttl has passed."""
    lease = acquire("default")
    scripted.answer("acquire", LockBackendUnavailable("down"))
    assert reenter("default") is lease
    assert scripted.calls == ["acquire"]


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
    """Its end releases nothing."""
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
def test_grant_that_does_not_continue_a_lost_one_is_nobodys(alias: str) -> None:
    """It is neither kept from others nor given to this thread by its name."""
    lock = distributed_lock("1234collectPayment", backend=alias, reentrant=True)
    with suppress(LockLost), transaction.atomic(using=alias):
        with lock as lease:
            pass
        take_away(lease)
        with lock:
            pytest.fail("somebody else may have had it in between")
    assert held_here(alias) == []
    other = elsewhere(lambda: acquire(alias))
    assert acquire_lock("1234collectPayment", backend=alias, reentrant=True) is None
    with pytest.raises(LockNotHeld):
        release_lock("1234collectPayment", backend=alias)
    assert other.release()


@pytest.mark.parametrize("alias", ["default", "locks"])
def test_lease_that_was_rolled_back_is_not_reentered(alias: str) -> None:
    """SQLite has grants in the transaction in which they were acquired."""
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
def test_lease_of_an_earlier_testcase_fools_nobody(alias: str, arguments: dict[str, Any]) -> None:
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
    """However often it is given back in there."""
    with distributed_lock("1234collectPayment", backend=alias) as lease:
        with distributed_lock("1234collectPayment", backend=alias, reentrant=True):
            assert lease.release() is True
        assert lease.held
        assert not free_for_others(alias)
    assert free_for_others(alias)


def test_request_that_reenters_and_forgets_leaves_the_earlier_lease_as_it_was(
    scripted: ScriptedBackend,
) -> None:
    """One release is enough for it afterwards."""
    lease = acquire("default")
    request_started.send(sender=None)
    assert acquire_lock("1234collectPayment", reentrant=True) is lease
    request_finished.send(sender=None)
    assert lease.release() is True
    assert lease.released


@on_each_server
def test_max_hold_is_counted_from_the_first_block_of_a_transaction(alias: str) -> None:
    """The same grant is not prolonged by being taken back."""
    with transaction.atomic(using=alias):
        with distributed_lock("1234collectPayment", backend=alias, ttl=5, max_hold=10) as first:
            pass
        with distributed_lock("1234collectPayment", backend=alias, ttl=60, max_hold=60) as again:
            assert again.token == first.token
            assert again.remaining <= 10
