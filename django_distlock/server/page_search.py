"""Search a lock table for a page of locks, a part of it at a time."""

from itertools import islice
from typing import Final

from .locks import LockDescription
from .table import LockTable

SLICE: Final = 2_000
"""Locks to look at in one step: other clients of a lock server wait that long."""
FIRST: Final = 50_000
"""Names to begin with. To copy a million takes long, and most searches find enough in these."""


class PageSearch:
    """The locks whose semaphore begins with a prefix, and that have a text in it or the holder.

    It finds `window` locks at most: those that have been in the table longest.
    """

    def __init__(self, table: LockTable, prefix: str, text: str, window: int) -> None:
        self._table = table
        self._prefix = prefix
        self._text = text.casefold()
        self._window = window
        self._names = list(islice(table.locks, FIRST))
        self._has_all_names = len(table.locks) <= FIRST
        self._at = 0
        self._found: list[str] = []
        self.is_capped = False
        """Whether there are more than it may find."""

    def __len__(self) -> int:
        return len(self._found)

    def look_on(self) -> bool:
        """Look at the next locks; return whether others remain."""
        self._look_at(self._names[self._at : self._at + SLICE])
        self._at += SLICE
        if self._at >= len(self._names) and not self._has_all_names and not self.is_capped:
            self._names, self._has_all_names = list(self._table.locks), True
            self._at, self._found = 0, []
        return self._at < len(self._names) and not self.is_capped

    def _look_at(self, names: list[str]) -> None:
        locks, now, text = self._table.locks, self._table.monotonic(), self._text
        for name in names:
            lock = locks.get(name)
            if lock is None or lock.expires <= now or not name.startswith(self._prefix):
                continue
            if text and text not in name.casefold() and text not in lock.holder.casefold():
                continue
            if len(self._found) == self._window:
                self.is_capped = True
                break
            self._found.append(name)
        self._found.sort()  # in each step: in the last one, it would take as long as all others

    def page(self, number: int, limit: int) -> list[LockDescription]:
        """Return one page of what was found, in the order of the semaphores."""
        first = (number - 1) * limit
        return self._table.describe(self._found[first : first + limit])
