"""The table with the waiters of MySQL's family: its rows, its errors, and what it costs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from django_distlock import LockBackendUnavailable, acquire_lock
from django_distlock.backends.database import DatabaseBackend, queue
from django_distlock.backends.database import connections as own
from django_distlock.backends.database.polled_queue import PolledQueueStatements
from django_distlock.models import LockWaiter
from tests.support.databases import committed, locked_row, statements_sent
from tests.support.polled_waiters import (
    NAME,
    Waiter,
    held,
    in_tables,
    is_reserved,
    waiters,
)

if TYPE_CHECKING:
    from django_distlock.backends.database.statements import Parameters

once = pytest.mark.once
pytestmark = [committed, in_tables]


@pytest.mark.usefixtures("long_lives")
def test_waiter_whose_row_was_removed_returns_to_its_place(store: DatabaseBackend) -> None:
    """As after it was stopped for long."""
    lease, slow, waiter = held(store), Waiter(store), Waiter(store)
    LockWaiter.objects.using(store.using).order_by("id").first().delete()  # type: ignore[union-attr]
    assert not slow.attempt()
    assert lease.release()
    assert not waiter.attempt()
    assert slow.attempt()
    slow.leave(granted=True)
    assert slow.release()
    waiter.leave()


def test_rows_of_dead_waiters_are_deleted(
    store: DatabaseBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the next process that joins a queue, of whatever lock."""
    monkeypatch.setattr(queue, "SWEPT", 0)
    own.close_own_connections()
    lease, dead = held(store), Waiter(store)
    own.close_own_connections()  # others sweep every SWEEPING seconds
    other = Waiter(store)
    assert waiters(store) == 1
    other.leave()
    dead.leave()
    assert lease.release()
    own.close_own_connections()


def test_waiter_does_not_wait_for_a_locked_row(store: DatabaseBackend) -> None:
    """It has its place, and reserves the lock later."""
    lease = held(store)
    with locked_row(store.using, NAME):
        began = time.monotonic()
        waiter = Waiter(store)
        waiter.attempt()
        assert waiters(store) == 1
        assert not is_reserved(store)
        assert time.monotonic() - began < 10
    assert not waiter.attempt()
    assert is_reserved(store)
    waiter.leave()
    assert lease.release()


@once
@pytest.mark.usefixtures("long_lives")
def test_waiting_costs_others_nothing(store: DatabaseBackend) -> None:
    """Without waiters no statement more is sent; a refused attempt is one, except on MySQL."""

    def pair() -> None:
        assert held(store).release()

    pair()  # prepares statements
    [*alone] = statements_sent(store.using, pair)
    assert "distlock_lockwaiter" not in "".join(alone)
    if store.alias == "mariadb":
        assert len(alone) == 2
        lease, waiter = held(store), Waiter(store)
        assert not waiter.attempt()
        assert lease.release()
        assert (
            len(statements_sent(store.using, lambda: acquire_lock(NAME, backend=store.alias))) == 1
        )
        waiter.leave()


def test_joining_whose_reply_is_lost_is_repeated(
    store: DatabaseBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first row, if there is one, is soon outdated."""
    lease, lost = held(store), [LockBackendUnavailable("lost", reply_lost=True)]
    join = PolledQueueStatements.join

    def lose_once(statements: PolledQueueStatements, parameters: Parameters) -> int:
        place = join(statements, parameters)
        if lost:
            raise lost.pop()
        return place

    monkeypatch.setattr(PolledQueueStatements, "join", lose_once)
    waiter = Waiter(store)
    assert waiters(store) == 2
    assert not waiter.attempt()
    waiter.leave()
    assert lease.release()


def test_joining_that_fails_is_an_error(
    store: DatabaseBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wait that can't be is refused at once."""

    def fail(statements: PolledQueueStatements, parameters: Parameters) -> int:
        raise LockBackendUnavailable("down")

    lease = held(store)
    monkeypatch.setattr(PolledQueueStatements, "join", fail)
    with pytest.raises(LockBackendUnavailable, match="down"):
        Waiter(store)
    assert lease.release()
