"""Commits are not guarded: what was lost before a commit is found out after it."""

from __future__ import annotations

from typing import Any

from django_distlock.leases import commit_guard


def apply() -> None:
    """Make the mistake for all connections that are opened from now on."""

    def mistaken(leases: Any, connection: Any) -> None:
        """Guard nothing."""

    assert callable(commit_guard.guard_all)
    setattr(commit_guard, "guard_all", mistaken)  # noqa: B010 - a function, to type checkers
