"""Fixtures for stores that keep events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from django.test import override_settings

from django_distlock import lock_backends
from django_distlock.events.writing import writer
from tests.support.recorded_events import DATABASE, MEMORY

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def recorded_store() -> Iterator[Any]:
    """Record what happens to the locks of "memory", and nothing of "silent"."""
    stores = {
        "memory": {"BACKEND": MEMORY, "OPTIONS": {"events": True}},
        "silent": {"BACKEND": MEMORY},
        "default": {"BACKEND": DATABASE, "OPTIONS": {"events": True}},
    }
    with override_settings(DISTLOCK=stores):
        found: Any = lock_backends["memory"]
        yield found
        writer.finish(60)
        found.clear()
        silent: Any = lock_backends["silent"]
        silent.clear()  # tests leave locks in both
        writer.forget()
