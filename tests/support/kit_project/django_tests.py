"""Tests of a site that run by Django's own runner, in two processes. None of them fails."""

from __future__ import annotations

from django.test import SimpleTestCase

from django_distlock import acquire_lock, distributed_lock
from django_distlock.test import CapturedLocks, LockTestMixin, captured_locks

LOCK = "1234collectPayment"


class FirstTests(LockTestMixin, SimpleTestCase):
    """Run in one process."""

    check_leaks = True

    def test_locks_are_in_memory(self) -> None:
        """As they are in the other process, where the same lock is held."""
        with distributed_lock(LOCK):
            self.assertLocked(LOCK)
            self.assertHeld(LOCK)
        self.assertNotHeld(LOCK)


@captured_locks(attr_name="locks")
class SecondTests(LockTestMixin, SimpleTestCase):
    """Run in the other process."""

    locks: CapturedLocks

    def test_a_lock_stays_behind(self) -> None:
        """The next test finds it free."""
        assert acquire_lock(LOCK)
        assert self.locks.kinds == ["acquired"]

    test_again = test_a_lock_stays_behind
