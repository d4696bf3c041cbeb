"""Let time pass for leases, without waiting for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django_distlock import clocks

if TYPE_CHECKING:
    import pytest

    from django_distlock import Lease


class MovedClock:
    """The local clock by which leases end, as far ahead of the true one as a test moves it."""

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
        """Let it go on by advance() only, however long the test takes."""
        self._stopped_at = self._true()

    def advance(self, seconds: float) -> None:
        """Let so much time pass."""
        self._ahead += seconds

    def expire(self, lease: Lease) -> None:
        """Let the lease's time pass."""
        self.advance(lease.remaining + 1)
        assert not lease.remaining

    def outdate(self, lease: Lease) -> None:
        """Let what the store said of the lease be longer ago than a commit may rely on."""
        self.advance(0.2)
        assert not lease.is_confirmed()
