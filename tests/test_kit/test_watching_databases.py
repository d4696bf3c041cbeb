"""What watches locks, on a database: in a TestCase its locks are part of the test's transaction."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest
from django.db import connection, transaction
from django.test import TestCase

from django_distlock import aacquire_lock, acquire_lock, distributed_lock, lock_backends
from django_distlock.backends.database import DatabaseBackend
from django_distlock.test import (
    LockTestMixin,
    assert_locked,
    captured_locks,
    no_lock_held_after_test,
)

pytestmark = pytest.mark.once
LOCK = "1234collectPayment"


class InTestCase(LockTestMixin, TestCase):
    """On the connection of the test."""

    real_locks = True
    check_leaks = True

    def test_leak(self) -> None:
        """The row tells who holds the lock. It is released in the end."""
        assert type(lock_backends["default"]) is DatabaseBackend
        with pytest.raises(AssertionError, match="still held"), no_lock_held_after_test():
            acquire_lock(LOCK)
            self.assertLocked(LOCK)
            self.assertHeld(LOCK)
        self.assertNotHeld(LOCK)
        with transaction.atomic(), distributed_lock(LOCK):
            assert_locked(LOCK)
        self.assertNotHeld(LOCK)

    def test_broken_transaction(self) -> None:
        """The database can't be asked then; the process's own records count."""
        with pytest.raises(ZeroDivisionError), transaction.atomic(), distributed_lock(LOCK):
            with mock.patch.object(connection, "needs_rollback", new=True):
                assert_locked(LOCK)
            raise ZeroDivisionError

    @captured_locks(kwarg_name="locks")
    async def test_async_leak(self, **kwargs: Any) -> None:
        """In the thread of the test's connection."""
        with pytest.raises(AssertionError, match=r"in InTestCase\.test_async_leak"):
            async with no_lock_held_after_test():
                assert await aacquire_lock(LOCK)
                assert_locked(LOCK)
        assert kwargs["locks"].kinds == ["acquired", "released"]
