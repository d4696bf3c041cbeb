"""Fixtures for tests of task queues."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from django_distlock import lock_backends
from tests.support.task_queues import Charges, on_refusal

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def in_memory(settings: Any) -> Iterator[None]:
    """Keep the locks of the default store in memory: the queues' workers are threads."""
    memory = {"BACKEND": "django_distlock.backends.memory.MemoryBackend"}
    settings.DISTLOCK = settings.DISTLOCK | {"default": memory}
    yield
    store: Any = lock_backends["default"]
    store.clear()


@pytest.fixture
def charges() -> Iterator[Charges]:
    """Return the work of the documented tasks, which notices when a task is refused."""
    work = Charges()
    with on_refusal(work.refuse):
        yield work
