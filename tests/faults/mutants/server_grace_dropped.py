"""The lock server: it grants at once after a crash, whatever leases may be in force."""

from __future__ import annotations

from typing import Any

from django_distlock.server import running


def apply() -> None:
    """Make the mistake, in the server's process."""

    def mistaken(*arguments: Any) -> float:
        return 0.0

    assert hasattr(running, "grace_after")
    setattr(running, "grace_after", mistaken)  # noqa: B010 - a function, to type checkers
