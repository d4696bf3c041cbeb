"""`captured_locks`: what happened to locks during a test."""

from __future__ import annotations

import asyncio
import gc
from unittest import TestCase

import pytest

from django_distlock import (
    aacquire_lock,
    acquire_lock,
    arelease_lock,
    distributed_lock,
    lock_backends,
    release_lock,
)
from django_distlock.backends.operations import ListingStore
from django_distlock.concurrency.executors import executors
from django_distlock.test import CapturedLocks, acquired_leases, captured_locks
from tests.support.concurrency import elsewhere
from tests.support.leases import internals

NONE = CapturedLocks()
pytestmark = [pytest.mark.once, pytest.mark.usefixtures("in_memory")]


def test_events_are_in_order_in_whichever_thread() -> None:
    """Acquired here, contended in another thread, released; nothing after the block."""
    with captured_locks() as locks:
        acquire_lock("1234collectPayment")
        elsewhere(lambda: acquire_lock("1234collectPayment", timeout=0.01))
        release_lock("1234collectPayment")
    with distributed_lock("1234collectPayment"):
        pass
    assert [each.kind for each in locks] == ["acquired", "contended", "released"]
    acquired, contended, released = locks
    assert acquired.holder == contended.holder == released.holder != ""
    assert acquired.token == released.token is not None
    assert acquired.waited is not None
    assert contended.waited is not None
    assert contended.waited >= 0.01
    assert released.held_for is not None
    assert (acquired.held_for, released.waited) == (None, None)


def test_losses_and_forced_releases_say_why_and_by_whom() -> None:
    """The holder notices the loss when it releases."""
    store = lock_backends["default"]
    assert isinstance(store, ListingStore)
    with captured_locks() as locks:
        lease = acquire_lock("1234collectPayment")
        assert lease is not None
        assert lease.token is not None
        store.force_release("1234collectPayment", lease.token, by="anna")
        assert release_lock("1234collectPayment") is False
    assert locks.kinds == ["acquired", "force_released", "lost"]
    assert (locks[1].by, locks[1].token) == ("anna", lease.token)
    assert "operator" in locks[2].reason
    assert locks[2].held_for is not None


def test_events_are_found_by_semaphore_and_store() -> None:
    """`of` has those of one lock."""
    with captured_locks() as locks:
        with distributed_lock("1234collectPayment"), distributed_lock("5678collectPayment"):
            pass
        with distributed_lock("1234collectPayment", backend="other"):
            pass
    assert locks.of("5678collectPayment").kinds == ["acquired", "released"]
    assert locks.of("1234collectPayment").kinds == 2 * ["acquired", "released"]
    assert locks.of("1234collectPayment", backend="other") == locks[-2:]
    assert locks.of("1234") == []


def test_texts_help_to_read_a_failed_assertion_and_hide_the_owner() -> None:
    """The template, too; what doesn't apply is left out."""

    @distributed_lock("<customer_id>collectPayment", label="shop.collect")
    def collect(customer_id: int) -> None:
        """Collect the payment."""

    with captured_locks() as locks:
        lease = acquire_lock("1234collectPayment", backend="other")
        assert lease is not None
        release_lock(lease)
        collect(1234)
    text = repr(locks)
    assert text.startswith("[<acquired '1234collectPayment' backend='other' token=")
    assert "<released '1234collectPayment' template='<customer_id>collectPayment' token=" in text
    assert "held_for=0.0" in text
    assert "reason" not in text
    assert internals(lease).owner not in text


def test_a_lease_is_not_kept_alive() -> None:
    """One that nobody refers to is noticed."""

    def drop() -> None:
        distributed_lock("1234collectPayment").__enter__()
        gc.collect()

    with captured_locks() as locks, pytest.warns(ResourceWarning, match="never released"):
        drop()
    assert locks.kinds == ["acquired"]


def test_async_code_runs_without_threads() -> None:
    """As without it: the memory store is called in the event loop."""

    @captured_locks(kwarg_name="locks")
    async def decorated(*, locks: CapturedLocks = NONE) -> None:
        assert await aacquire_lock("1234collectPayment")
        assert await arelease_lock("1234collectPayment")
        assert locks.kinds == ["acquired", "released"]

    async def main() -> None:
        async with captured_locks() as locks:
            await decorated()
        assert locks.kinds == ["acquired", "released"]

    executors.clear()
    asyncio.run(main())
    assert not executors


def test_it_decorates_functions_and_test_cases() -> None:
    """As Django's own overrides do; each test has a list of its own."""

    @captured_locks(kwarg_name="locks")
    def decorated(*, locks: CapturedLocks = NONE) -> None:
        with distributed_lock("1234collectPayment"):
            assert locks.kinds == ["acquired"]

    @captured_locks(attr_name="locks")
    class Tests(TestCase):
        locks: CapturedLocks

        def test_first(self) -> None:
            decorated()
            assert self.locks.kinds == ["acquired", "released"]

        test_second = test_first

    decorated()
    for name in ("test_first", "test_second"):
        result = Tests(name).run()
        assert result is not None
        assert result.wasSuccessful(), result.errors


def test_no_tool_of_the_kit_remembers_leases_that_are_gone() -> None:
    """A run has many thousands of them."""
    gc.collect()
    before = len(acquired_leases.references)
    for number in range(9):
        with distributed_lock(f"{number}collectPayment"):
            pass
    gc.collect()
    assert len(acquired_leases.references) <= before
