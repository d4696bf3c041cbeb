"""A lock that the same thread or task already holds, without reentrant=True."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from django_distlock import (
    LockError,
    LockLost,
    LockNotAcquired,
    acquire_lock,
    distributed_lock,
)
from tests.support.concurrency import elsewhere, run
from tests.support.databases import committed, on_each_database
from tests.support.holders import acquire, expired, free_for_others, take_away

if TYPE_CHECKING:
    from tests.support.scripted_store import ScriptedBackend

pytestmark = committed


# Not reentrant


@on_each_database
def test_own_lock_is_contended_without_a_wait(alias: str) -> None:
    """Like anybody else's lock; it stays held."""
    with distributed_lock("1234collectPayment", backend=alias) as lease:
        assert acquire_lock("1234collectPayment", backend=alias) is None
        with pytest.raises(LockNotAcquired), distributed_lock("1234collectPayment", backend=alias):
            pytest.fail("it is held")
        assert lease.held
    assert free_for_others(alias)


HELD_HERE = "This thread or task holds '1234collectPayment' itself; reentrant=True gives it"
HELD_ELSEWHERE = (
    "^(Somebody else|Another thread or task of this process) holds '1234collectPayment'"
)


@pytest.mark.parametrize("alias", ["default", "memory"])
def test_error_of_a_nested_block_names_this_thread_as_holder(alias: str) -> None:
    """Otherwise a reader would look for another process."""
    nested = distributed_lock("1234collectPayment", backend=alias)
    with distributed_lock("1234collectPayment", backend=alias):
        with pytest.raises(LockNotAcquired, match=HELD_HERE), nested:
            pytest.fail("it is held")

        def enter() -> None:
            with pytest.raises(LockNotAcquired, match=HELD_ELSEWHERE), nested:
                pytest.fail("it is held")

        elsewhere(enter)


def test_error_of_a_recursive_call_names_this_thread_as_holder() -> None:
    """Like that of a nested block; in async code as in sync code."""

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
def test_error_of_a_nested_async_block_names_this_task_as_holder(alias: str) -> None:
    """The error in a child task names another holder."""
    nested = distributed_lock("1234collectPayment", backend=alias)

    async def enter(signals_sent: str) -> None:
        with pytest.raises(LockNotAcquired, match=signals_sent):
            async with nested:
                pytest.fail("it is held")

    async def hold() -> None:
        async with distributed_lock("1234collectPayment", backend=alias):
            await enter(HELD_HERE)
            await asyncio.create_task(enter(HELD_ELSEWHERE))

    run(hold())


def test_error_in_a_block_that_lost_its_lock_names_another_holder() -> None:
    """A lock that this thread knows it has lost is another holder's by now."""
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
    """The wait could never end; the message says what to do."""
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
