"""Listings of locks that clients read page by page."""

from itertools import count
from typing import Final

from .errors import Refused

PAGE: Final = 1_000
"""Locks on a page: other clients wait while one is made."""
LISTINGS: Final = 16
"""Listings that may be under way at the same time."""


class Listings:
    """The semaphores that are still to be listed, by cursor."""

    def __init__(self) -> None:
        self._numbers = count(1)
        self._remaining: dict[int, list[str]] = {}

    def begin(self, names: list[str]) -> tuple[list[str], int | None]:
        """Return the first page, and the cursor of the next one; None if this is all."""
        page = names[-PAGE:]
        del names[-PAGE:]
        if not names:
            return page, None
        cursor = next(self._numbers)
        self._remaining[cursor] = names
        if len(self._remaining) > LISTINGS:
            del self._remaining[next(iter(self._remaining))]
        return page, cursor

    def next_page(self, cursor: object) -> tuple[list[str], int | None]:
        """Return the page at this cursor. Refused if newer listings displaced this one."""
        names = self._remaining.pop(cursor, None) if type(cursor) is int else None
        if names is None:
            raise Refused("Newer listings have displaced this one: start again.")
        return self.begin(names)
