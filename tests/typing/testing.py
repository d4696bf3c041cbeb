"""Tests of a site that uses the test kit, and of a store that keeps the contract."""

from typing import assert_type

from django.test import SimpleTestCase, TestCase

from django_distlock import acquire_lock
from django_distlock.contract import LockBackendContract
from django_distlock.test import (
    CapturedEvent,
    CapturedLocks,
    LockTestMixin,
    aexpire,
    alose,
    assert_locked,
    captured_locks,
    consistent_lock_order,
    expire,
    held_elsewhere,
    lose,
    no_lock_held_after_test,
    override_locks,
    store_down,
)
from tests.typing.locks import acollect, collect, collect_or_skip


class FileBackendTests(LockBackendContract, SimpleTestCase):
    """Tests of a store of one's own."""

    alias = "files"


@override_locks()
@no_lock_held_after_test()
@consistent_lock_order()
class CollectTests(TestCase):
    """Decorated test cases stay test cases, and functions keep their parameters."""

    @held_elsewhere("1234collectPayment", holder="another worker", ttl=30, release_after=5)
    def test_contended(self) -> None:
        """A decorator of a test."""
        assert_type(collect_or_skip(1234), bytes | None)

    @store_down("default", reply_lost=True)
    async def test_outage(self) -> None:
        """A decorator of an async test."""
        assert_type(await acollect(1234), bytes)


class LossTests(LockTestMixin, TestCase):
    """The mixin has assertions, and switches."""

    real_locks = True
    check_leaks = True

    def test_loss(self) -> None:
        """By the lease or by its name."""
        lease = acquire_lock("1234collectPayment")
        assert lease
        self.assertHeld("1234collectPayment")
        self.assertLocked("1234collectPayment", backend="default")
        assert_locked("1234collectPayment", backend="default")
        lose(lease, noticed=False)
        expire("1234collectPayment", backend="default")
        self.assertNotHeld("1234collectPayment")

    async def test_loss_in_async_code(self) -> None:
        """The same."""
        await alose("1234collectPayment", backend="default")
        await aexpire("1234collectPayment", noticed=False)


def capture() -> None:
    """Blocks of each."""
    with override_locks(), store_down(), no_lock_held_after_test(), consistent_lock_order():
        pass
    with held_elsewhere("1234collectPayment"), captured_locks() as locks:
        collect(1234)
    assert_type(locks, CapturedLocks)
    assert_type(locks.kinds, list[str])
    assert_type(locks.of("1234collectPayment", backend="default"), CapturedLocks)
    assert_type(locks[0], CapturedEvent)
    assert_type(
        (locks[0].kind, locks[0].waited, locks[0].token), tuple[str, float | None, int | None]
    )


async def capture_in_async_code() -> None:
    """The same."""
    async with held_elsewhere("1234collectPayment"), captured_locks() as locks:
        await acollect(1234)
    assert_type(locks, CapturedLocks)
