"""SQLite: a release ends whatever lease there is.

An owner whose lease has ended so releases its successor's.
"""

from __future__ import annotations

from django_distlock.backends.database import sqlite

OWN = "WHERE semaphore = :semaphore AND owner = :owner"


def apply() -> None:
    """Make the mistake in all stores that are made from now on."""
    assert OWN in sqlite.RELEASE
    mistaken = sqlite.RELEASE.replace(OWN, "WHERE semaphore = :semaphore AND owner <> ''")
    setattr(sqlite, "RELEASE", mistaken)  # noqa: B010 - it is Final to type checkers
