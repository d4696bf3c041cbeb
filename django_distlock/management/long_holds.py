"""Locks that have been held for long: list them, and release them by force."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from tempfile import SpooledTemporaryFile
from typing import Final

from django_distlock.backends.base import BaseLockBackend
from django_distlock.records import LockInfo, LockState

from .output.rows import Row

IN_MEMORY: Final = 1_000_000
"""Bytes of the rows that were listed; more of them go into a temporary file."""


def held_longer(
    store: BaseLockBackend, age: timedelta, prefix: str, holder: str
) -> Iterator[LockInfo]:
    """Yield the locks that were acquired longer ago than that and are held since.

    `holder` is a text in the holder's name. A lock that is only kept by `min_hold` is not
    stuck, so it is left out.
    """
    for lock in store.held(prefix):
        is_held = lock.state is LockState.HELD and not lock.kept and holder in lock.holder
        if is_held and lock.acquired_at is not None and lock.seen_at - lock.acquired_at > age:
            yield lock


class ListedLocks:
    """The rows of locks that were shown, in a temporary file: there may be a million."""

    def __init__(self, file: SpooledTemporaryFile[str]) -> None:
        self._file = file
        self.number = 0

    def add(self, row: Row) -> None:
        """Add a lock's row."""
        self._file.write(json.dumps(row) + "\n")
        self.number += 1

    def release(self, store: BaseLockBackend, by: str) -> Iterator[Row]:
        """Release each by force if the grant that was shown still holds it; yield those released.

        Each release is a call of its own, so no transaction is longer than that.
        """
        self._file.seek(0)
        for row in map(json.loads, self._file):
            if store.force_release(row["semaphore"], row["token"], by=by):
                yield row


@contextmanager
def listed_locks() -> Iterator[ListedLocks]:
    """Yield a list that is gone at the end of the block."""
    with SpooledTemporaryFile(IN_MEMORY, "w+", encoding="ascii") as file:
        yield ListedLocks(file)
