"""What list_locks shows of the stores, each time it asks them."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

from django_distlock.backends.base import BaseLockBackend
from django_distlock.conf import lock_backends
from django_distlock.records import LockInfo, LockState, Pause

from .base import STORE_ERRORS, unseen_locks
from .output.rows import Row, lock_row, pause_row
from .output.tables import lock_table
from .output.text import count_of, pause_lines

Problems = list[str]
"""Why some of the stores could not be listed."""


@dataclass(frozen=True)
class Listing:
    """Locks of these stores, or the pauses in force."""

    aliases: list[str]
    prefix: str = ""
    state: LockState | None = None
    """None lists held and stale locks."""
    limit: int | None = None
    """How many locks of each store to list at most."""
    pauses: bool = False

    def write_rows(self, write: Callable[[Row], None]) -> Problems:
        """Write a row for each lock or pause."""
        problems: Problems = []
        for alias in self.aliases:
            with noting(problems):
                store = lock_backends[alias]
                if self.pauses:
                    for pause in _pauses(store):
                        write(pause_row(alias, pause))
                else:
                    for lock in self._locks(store):
                        write(lock_row(alias, lock))
        return problems

    def write_lines(self, write: Callable[[str], object], width: int | None) -> Problems:
        """Write the lines of a table for each store. See lock_table() for the width."""
        problems: Problems = []
        for alias in self.aliases:
            with noting(problems):
                for line in self._lines(lock_backends[alias], width):
                    write(line)
                if len(self.aliases) > 1:
                    write("")  # between two tables
        return problems

    def _lines(self, store: BaseLockBackend, width: int | None) -> Iterator[str]:
        heading = f"{store.alias} ({type(store).__name__})"
        if self.pauses:
            yield from [heading, *pause_lines(_pauses(store))]
            return
        found = self._locks(store)
        table = lock_table(found, width)
        first = next(table)  # an error comes before the store's heading
        yield heading
        if pauses := store.pauses():
            yield from pause_lines(pauses)
        if found.number:
            yield first
            yield from table
        yield found.summary

    def _locks(self, store: BaseLockBackend) -> "FoundLocks":
        if self.state is LockState.RELEASED:
            released = store.purge_released(timedelta(0), self.prefix, dry_run=True)
            return FoundLocks(store, released, self.limit)
        matching = (lock for lock in store.held(self.prefix) if self.state in (None, lock.state))
        return FoundLocks(store, matching, self.limit)


class FoundLocks:
    """The locks of a store, as they come, counted."""

    def __init__(
        self, store: BaseLockBackend, locks: Iterable[LockInfo], limit: int | None
    ) -> None:
        self.number = 0
        self._limit = limit
        self._has_more = False
        self._locks = self._read(store, locks)

    def __iter__(self) -> Iterator[LockInfo]:
        return self._locks

    @property
    def summary(self) -> str:
        """How many there are, for people, when all have been read."""
        if self._has_more:
            return f"The first {count_of(self.number, 'lock')}; there are more."
        return f"{count_of(self.number, 'lock')}." if self.number else "No locks."

    def _read(self, store: BaseLockBackend, locks: Iterable[LockInfo]) -> Iterator[LockInfo]:
        for lock in locks:
            self._has_more = self.number == self._limit
            if self._has_more:
                return
            self.number += 1
            yield lock
        if not self.number and (unseen := unseen_locks(store)):
            raise unseen


def _pauses(store: BaseLockBackend) -> list[Pause]:
    pauses = store.pauses()
    if not pauses and (unseen := unseen_locks(store)):
        raise unseen
    return pauses


@contextmanager
def noting(problems: Problems) -> Iterator[None]:
    """Note the error of a store, and go on with the next one."""
    try:
        yield
    except STORE_ERRORS as error:
        problems.append(str(error))
