"""A release in a transaction does not wait for its end."""

from __future__ import annotations

from typing import Any

from django_distlock.leases import release


def apply() -> None:
    """Make the mistake."""

    def no_transactions() -> list[Any]:
        return []

    assert "open_transactions" in vars(release)
    setattr(release, "open_transactions", no_transactions)  # noqa: B010 - a function, to type checkers
