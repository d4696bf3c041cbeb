"""Fixtures for the tests of leases."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from django_distlock import lock_backends
from django_distlock.concurrency.background import Background, background

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.moved_clock import MovedClock


@pytest.fixture
def no_backgrounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no store have its background thread yet, as in a process that has just begun."""
    monkeypatch.setattr("django_distlock.concurrency.background.backgrounds", {})


@pytest.fixture
def default_background(no_backgrounds: None) -> Background:
    """Return the background of the default store, whose thread does not run yet."""
    return background("default")


@pytest.fixture
def clear_memory() -> Iterator[None]:
    """Leave no lock in memory to other tests."""
    yield
    lock_backends["memory"].clear()  # type: ignore[attr-defined]


@pytest.fixture
def stopped_clock(moved_clock: MovedClock) -> None:
    """Let nothing depend on how long a test takes."""
    moved_clock.stop()
