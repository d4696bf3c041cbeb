"""What the tests of transactions ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from django_distlock.signals import lock_acquired
from tests.support.moved_clock import MovedClock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django_distlock import Lease


@pytest.fixture(autouse=True)
def stores_have_time(patient_stores: None) -> None:
    """These tests are not about how long a store takes to answer."""


@pytest.fixture
def moved_clock(monkeypatch: pytest.MonkeyPatch) -> MovedClock:
    """Return the local clock by which leases end, to be moved."""
    return MovedClock(monkeypatch)


@pytest.fixture
def acquired() -> Iterator[list[Lease]]:
    """Return the leases that were acquired in the test, in this order."""
    leases: list[Lease] = []

    def receive(*, lease: Lease, **kwargs: Any) -> None:
        leases.append(lease)

    lock_acquired.connect(receive)
    yield leases
    lock_acquired.disconnect(receive)
