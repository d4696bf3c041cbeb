"""Search a lock table for a page of locks, a part of it at a time."""

from typing import Final

from .locks import LockDescription
from .table import LockTable

SLICE: Final = 2_000
"""Locks to look at in one step: other clients of a lock server wait that long."""


class PageSearch:
    """The locks whose semaphore begins with a prefix, and that have a text in it or the holder.

    It ends when there are more than `window`. Those found then have been in the table longest.
    """

    def __init__(self, table: LockTable, prefix: str, text: str, window: int) -> None:
        self._table = table
        self._prefix = prefix
        self._text = text.casefold()
        self._window = window
        self._names = list(table.locks)
        self._at = 0
        self._matching: list[str] = []

    @property
    def is_capped(self) -> bool:
        """Whether there are more than it may find."""
        return len(self._matching) > self._window

    @property
    def found(self) -> int:
        """How many it has found."""
        return min(len(self._matching), self._window)

    def look_on(self) -> bool:
        """Look at the next locks; return whether others remain."""
        names = self._names[self._at : self._at + SLICE]
        self._at += SLICE
        now, text = self._table.monotonic(), self._text
        for name in names:
            lock = self._table.locks.get(name)
            if lock is None or lock.expires <= now or not name.startswith(self._prefix):
                continue
            if not text or text in name.casefold() or text in lock.holder.casefold():
                self._matching.append(name)
        return self._at < len(self._names) and not self.is_capped

    def page(self, number: int, limit: int) -> list[LockDescription]:
        """Return one page of what was found, in the order of the semaphores."""
        names = sorted(self._matching[: self._window])
        first = (number - 1) * limit
        return self._table.describe(names[first : first + limit])
