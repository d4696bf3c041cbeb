"""Tests of a site, which run in another process than first_tests.py. None of them fails."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from django.test import SimpleTestCase

from django_distlock import aacquire_lock, acquire_lock, distributed_lock

if TYPE_CHECKING:
    from django_distlock.test import CapturedLocks

LOCK = "1234collectPayment"


@pytest.fixture
def anyio_backend() -> str:
    """Run async tests by asyncio."""
    return "asyncio"


@pytest.mark.anyio
@pytest.mark.usefixtures("no_lock_held_after_test")
async def test_async(captured_locks: CapturedLocks) -> None:
    """The fixtures are those of sync tests."""
    async with distributed_lock(LOCK):
        assert await aacquire_lock(LOCK) is None
    assert captured_locks.kinds == ["acquired", "contended", "released"]


class Async(SimpleTestCase):
    """Async tests by Django."""

    async def test_async(self) -> None:
        """Its lock stays behind."""
        assert await aacquire_lock(LOCK)

    test_async_again = test_async


def test_opposite_order_of_another_process() -> None:
    """Is not seen: see docs/how-to/test.md."""
    assert os.environ["PYTEST_XDIST_WORKER"]
    with distributed_lock("B"), distributed_lock("A"):
        assert acquire_lock("A") is None
