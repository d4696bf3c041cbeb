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

    from tests.support.scripted_store import ScriptedBackend


@pytest.fixture
def no_backgrounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start without background threads, as in a new process."""
    monkeypatch.setattr("django_distlock.concurrency.background.backgrounds", {})


@pytest.fixture
def default_background(no_backgrounds: None) -> Background:
    """Return the default store's background, whose thread does not run yet."""
    return background("default")


@pytest.fixture
def clear_memory() -> Iterator[None]:
    """Leave no locks in memory for other tests."""
    yield
    lock_backends["memory"].clear()  # type: ignore[attr-defined]


@pytest.fixture
def unrenewed(scripted: ScriptedBackend) -> Lease:
    """Return a lease of a minute, which nobody renews but the test."""
    return acquire("default", "1234collectPayment", ttl=60, renew=False)


@pytest.fixture
def no_middleware() -> Iterator[None]:
    """Run without middleware, which needs other apps."""
    with override_settings(MIDDLEWARE=[]):
        yield
