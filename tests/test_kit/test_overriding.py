"""override_locks(): locks in memory, and nothing that remains after a test."""

from __future__ import annotations

import gc
import logging
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from django.db import transaction
from django.test import LiveServerTestCase, SimpleTestCase, TestCase, override_settings

from django_distlock import (
    Lease,
    LockBackendUnavailable,
    aacquire_lock,
    acquire_lock,
    distributed_lock,
    lock_backends,
    release_lock,
)
from django_distlock.backends.memory import MemoryBackend
from django_distlock.concurrency.background import background
from django_distlock.concurrency.process_queue import recent_handovers
from django_distlock.leases.process_exit import unreferenced_leases
from django_distlock.test import override_locks
from tests.support.concurrency import elsewhere, run, until
from tests.support.holders import acquire, finish_background_work, held_in, renew_now
from tests.support.leases import internals

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.once

LOCK = "1234collectPayment"


@override_locks()
class InSimpleTestCase(SimpleTestCase):
    """Where no query is allowed: the database's store can't be asked."""

    def test_locks_work_without_a_database(self) -> None:
        """The first of two tests that leave the same lock behind."""
        self.assertTrue(acquire_lock(LOCK))
        self.assertIsNone(acquire_lock(LOCK))

    test_again_with_nothing_left = test_locks_work_without_a_database

    async def test_async_code_is_meant_too(self) -> None:
        """Its test leaves the lock behind, too."""
        self.assertTrue(await aacquire_lock(LOCK))
        self.assertIsNone(await aacquire_lock(LOCK))

    test_async_again = test_async_code_is_meant_too


@override_locks()
class InTestCase(TestCase):
    def test_the_table_stays_empty(self) -> None:
        """A locked view needs no query for its lock."""
        with self.assertNumQueries(0), distributed_lock(LOCK):
            self.assertEqual(held_in("default"), [LOCK])


@override_locks()
class InLiveServer(LiveServerTestCase):
    databases = {"default", "locks"}

    def test_threads_of_the_server_are_meant(self) -> None:
        """What the test holds is contended there."""
        assert acquire_lock("view 7")
        store = elsewhere(lambda: type(lock_backends["default"]))
        assert issubclass(store, MemoryBackend)
        assert elsewhere(lambda: acquire_lock("view 7")) is None


@override_locks()
def test_decorated_function_has_no_locks_at_its_start() -> None:
    """And keeps none for the next."""
    assert acquire_lock(LOCK)


test_decorated_function_again = test_decorated_function_has_no_locks_at_its_start


def test_decorated_coroutine_function_is_awaited_inside() -> None:
    """The locks are in memory until it has ended; `async with` is the same."""

    @override_locks()
    async def locked() -> type[object]:
        assert await aacquire_lock(LOCK)
        return type(lock_backends["default"])

    async def in_block() -> type[object]:
        async with override_locks():
            assert lock_backends["default"].check() == []
            return type(lock_backends["default"])

    for coroutine in (locked(), locked(), in_block()):
        assert issubclass(run(coroutine), MemoryBackend)
    assert not isinstance(lock_backends["default"], MemoryBackend)


@override_settings(
    DISTLOCK={
        "default": {
            "BACKEND": "no.such.Store",
            "OPTIONS": {"ttl": 7, "guard_commits": False, "servers": ["db1", "db2"]},
        },
        "reports": {"BACKEND": "django_distlock.backends.redis.RedisBackend"},
        "broken": "no dict",
    }
)
def test_each_alias_keeps_its_ttl_and_its_guard() -> None:
    """Other options, and a store that isn't installed, don't matter."""
    with override_locks():
        stores = [lock_backends[alias] for alias in ("default", "reports", "broken")]
        assert [store.ttl for store in stores] == [7, 60, 60]
        assert [store.guard_commits for store in stores] == [False, True, True]
        assert acquire("default")
        assert acquire("reports")


def test_site_without_the_setting_has_the_default_alias(settings: Any) -> None:
    """As without the test kit."""
    del settings.DISTLOCK
    with override_locks():
        assert acquire("default").ttl == 60
    assert not hasattr(settings, "DISTLOCK")


def test_lease_that_a_test_left_ends_without_a_word(
    lost: dict[Lease, str], caplog: pytest.LogCaptureFixture
) -> None:
    """It is not renewed, it is no loss, and it warns of nothing, whatever held it."""
    caplog.set_level(logging.DEBUG, "django_distlock")
    with override_locks():
        kept = acquire("default")
        in_thread = elsewhere(lambda: acquire("default", "in a thread"))
        block = distributed_lock("block")
        in_block = block.__enter__()
        with warnings.catch_warnings(action="ignore"):
            dropped = distributed_lock("dropped")
            dropped.__enter__()
            del dropped
            gc.collect()
        caplog.clear()
    for lease in (kept, in_thread, in_block):
        assert not lease.held
        assert internals(lease) not in background("default").renewals
        assert lease.release() is False
    block.__exit__(None, None, None)
    del kept, in_thread, in_block, block, lease
    gc.collect()
    finish_background_work()
    assert not caplog.records
    assert not lost
    assert not unreferenced_leases


@pytest.mark.parametrize(
    "other", ["memory", "default", pytest.param("redis", marks=pytest.mark.needs("redis"))]
)
def test_waits_end_with_the_test(other: str) -> None:
    """A thread and a task that go on don't ask the store of the next test, or a real one."""
    waiting: list[Callable[[], object]] = [
        lambda: acquire_lock(LOCK, backend=other, timeout=60),
        lambda: run(wait(other)),
    ]
    for wait_for_it in waiting:
        with ThreadPoolExecutor(1) as thread:
            with override_locks():
                assert acquire_lock(LOCK, backend=other)
                store: Any = lock_backends[other]
                waiter = thread.submit(wait_for_it)
                until(lambda: store.waiters(LOCK))  # noqa: B023 - called in this round
            with pytest.raises(LockBackendUnavailable, match="The test has ended"):
                waiter.result(60)


async def wait(backend: str) -> None:
    await aacquire_lock(LOCK, backend=backend, timeout=60)


def test_failed_release_of_a_test_is_not_repeated_in_the_next() -> None:
    """The next acquisition of the name would release it first, in the wrong store."""
    with override_locks():
        lease = acquire("default")
        down = LockBackendUnavailable("down")
        with mock.patch.object(lock_backends["default"], "release", side_effect=down):
            with pytest.raises(LockBackendUnavailable):
                lease.release()
    with override_locks():
        with mock.patch.object(lock_backends["default"], "release") as release:
            assert acquire_lock(LOCK)
        release.assert_not_called()


@pytest.mark.django_db(transaction=True)
def test_release_that_waits_for_a_transaction_refuses_no_later_commit() -> None:
    """The transaction may end after the block; and a lease may be taken back in it, and left."""
    with transaction.atomic():
        with override_locks():
            with distributed_lock(LOCK) as lease:
                pass
            assert lease.release() is False
            again = acquire_lock(LOCK)
            assert again is not None
            assert again.token == lease.token
    assert not again.held
    del again
    gc.collect()


def test_repeated_lines_are_written_in_each_test(caplog: pytest.LogCaptureFixture) -> None:
    """Nor does a thread write later what one test left out."""
    logger = logging.getLogger("django_distlock.leases")
    for _ in range(2):
        with override_locks():
            for _ in range(3):
                logger.warning("alike")
    assert [record.getMessage() for record in caplog.records] == ["alike"] * 2
    for each in threading.enumerate():
        if each.name.endswith("repeats"):
            each.join(0.5)
            assert not each.is_alive()


def test_handover_in_a_test_delays_no_attempt_in_the_next() -> None:
    """For a moment after one, a waiter would join the queue without asking for the lock."""
    with override_locks():
        recent_handovers.add("default", LOCK)
    assert not recent_handovers.pop("default", LOCK)


def test_lease_from_outside_is_renewed_and_released_in_its_own_store() -> None:
    """As one that a session's fixture holds, or an outer block."""
    with override_locks():
        outer = acquire("default")
        with override_locks():
            assert not held_in("default")
            inner = acquire("default")
            outer.renew()
            before = outer.expires_at
            renew_now(outer)
            assert outer.expires_at != before
            assert outer.held
            with distributed_lock("another"):
                pass
            assert outer.release() is True
            assert inner.held
        assert not held_in("default")
        assert not inner.held


def test_setting_that_a_test_overrides_itself_counts() -> None:
    """It asks for this store; afterwards locks are in memory again."""
    with override_locks():
        lease = acquire("default")
        memory = "django_distlock.backends.memory.MemoryBackend"
        with override_settings(DISTLOCK={"default": {"BACKEND": memory, "OPTIONS": {"ttl": 5}}}):
            assert acquire("default", "another").ttl == 5
            assert release_lock("another")
        assert acquire_lock(LOCK) is None
        assert lease.held


def test_memory_store_of_the_site_keeps_its_own_locks() -> None:
    """Both keep locks in memory, but not the same."""
    memory = "django_distlock.backends.memory.MemoryBackend"
    with override_settings(DISTLOCK={"default": {"BACKEND": memory}}):
        lease = acquire("default")
        with override_locks():
            assert acquire_lock(LOCK)
        assert held_in("default") == [LOCK]
        assert lease.release()


def test_cost_is_well_below_a_millisecond() -> None:
    """Each test of a project may pay it."""
    best = min(timed() for _ in range(20))
    assert best < 0.001, best


def timed() -> float:
    began = time.perf_counter()
    with override_locks():
        pass
    return time.perf_counter() - began
