"""Fixtures for the tests of transactions."""

from collections.abc import Iterator

import pytest

from django_distlock import Lease
from tests.support.holders import take_away
from tests.support.late_losses import LoseLate
from tests.support.moved_clock import MovedClock
from tests.support.visits import atomic_requests


@pytest.fixture
def atomic(using: str) -> Iterator[None]:
    """Make Django open a transaction on the test's database for each request."""
    with atomic_requests(using):
        yield


@pytest.fixture
def lose_late(acquired: list[Lease], moved_clock: MovedClock) -> LoseLate:
    """Return a function that force-releases the last lease, long after the store was asked."""

    def lose() -> Lease:
        lease = acquired[-1]
        moved_clock.outdate(lease)
        take_away(lease)
        assert lease.held  # as far as is known here
        return lease

    return lose
