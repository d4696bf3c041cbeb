"""SQLite's queue of waiters: a small file beside the database, while anybody waits.

It is not a table, because any writer to the database makes a transaction fail that has read
and is about to write: a waiter would harm the holder that it waits for. All processes with the same
database are on one host, so they share a clock and the kernel's file locks.
"""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

from django_distlock import clocks

from . import queue
from .errors import RowLocked

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None  # type: ignore[assignment]

PATIENCE: Final = 0.05
"""Seconds for which the file is waited for: a process may be stopped while it has it locked."""
RETRY: Final = 0.0005
SECOND: Final = 1_000_000


class Waiter(NamedTuple):
    """The first waiter of a process for a lock."""

    place: int
    """Waiters are served in this order."""
    semaphore: str
    seen_at: float
    """When it was last seen, by this host's monotonic clock."""

    def is_seen(self, microseconds: int) -> bool:
        """Return whether it was seen so lately. A time in the future is from before a reboot."""
        return abs(clocks.monotonic() - self.seen_at) < microseconds / SECOND


class QueueFile:
    """The queues of all locks in a database. Each call raises RowLocked if it can't be used now."""

    def __init__(self, database: str) -> None:
        self._database = Path(database)
        self._path = Path(f"{database}-queue")

    def join(self, semaphore: str, place: int | None) -> int:
        """Add a waiter, at the end or at its former place; return its place."""
        with self._waiters() as waiters:
            last = max((waiter.place for waiter in waiters), default=0)
            place = place or max(last + 1, int(clocks.monotonic() * SECOND))
            self._show(waiters, semaphore, place)
        return place

    def heartbeat(self, semaphore: str, place: int) -> None:
        """Show that a waiter is alive."""
        with self._waiters() as waiters:
            self._show(waiters, semaphore, place)

    def _show(self, waiters: list[Waiter], semaphore: str, place: int) -> None:
        seen = Waiter(place, semaphore, clocks.monotonic())
        waiters[:] = [waiter for waiter in waiters if waiter.place != place] + [seen]

    def look(self, semaphore: str, place: int) -> tuple[int, bool]:
        """Return how many living waiters are before this place, and whether that is taken."""
        with self._waiters() as waiters:
            mine = [waiter for waiter in waiters if waiter.semaphore == semaphore]
        ahead = sum(waiter.place < place and waiter.is_seen(queue.ALIVE) for waiter in mine)
        return ahead, place in [waiter.place for waiter in mine]

    def leave(self, place: int) -> None:
        """Remove a waiter."""
        with self._waiters() as waiters:
            waiters[:] = [waiter for waiter in waiters if waiter.place != place]

    def has_waiters(self, semaphore: str) -> bool:
        """Return whether somebody waits for the lock. Without waiters, there is no file."""
        return self._path.exists() and self.look(semaphore, 2**63)[0] > 0

    @contextmanager
    def _waiters(self) -> Iterator[list[Waiter]]:
        """Yield the waiters, to be changed, without those that have long been gone."""
        file = self._lock()
        try:
            before = _read(file)
            waiters = [waiter for waiter in before if waiter.is_seen(queue.SWEPT)]
            yield waiters
            if not waiters:
                self._path.unlink()
            elif waiters != before:
                # A process killed in between leaves no waiters; they soon notice, and join again.
                os.ftruncate(file, os.pwrite(file, json.dumps(waiters).encode(), 0))
        except OSError as error:  # the disk is full, say
            raise RowLocked(str(error)) from error
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)  # closing it is not enough if a child was forked
            os.close(file)

    def _lock(self) -> int:
        """Open the file, which others may delete meanwhile, and lock it."""
        deadline = clocks.monotonic() + PATIENCE
        while True:
            try:
                mode = self._database.stat().st_mode & 0o666
                file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, mode)
            except OSError as error:
                raise RowLocked(str(error)) from error
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(file), self._path.stat()):
                    return file
            except (BlockingIOError, FileNotFoundError):
                if clocks.monotonic() >= deadline:
                    os.close(file)
                    raise RowLocked(f"{self._path} is locked") from None
                time.sleep(RETRY)
            except BaseException:
                os.close(file)
                raise
            os.close(file)


def _read(file: int) -> list[Waiter]:
    with suppress(ValueError, TypeError):
        return [Waiter(*waiter) for waiter in json.loads(os.pread(file, os.fstat(file).st_size, 0))]
    return []


def queue_file(database: str) -> QueueFile | None:
    """Return the queue beside the database's file; None for a database in memory."""
    return QueueFile(database) if database and fcntl is not None else None
