"""Stores that keep events, and what was recorded of their locks."""

from __future__ import annotations

from django_distlock.events.history import history
from django_distlock.events.writing import writer

SEMAPHORE = "1234collectPayment"
MEMORY = "django_distlock.backends.memory.MemoryBackend"
DATABASE = "django_distlock.backends.database.DatabaseBackend"


def recorded(backend: str = "memory", semaphore: str = SEMAPHORE) -> list[tuple[str, str]]:
    """Return kind and reason of what was recorded, in the order of time."""
    writer.finish(60)
    return [(event.kind.value, event.reason) for event in reversed(history(backend, semaphore))]
