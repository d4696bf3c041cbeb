"""Tests that take locks in some order."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from django_distlock import distributed_lock

if TYPE_CHECKING:
    from collections.abc import Callable

FILE = "tests/support/taken_locks.py"


def take(*semaphores: str, **options: Any) -> Callable[[], None]:
    """Return a test that takes these locks, one after the other, then releases them."""

    def test() -> None:
        with ExitStack() as stack:
            for semaphore in semaphores:
                stack.enter_context(distributed_lock(semaphore, **options))

    return test
