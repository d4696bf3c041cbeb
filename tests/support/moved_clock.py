"""Advance the clock of leases, instead of waiting."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django_distlock import clocks
from tests.support.leases import internals

if TYPE_CHECKING:
    import pytest

    from django_distlock import Lease


class MovedClock:
    """The local clock by which leases end, ahead of the real one as far as a test moves it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._true = clocks.monotonic
        self._ahead = 0.0
        self._stopped_at: float | None = None
        monkeypatch.setattr(clocks, "monotonic", self.read)

    def read(self) -> float:
        """Return the seconds that it shows."""
        now = self._true() if self._stopped_at is None else self._stopped_at
        return now + self._ahead

    def stop(self) -> None:
        """Stop it: from now on only advance() moves it."""
        self._stopped_at = self._true()

    def advance(self, seconds: float) -> None:
        """Advance the clock by so many seconds."""
        self._ahead += seconds

    def expire(self, lease: Lease) -> None:
        """Advance the clock past the lease's end."""
        self.advance(lease.remaining + 1)
        assert not lease.remaining

    def outdate(self, lease: Lease) -> None:
        """Make the store's last answer about the lease too old for a commit to rely on."""
        self.advance(0.2)
        assert not internals(lease).is_confirmed()
