"""The lock server: a release ends whatever lease there is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django_distlock.server.table import LockTable

if TYPE_CHECKING:
    from django_distlock.records import Released


def apply() -> None:
    """Make the mistake, in the server's process."""
    release = LockTable.release

    def mistaken(self: LockTable, semaphore: str, owner: str, *how: float) -> Released:
        lock = self.locks.get(semaphore)
        return release(self, semaphore, lock.owner if lock else owner, *how)

    setattr(LockTable, "release", mistaken)  # noqa: B010 - a method, to type checkers
