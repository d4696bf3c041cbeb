"""Fixtures for the tests of the test kit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from django.test import override_settings

from django_distlock.test import lock_order, override_locks

if TYPE_CHECKING:
    from collections.abc import Iterator

MEMORY = {"BACKEND": "django_distlock.backends.memory.MemoryBackend"}


@pytest.fixture
def in_memory() -> Iterator[None]:
    """Keep the locks of two stores, `default` and `other`, in memory."""
    with override_settings(DISTLOCK={"default": MEMORY, "other": MEMORY}), override_locks():
        yield


@pytest.fixture
def new_orders(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget the orders of other tests."""
    monkeypatch.setattr(lock_order, "lock_order", lock_order.LockOrder())
