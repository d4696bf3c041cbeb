"""Fixtures of the tests of locks."""

from __future__ import annotations

import pytest

from tests.support.moved_clock import MovedClock


@pytest.fixture
def moved_clock(monkeypatch: pytest.MonkeyPatch) -> MovedClock:
    """Return the clock by which leases end, which the test moves."""
    return MovedClock(monkeypatch)
