"""The lock server: after a crash, holders can't reclaim their leases."""

from __future__ import annotations

from typing import Any

from django_distlock.server.table import LockTable


def apply() -> None:
    """Make the mistake, in the server's process."""

    def mistaken(self: LockTable, *arguments: Any) -> bool:
        return False

    setattr(LockTable, "reclaim", mistaken)  # noqa: B010 - a method, to type checkers
