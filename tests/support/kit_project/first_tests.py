"""Tests of a site, which run by tests/test_kit/test_pytest_plugin.py; some of them fail."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from django.test import SimpleTestCase

import django_distlock
from django_distlock import LockLost, acquire_lock, distributed_lock, lock_backends
from django_distlock.backends.database import DatabaseBackend
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from django_distlock.test import CapturedLocks

LOCK = "1234collectPayment"


def test_locks_are_in_memory_and_stay_behind() -> None:
    """No database is allowed here."""
    assert str(ROOT) in django_distlock.__file__
    assert acquire_lock(LOCK)


def test_next_test_finds_the_lock_free() -> None:
    """Though it was not released."""
    assert acquire_lock(LOCK)


class InTestCase(SimpleTestCase):
    """The same goes for TestCase."""

    def test_locks_are_in_memory(self) -> None:
        """No database is allowed here either."""
        assert acquire_lock(LOCK)


@pytest.mark.real_locks
@pytest.mark.django_db
@pytest.mark.usefixtures("no_lock_held_after_test")
def test_marked_test_uses_the_real_store() -> None:
    """In the transaction of the test."""
    assert type(lock_backends["default"]) is DatabaseBackend
    with distributed_lock(LOCK) as lease:
        assert lease.backend == "default"


def test_captured_locks_and_assert_locked(
    captured_locks: CapturedLocks, assert_locked: Callable[[str], None]
) -> None:
    """They are fixtures."""
    with distributed_lock(LOCK):
        assert_locked(LOCK)
    assert captured_locks.kinds == ["acquired", "released"]


def test_expire(expire: Callable[[str], None]) -> None:
    """It is a fixture, as the others that docs/how-to/test.md shows."""
    with pytest.raises(LockLost), distributed_lock(LOCK):
        expire(LOCK)


@pytest.mark.usefixtures("no_lock_held_after_test")
def test_leak() -> None:
    """Fails at its end."""
    acquire_lock(LOCK)


@pytest.mark.real_locks
@pytest.mark.usefixtures("no_lock_held_after_test", "db")
def test_leak_in_the_database() -> None:
    """Fails before the transaction of the test is rolled back."""
    acquire_lock(LOCK)


@pytest.mark.usefixtures("no_lock_held_after_test")
def test_no_leak() -> None:
    """Releases its lock."""
    with distributed_lock(LOCK):
        pass


def test_one_order() -> None:
    """Takes A, then B and C."""
    with distributed_lock("A"), distributed_lock("B"), distributed_lock("C"):
        pass


@pytest.mark.any_lock_order
def test_opposite_order_on_purpose() -> None:
    """Is not watched."""
    with distributed_lock("B"), distributed_lock("A"):
        pass


def test_opposite_order() -> None:
    """Fails at its end."""
    with distributed_lock("B"), distributed_lock("A"):
        pass


def test_opposite_order_again() -> None:
    """Has been reported already."""
    with distributed_lock("B"), distributed_lock("A"):
        pass


@pytest.fixture
def failing() -> Iterator[None]:
    """Fail at the end."""
    yield
    raise ZeroDivisionError("of the fixture")


@pytest.mark.usefixtures("failing")
def test_another_opposite_order_and_an_error() -> None:
    """Fails at its end, for two reasons."""
    with distributed_lock("C"), distributed_lock("B"):
        pass
