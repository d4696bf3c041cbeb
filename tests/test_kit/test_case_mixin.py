"""LockTestMixin: assertions about locks, and checks after each test of a TestCase."""

from __future__ import annotations

import unittest

import pytest
from django.test import SimpleTestCase, override_settings

from django_distlock import acquire_lock, distributed_lock, lock_backends
from django_distlock.test import LockTestMixin
from tests.app.backends import MinimalBackend
from tests.support.concurrency import elsewhere

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("in_memory", "new_orders")]
LOCK = "1234collectPayment"
MINIMAL = {"BACKEND": "tests.app.backends.MinimalBackend"}


class Assertions(LockTestMixin, unittest.TestCase):
    """Its tests run below; each is one way to fail, with messages as unittest has them."""

    def test_held(self) -> None:
        """Whoever holds it."""
        holder = elsewhere(lambda: acquire_lock(LOCK))
        assert holder is not None
        self.assertHeld(LOCK)
        self.assertNotHeld(LOCK, backend="other")
        self.assertNotHeld("1234collectPay")
        with pytest.raises(AssertionError) as raised:
            self.assertNotHeld(LOCK, msg="left behind")
        self.assertEqual(
            str(raised.value),
            f"{LOCK!r} is held in DISTLOCK['default'] by {holder.holder}. : left behind",
        )
        with pytest.raises(AssertionError, match=r"does not hold .* no lock\. Its holder is"):
            self.assertLocked(LOCK)

    def test_not_held(self) -> None:
        """A message may replace the own one. What min_hold keeps is held by nobody."""
        with distributed_lock(LOCK, min_hold=60):
            self.assertLocked(LOCK)
        self.assertNotHeld(LOCK)
        with pytest.raises(AssertionError, match=rf"^{LOCK!r} is not held in DISTLOCK.*'\]\.$"):
            self.assertHeld(LOCK)
        self.longMessage = False
        with pytest.raises(AssertionError, match=r"^lost already$"):
            self.assertHeld(LOCK, msg="lost already")


@override_settings(DISTLOCK={"default": MINIMAL})
def test_a_store_that_can_not_list_is_asked_for_the_lock(db: None) -> None:
    """As Memcached is. It does not tell who holds the lock."""
    case = RealLocks()
    case.assertNotHeld(LOCK)
    with distributed_lock(LOCK):
        case.assertHeld(LOCK)
        with pytest.raises(AssertionError, match="by a holder that MinimalBackend doesn't name"):
            case.assertNotHeld(LOCK)
    case.assertNotHeld(LOCK)


class RealLocks(LockTestMixin, SimpleTestCase):
    """Its test sees the stores of the setting."""

    real_locks = True
    check_lock_order = False

    def test_stores_are_those_of_the_setting(self) -> None:
        """No other one is put in their place."""
        with override_settings(DISTLOCK={"default": MINIMAL}):
            assert isinstance(lock_backends["default"], MinimalBackend)


def test_the_mixin_checks_leaks_and_the_order_of_locks() -> None:
    """The next test finds the lock free. One that is skipped changes nothing."""

    class Leaking(LockTestMixin, SimpleTestCase):
        """Its tests fail."""

        check_leaks = True

        def test_leak(self) -> None:
            """Leave a lock behind."""
            acquire_lock(LOCK)

        def test_one_order(self) -> None:
            """Take two locks."""
            with distributed_lock("A"), distributed_lock("B"):
                pass

        def test_other_order(self) -> None:
            """Take them in the opposite order."""
            with distributed_lock("B"), distributed_lock("A"):
                pass

        @unittest.skip("no clean-up runs for it")
        def test_skipped(self) -> None:
            """Leave nothing behind."""

    result = unittest.TestResult()
    assert acquire_lock("outer")
    for name in ("test_leak", "test_one_order", "test_skipped", "test_other_order"):
        Leaking(name).run(result)
        assert acquire_lock("outer") is None
    assert [test.id().rpartition(".")[2] for test, _ in result.failures] == [
        "test_leak",
        "test_other_order",
    ]
    assert "acquired at tests/test_kit/test_case_mixin.py" in result.failures[0][1]
    assert "test_one_order" in result.failures[1][1]
