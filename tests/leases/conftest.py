"""Fixtures for the tests of leases."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from django.test import override_settings

from django_distlock import Lease, lock_backends
from django_distlock.concurrency.background import Background, background
from tests.support.holders import acquire

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.moved_clock import MovedClock
    from tests.support.scripted_store import ScriptedBackend


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


@pytest.fixture
def unrenewed(scripted: ScriptedBackend) -> Lease:
    """Return a lease of a minute, which nobody renews but the test."""
    return acquire("default", "1234collectPayment", ttl=60, renew=False)


@pytest.fixture
def no_middleware() -> Iterator[None]:
    """Need none of the apps that the middleware does."""
    with override_settings(MIDDLEWARE=[]):
        yield
