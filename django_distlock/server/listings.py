"""Listings and searches that clients go on with, request by request."""

from itertools import count
from typing import Final, Generic, TypeVar

from .errors import Refused

T = TypeVar("T")

PAGE: Final = 1_000
"""Locks on a page: other clients wait while one is made."""
LISTINGS: Final = 16
"""Listings that may be under way at the same time."""


class Listings(Generic[T]):
    """What is still to be listed, by cursor."""

    def __init__(self) -> None:
        self._numbers = count(1)
        self._remaining: dict[int, T] = {}

    def add(self, remaining: T) -> int:
        """Return a cursor for what remains. It displaces the oldest listing if there are many."""
        cursor = next(self._numbers)
        self._remaining[cursor] = remaining
        if len(self._remaining) > LISTINGS:
            del self._remaining[next(iter(self._remaining))]
        return cursor

    def take(self, cursor: object) -> T:
        """Return what remains at this cursor. Refused if newer listings displaced it."""
        remaining = self._remaining.pop(cursor, None) if type(cursor) is int else None
        if remaining is None:
            raise Refused("Newer listings have displaced this one: start again.")
        return remaining
