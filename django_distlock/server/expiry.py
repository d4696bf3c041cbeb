"""When to look at which lock, because it may have expired."""

import math
from heapq import heappop, heappush
from typing import Final

from .locks import EXPIRED, Lock

SLACK: Final = 1_000
OUTDATED: Final = 1 / 8
"""The schedule keeps at most SLACK outdated entries, and so many more for each lock."""


class ExpirySchedule:
    """A heap of checks. An entry is outdated if its lock was freed, or is checked earlier."""

    def __init__(self, locks: dict[str, Lock]) -> None:
        self._locks = locks
        self.entries: list[tuple[float, str]] = []
        """Time of the check and semaphore."""

    @property
    def next_check(self) -> float:
        """When to look next."""
        return self.entries[0][0] if self.entries else math.inf

    def add(self, lock: Lock) -> None:
        """Check the lock when it expires, or earlier: a renewal needs no new entry."""
        if EXPIRED < lock.expires < lock.next_check:
            lock.next_check = check = lock.expires
            heappush(self.entries, (check, lock.semaphore))
            if len(self.entries) > (1 + OUTDATED) * len(self._locks) + SLACK:
                self._rebuild()

    def pop_due(self, now: float) -> Lock | None:
        """Remove and return the next lock to check; None if none is due by now."""
        while self.entries and self.entries[0][0] <= now:
            check, semaphore = heappop(self.entries)
            lock = self._locks.get(semaphore)
            if lock is not None and lock.next_check == check:
                lock.next_check = math.inf
                return lock
        return None

    def _rebuild(self) -> None:
        # Cleared first and filled one by one, so that entries added by a finalizer stay.
        self.entries.clear()
        for lock in list(self._locks.values()):
            heappush(self.entries, (lock.next_check, lock.semaphore))
