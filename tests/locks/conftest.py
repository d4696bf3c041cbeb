"""Fixtures of the tests of locks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from django.test import override_settings

from django_distlock import lock_backends
from tests.support.signals import Told

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def in_memory() -> Iterator[None]:
    """Keep the locks in memory; an argument is wrong whatever the store."""
    memory = {"BACKEND": "django_distlock.backends.memory.MemoryBackend"}
    with override_settings(DISTLOCK={"default": memory}):
        yield
        store: Any = lock_backends["default"]
        held = [*store.held()]
        store.clear()
        assert held == []


@pytest.fixture
def told() -> Iterator[Told]:
    """Collect what is sent."""
    told = Told()
    yield told
    told.stop()
