"""SQLite: each lock keeps its first token.

A fence can't tell one holder from the next one then.
"""

from __future__ import annotations

from django_distlock.backends.database import sqlite

RISING = "ELSE max(lock.token + 1, excluded.token)"


def apply() -> None:
    """Make the mistake in all stores that are made from now on."""
    assert RISING in sqlite.ACQUIRE
    mistaken = sqlite.ACQUIRE.replace(RISING, "ELSE lock.token")
    setattr(sqlite, "ACQUIRE", mistaken)  # noqa: B010 - it is Final to type checkers
