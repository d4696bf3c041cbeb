"""Waiting on MySQL's family: first come, first served, though nobody is notified."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

import pytest
from django.db import connections

from django_distlock import LockBackendUnavailable, acquire_lock, lock_backends
from django_distlock.backends.database import DatabaseBackend, places, polled_places, queue
from django_distlock.backends.database import connections as own
from django_distlock.backends.database.polled_queue import PolledQueueStatements
from django_distlock.leases.request import new_owner
from django_distlock.models import Lock, LockWaiter
from django_distlock.records import LeaseClaim, Released
from tests.support.concurrency import until
from tests.support.databases import committed, locked_row, statements_sent
from tests.support.holders import acquire
from tests.support.processes import Workers, send_and_wait

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import ThreadPoolExecutor

    from django_distlock import Lease
    from django_distlock.backends.database.statements import Parameters
    from django_distlock.records import Grant, Place, Refusal

once = pytest.mark.once
pytestmark = [committed, pytest.mark.needs("mariadb")]

NAME = "1234collectPayment"
SOON = 30.0


@pytest.fixture(params=["mariadb", "mysql"])
def store(request: pytest.FixtureRequest) -> Iterator[DatabaseBackend]:
    """Return a store with such a queue; at the end nobody may have a place."""
    found = lock_backends[request.param]
    assert isinstance(found, DatabaseBackend)
    yield found
    left, lasting = dict(places.places), dict(polled_places.granted_places)
    places.places.clear()
    polled_places.granted_places.clear()
    assert not left
    assert not lasting


@pytest.fixture
def long_lives(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have waiters count as alive that have not been seen for a while."""
    monkeypatch.setattr(queue, "ALIVE", 60_000_000)
    own.close_own_connections()  # which have the statements
    yield
    own.close_own_connections()


class Waiter:
    """A waiter that looks at the queue when it is told to."""

    def __init__(self, store: DatabaseBackend) -> None:
        self.store, self.owner = store, new_owner()
        self.place: Place | None = store.join(NAME, self.owner, "by hand", lambda: None)
        assert self.place is not None

    def attempt(self) -> Grant | Refusal:
        """Look at the queue, and acquire the lock if it is this one's turn."""
        return self.store.acquire(NAME, self.owner, 60, "by hand")

    def release(self) -> Released:
        """Release the lock."""
        return self.store.release(LeaseClaim(NAME, self.owner, 60))

    def leave(self, *, granted: bool = False) -> None:
        """Leave the queue."""
        assert self.place is not None
        self.store.leave(self.place, granted)


def waiters(store: DatabaseBackend) -> int:
    """Return how many have a place in the table."""
    return LockWaiter.objects.using(store.using).count()


def is_reserved(store: DatabaseBackend) -> bool:
    """Return whether the lock is for those in the queue."""
    return Lock.objects.using(store.using).filter(queued_until__isnull=False).exists()


def held(store: DatabaseBackend, **terms: float) -> Lease:
    """Return a lease on the lock."""
    return acquire(store.alias, NAME, **terms)


@once
@pytest.mark.parametrize("store", ["mariadb"], indirect=True)
def test_processes_take_turns(store: DatabaseBackend) -> None:
    """None starves, though each wants the lock again at once; and there is no deadlock."""
    before, lease = deadlocks(store), held(store)
    with Workers(4, "take_turns", store.alias, NAME, "25") as workers:
        until(lambda: waiters(store) == 4)  # so that all begin together
        assert lease.release()
        tokens = workers.results()
    first_end = min(each[-1] for each in tokens)
    grants = [sum(token <= first_end for token in each) for each in tokens]
    assert min(grants) >= 0.5 * max(grants), grants
    assert deadlocks(store) == before
    assert waiters(store) == 0
    assert held(store).release()


def deadlocks(store: DatabaseBackend) -> int:
    """Return how many deadlocks the server has counted."""
    with connections[store.using].cursor() as cursor:
        cursor.execute("SHOW GLOBAL STATUS LIKE 'Innodb_deadlocks'")
        return int(cursor.fetchone()[1])


@pytest.mark.usefixtures("long_lives")
def test_waiters_are_served_in_order_and_nobody_overtakes_them(store: DatabaseBackend) -> None:
    """Whoever asks first: a newcomer, or a waiter further behind."""
    lease = held(store)
    queued = [Waiter(store) for _ in range(3)]
    assert not any(waiter.attempt() for waiter in queued)
    assert lease.release()
    while queued:
        first, *others = queued
        assert acquire_lock(NAME, backend=store.alias) is None
        assert not any(other.attempt() for other in others)
        assert first.attempt()
        first.leave(granted=True)
        assert not any(other.attempt() for other in others)
        assert first.release()
        queued = others
    assert waiters(store) == 0
    assert held(store).release()


@pytest.mark.usefixtures("long_lives")
def test_lock_is_for_those_in_the_queue_until_the_last_one_leaves(store: DatabaseBackend) -> None:
    """Not when one of them leaves, and not longer."""
    with_lease, first, last = held(store), Waiter(store), Waiter(store)
    assert not first.attempt()
    assert is_reserved(store)
    assert with_lease.release()
    first.leave()
    assert acquire_lock(NAME, backend=store.alias) is None
    last.leave()
    assert not is_reserved(store)
    assert held(store).release()


def test_lock_is_for_anybody_when_the_last_waiter_has_it(store: DatabaseBackend) -> None:
    """At once, not when the reservation is outdated: its lease may be short, or lost."""
    lease, waiter = held(store), Waiter(store)
    assert not waiter.attempt()
    assert lease.release()
    assert waiter.attempt()
    waiter.leave(granted=True)
    assert not is_reserved(store)
    assert waiters(store) == 0
    assert waiter.release()


def test_waiter_that_is_not_seen_is_passed_over(store: DatabaseBackend) -> None:
    """By those behind it after a moment, and by newcomers. If it was only slow, it is first."""
    lease, dead, waiter = held(store), Waiter(store), Waiter(store)
    assert not dead.attempt()
    assert not waiter.attempt()
    assert lease.release()
    until(lambda: bool(waiter.attempt()))
    waiter.leave(granted=True)
    assert waiter.release()
    until(lambda: acquire_lock(NAME, backend=store.alias) is not None)
    dead.leave()


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


@once
def test_killed_process_delays_others_for_a_moment(
    store: DatabaseBackend, threads: ThreadPoolExecutor
) -> None:
    """However many of its threads wait: only the first of them is in the queue."""
    lease = held(store)
    with Workers(1, "wait_in_queue", store.alias, "20", NAME) as dead:
        until(lambda: waiters(store) == 1)
        waits = threads.submit(held, store, timeout=60)
        until(lambda: waiters(store) == 2)
        send_and_wait(dead.processes[0], signal.SIGKILL)
        released = time.monotonic()
        assert lease.release()
        assert waits.result(60).release()
        assert time.monotonic() - released < 20  # on a busy machine


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
