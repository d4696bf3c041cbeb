"""Pauses and PostgreSQL's queue of waiters."""

from __future__ import annotations

from functools import partial
from unittest import mock

import pytest

from django_distlock.backends.database.places import QueuedPlace
from django_distlock.backends.database.postgresql import PostgreSQLStatements
from django_distlock.records import Grant, Refusal
from tests.support.databases import committed, own_statements, statements_sent
from tests.support.holders import acquire
from tests.support.postgresql_waiters import ALIAS, Line, granted, store, wait_by_hand, waiters

pytestmark = [
    committed,
    pytest.mark.once,
    pytest.mark.needs("postgresql"),
    pytest.mark.usefixtures("fresh_listeners"),
]

SEMAPHORE = "1234collectPayment"


@pytest.mark.usefixtures("only_woken")
@pytest.mark.parametrize("seconds", [None, 0.3])
@pytest.mark.parametrize("is_held", [True, False])
def test_waiter_is_woken_at_the_end_of_a_pause(is_held: bool, seconds: float | None) -> None:
    """It need not try by itself; also for a lock that was never granted."""
    lease = acquire(ALIAS) if is_held else None
    with Line() as line:
        store().pause("1234", seconds)
        waiting = line.join()
        if lease is not None:
            assert lease.release()
        if seconds is None:
            assert waiters() == 1
            assert store().resume("1234")
        assert granted(waiting).release()


@pytest.mark.usefixtures("only_woken")
def test_waiter_of_a_paused_lock_is_not_woken_at_each_heartbeat() -> None:
    """A free lock that is paused without an end is not about to be anybody's."""
    place, _, _ = wait_by_hand()
    store().pause("1234")
    statements = own_statements(ALIAS)
    assert isinstance(statements, PostgreSQLStatements)
    [(_, row, semaphore, left)] = statements.heartbeat(1, [place.id or 0])
    assert (row, semaphore, left) == (place.id, SEMAPHORE, None)
    store().leave(place, granted=False)


def test_waiters_of_a_paused_lock_are_not_taken_for_dead() -> None:
    """A release that finds only dead ones removes them, which takes another statement."""
    lease = acquire(ALIAS)
    with Line() as line:
        waiting = line.join()
        store().pause("1234")
        assert len(statements_sent(ALIAS, lease.release)) == 2
        assert waiters() == 1
        assert store().resume("1234")
        assert granted(waiting).release()


@pytest.mark.usefixtures("long_offers", "only_woken")
@pytest.mark.parametrize("is_taken", [False, True])
def test_pause_takes_only_an_offer_back(is_taken: bool) -> None:
    """Once its waiter has taken the lock, it may ask again, as if the answer had been lost."""
    lease = acquire(ALIAS)
    place, owner, woken = wait_by_hand()
    woken.clear()
    assert lease.release()
    assert woken.wait(60)
    ask = partial(store().acquire, SEMAPHORE, owner, 60, "by hand")
    grant = ask() if is_taken else None
    store().pause("1234", reason="deploy")
    again = ask()
    assert bool(again) == is_taken
    assert [lock.holder for lock in store().held()] == ["by hand"] * is_taken
    if isinstance(grant, Grant) and isinstance(again, Grant):
        assert again.token == grant.token
    store().leave(place, granted=is_taken)


@pytest.mark.usefixtures("long_offers", "only_woken")
def test_offer_that_was_not_heard_of_is_not_taken_in_a_pause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """To an attempt, the lock is its owner's, but it was never granted."""
    monkeypatch.setattr(QueuedPlace, "offer", mock.Mock())
    lease = acquire(ALIAS)
    place, owner, _ = wait_by_hand()
    assert lease.release()
    store().pause("1234", reason="deploy")
    refusal = store().acquire(SEMAPHORE, owner, 60, "by hand")
    assert isinstance(refusal, Refusal)
    assert refusal.reason == "paused: deploy"
    store().leave(place, granted=False)
