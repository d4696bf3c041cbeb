"""The lock server: a waiter that leaves keeps the lock that it is offered.

Offers last for a minute here, so that the mistake is seen: usually they end by themselves.
"""

from __future__ import annotations

from django_distlock.server import transitions
from django_distlock.server.table import LockTable


def apply() -> None:
    """Make the mistake, in the server's process."""

    def mistaken(self: LockTable, semaphore: str, owner: str) -> None:
        if lock := self.locks.get(semaphore):
            self.waiters.remove(lock, owner)

    setattr(LockTable, "leave", mistaken)  # noqa: B010 - a method, to type checkers
    setattr(transitions, "OFFER_SECONDS", 60)  # noqa: B010 - it is Final to type checkers
