"""The file with SQLite's queue of waiters."""

from __future__ import annotations

import errno
import fcntl
import stat
from pathlib import Path

import pytest
from django.db import connections, transaction

from django_distlock import acquire_lock, clocks, lock_backends
from django_distlock.backends.database import DatabaseBackend, queue, queue_file
from django_distlock.backends.database.errors import RowLocked
from django_distlock.backends.database.queue_file import QueueFile
from tests.support.databases import committed
from tests.support.holders import acquire, free_for_others

once = pytest.mark.once
pytestmark = once


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return a database's file."""
    found = tmp_path / "db.sqlite3"
    found.touch(0o640)
    return found


@pytest.fixture
def queued(path: Path) -> QueueFile:
    """Return the queue beside it."""
    return QueueFile(str(path))


def test_file_is_there_while_somebody_waits(queued: QueueFile, path: Path) -> None:
    """Whoever may write to the database may write to it, and nobody else."""
    file = path.with_name("db.sqlite3-queue")
    place = queued.join("job", None)
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert queued.has_waiters("job")
    assert not queued.has_waiters("another job")
    queued.leave(place)
    assert [*path.parent.iterdir()] == [path]
    assert not queued.has_waiters("job")


def test_places_are_in_the_order_of_joining(queued: QueueFile) -> None:
    """Also within a microsecond; and a waiter can return to its former place."""
    first, second, third = [queued.join("job", None) for _ in range(3)]
    queued.leave(first)
    assert queued.look("job", first) == (0, False)
    assert queued.look("job", second) == (0, True)
    assert queued.join("job", first) == first
    assert queued.look("job", second) == (1, True)
    assert queued.look("job", third) == (2, True)


def test_silent_waiter_is_passed_over_until_it_is_seen_again(
    queued: QueueFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And after a reboot, when the clock begins anew."""
    slow, behind = queued.join("job", None), queued.join("job", None)
    with monkeypatch.context() as patch:
        patch.setattr(queue, "ALIVE", 0)
        assert queued.look("job", behind) == (0, True)
    now = clocks.monotonic()
    for later in (1.0, -1.0):
        with monkeypatch.context() as patch:
            patch.setattr(clocks, "monotonic", lambda seconds=later: now + seconds)
            assert queued.look("job", behind) == (0, True)
            queued.heartbeat("job", slow)
            assert queued.look("job", behind) == (1, True)
            queued.heartbeat("job", behind)


def test_dead_waiters_are_removed(queued: QueueFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the process that looks at the queue next."""
    queued.join("job", None)
    monkeypatch.setattr(queue, "SWEPT", 0)
    assert not queued.has_waiters("job")
    monkeypatch.undo()
    assert not queued.has_waiters("job")


def test_process_that_has_the_file_locked_is_not_waited_for(queued: QueueFile, path: Path) -> None:
    """It may be stopped: for as long as it is, there is no queue."""
    place = queued.join("job", None)
    with path.with_name("db.sqlite3-queue").open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(RowLocked):
            queued.look("job", place)
    assert queued.look("job", place) == (0, True)


def test_file_that_is_deleted_meanwhile_is_opened_again(
    queued: QueueFile, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the last waiter, which left after we had opened it."""
    file = path.with_name("db.sqlite3-queue")
    flock, left = fcntl.flock, [file.unlink]

    def lock(number: int, operation: int) -> None:
        if left:
            left.pop()()
        flock(number, operation)

    monkeypatch.setattr(fcntl, "flock", lock)
    place = queued.join("job", None)
    assert queued.look("job", place) == (0, True)


def test_file_that_is_no_queue_is_an_empty_one(queued: QueueFile, path: Path) -> None:
    """A process may be killed as it writes."""
    path.with_name("db.sqlite3-queue").write_text("[[1,")
    place = queued.join("job", None)
    assert queued.look("job", place) == (0, True)


def test_where_no_file_can_be_there_is_no_queue(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a folder that is gone or read-only, in memory, and on Windows."""
    with pytest.raises(RowLocked):
        QueueFile(str(path / "missing")).join("job", None)
    assert queue_file.queue_file("") is None
    monkeypatch.setattr(queue_file, "fcntl", None)
    assert queue_file.queue_file(str(path)) is None


def test_interruption_leaves_no_open_file(
    queued: QueueFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as one by a signal's handler."""

    def interrupt(number: int, operation: int) -> None:
        raise KeyboardInterrupt

    before = len([*Path("/proc/self/fd").iterdir()])
    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", interrupt)
        with pytest.raises(KeyboardInterrupt):
            queued.join("job", None)
    assert len([*Path("/proc/self/fd").iterdir()]) == before


@committed
def test_lock_can_be_had_while_its_queue_is_unreadable() -> None:
    """By a newcomer as by a waiter: the wait goes on without a queue."""
    store = lock_backends["default"]
    assert isinstance(store, DatabaseBackend)
    name = connections["default"].settings_dict["NAME"]
    lease, place = acquire("default", "job"), store.join("job", "owner", "", lambda: None)
    assert place is not None
    assert lease.release()
    with Path(f"{name}-queue").open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert acquire("default", "job").release()
        assert store.acquire("job", "owner", 60, "")
    store.leave(place, True)


@committed
def test_lock_can_be_had_while_the_disk_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    """A waiter is in no queue then: it asks now and then, and is refused, or granted the lock."""
    held = acquire("default")

    def fail(*arguments: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.pwrite", fail)
    assert not free_for_others("default", timeout=0.05)
    assert held.release()
    assert free_for_others("default", timeout=5)


@committed
def test_transaction_is_in_no_queue() -> None:
    """It keeps others from writing, so they couldn't release the lock; and it may overtake them."""
    store = lock_backends["default"]
    assert isinstance(store, DatabaseBackend)
    place = store.join("job", "owner", "", lambda: None)
    assert place is not None
    assert acquire_lock("job") is None
    with transaction.atomic():
        assert store.join("job", "another", "", lambda: None) is None
        assert acquire("default", "job").release()
    store.leave(place, False)
