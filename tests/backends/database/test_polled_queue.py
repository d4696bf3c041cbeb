"""Waiting on MySQL's family and SQLite: first come, first served, though nobody is notified."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

import pytest
from django.db import connections

from django_distlock import acquire_lock
from tests.support.concurrency import until
from tests.support.databases import committed
from tests.support.polled_waiters import (
    MARIADB,
    NAME,
    SQLITE,
    Waiter,
    deadlocks,
    held,
    is_reserved,
    waiters,
)
from tests.support.processes import Workers, send_and_wait

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

    from django_distlock.backends.database import DatabaseBackend


once = pytest.mark.once
pytestmark = committed


@once
@pytest.mark.parametrize("store", [MARIADB, SQLITE], indirect=True)
def test_processes_take_turns(store: DatabaseBackend) -> None:
    """None starves, though each wants the lock again at once; and there is no deadlock."""
    before, lease = deadlocks(store), held(store)
    with Workers(3, "take_turns", store.alias, NAME, "15") as workers:
        until(lambda: waiters(store) == 3)  # so that all begin together
        assert lease.release()
        tokens = workers.results()
    first_end = min(each[-1] for each in tokens)
    grants = [sum(token <= first_end for token in each) for each in tokens]
    assert min(grants) >= 0.5 * max(grants), grants
    assert deadlocks(store) == before
    assert waiters(store) == 0
    assert held(store).release()


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


@once
def test_killed_process_delays_others_for_a_moment(
    store: DatabaseBackend, threads: ThreadPoolExecutor
) -> None:
    """However many of its threads wait: only the first of them is in the queue."""

    def take() -> None:
        try:
            assert held(store, timeout=60).release()
        finally:
            connections.close_all()

    lease = held(store)
    with Workers(1, "wait_in_queue", store.alias, "20", NAME) as dead:
        until(lambda: waiters(store) == 1)
        waits = threads.submit(take)
        until(lambda: waiters(store) == 2)
        send_and_wait(dead.processes[0], signal.SIGKILL)
        released = time.monotonic()
        assert lease.release()
        waits.result(60)
        assert time.monotonic() - released < 20  # on a busy machine
