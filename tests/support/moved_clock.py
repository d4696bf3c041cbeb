"""A clock that a test moves on, so that it need not wait."""

from __future__ import annotations

from django_distlock import clocks


class MovedClock:
    """The clock that counts, moved on by as many seconds as the test says."""

    def __init__(self) -> None:
        self.moved = 0.0
        self.unmoved = clocks.monotonic

    def __call__(self) -> float:
        """Return the time."""
        return self.unmoved() + self.moved
