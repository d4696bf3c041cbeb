"""The lock server: all grants have the first one's token."""

from __future__ import annotations

from django_distlock.server import transitions


def apply() -> None:
    """Make the mistake, in the server's process."""

    def mistaken(last: int, now: int) -> int:
        return last or now

    assert hasattr(transitions, "next_token")
    setattr(transitions, "next_token", mistaken)  # noqa: B010 - a function, to type checkers
