"""The table of locks after a restart: what is saved, what is reclaimed, and what is granted."""

from __future__ import annotations

import math

import pytest

from django_distlock.records import Released
from django_distlock.server.errors import Refused
from django_distlock.server.locks import LockSnapshot, Session
from tests.support.lock_tables import LATER, World, assert_sound, claim


def test_lease_that_was_gained_by_waiting_is_reclaimed_from_a_new_table() -> None:
    """After a kill, its holder can reclaim it like any other."""
    world = World()
    world.acquire("one")
    world.join("two")
    world.release("one")
    token = world.acquire("two", ttl=30)
    [saved] = world.table.save()
    assert saved == LockSnapshot("1234collectPayment", "two", token, "two's host", LATER, 30)
    world = World(grace=60)
    assert world.table.reclaim(saved)
    assert world.table.save() == [saved._replace(renewed_at=LATER)]
    assert world.acquire("two", ttl=30) == token
    assert world.acquire("three") == 0
    world.let_pass(60)
    assert world.acquire("three") > token


def test_only_reclaimed_locks_are_granted_in_the_grace() -> None:
    """A waiter is offered the lock at the end of the grace, or when a reclaimed lease ends."""
    world = World(grace=10)
    assert world.table.grace == 10
    assert world.table.run_due() == 10
    assert world.table.reclaim(claim("one", 5, remaining=3))
    assert world.table.reclaim(claim("one", 6, "5678collectPayment", remaining=20))
    assert world.join("two") == 10
    assert world.join("two", semaphore="5678collectPayment") == 20
    assert world.join("two", semaphore="9012collectPayment") == 10
    assert world.table.run_due() == 3
    world.let_pass(3)
    assert world.table.run_due() == 7
    assert world.table.remaining("1234collectPayment") == 7
    assert world.queue() == ["two"]
    assert [
        each.semaphore
        for each in world.table.describe(
            ["1234collectPayment", "5678collectPayment", "9012collectPayment"]
        )
    ] == ["5678collectPayment"]
    world.table.clear()
    assert world.release("one", "5678collectPayment") is Released.NOT_HELD
    assert not world.woken
    world.table.leave("9012collectPayment", "two")
    assert sorted(world.table.locks) == ["1234collectPayment", "5678collectPayment"]
    assert_sound(world.table)
    world.let_pass(7)
    assert world.woken == ["two", "two"]
    assert world.table.grace == 0
    assert_sound(world.table)


def test_lock_that_ends_in_the_grace_is_checked_once() -> None:
    """Not repeatedly, while it can't be offered to its waiter."""
    world = World(grace=10)
    world.table.reclaim(claim("one", 5, remaining=3))
    world.join("two")
    world.let_pass(4, unseen=True)
    assert world.table.run_due() == 6
    assert not world.table.schedule.entries


@pytest.mark.parametrize("first", [0, 1])
def test_highest_token_wins_whichever_is_reclaimed_first(first: int) -> None:
    """Of two owners that reclaim it, the one with the lower token has lost it."""
    world = World(grace=60)
    session = Session()
    claims = [claim("lost", 5, remaining=50, acquired_at=3), claim("holds", 6, remaining=20)]
    assert world.table.reclaim(claims[first], session)
    assert world.table.reclaim(claims[1 - first]) is (first == 0)
    [reclaimed] = world.table.save()
    assert reclaimed == claims[1]._replace(renewed_at=LATER)
    assert not world.table.reclaim(claim("late", 6))
    assert not world.table.renew("1234collectPayment", "lost", 60)
    assert set(session.bound) == (set() if first == 0 else {"1234collectPayment"})
    assert_sound(world.table)


def test_nothing_is_reclaimed_after_the_grace() -> None:
    """Another owner may have held it in between, even if it is free."""
    world = World(grace=10)
    world.let_pass(10, unseen=True)
    assert not world.table.reclaim(claim("one", 5))
    assert not World().table.reclaim(claim("one", 5))
    assert len(world.table) == 0


def test_reclaimed_lock_is_one_of_those_that_there_may_be() -> None:
    """Refused is not lost; later tokens of that lock are still greater."""
    world = World(grace=10, max_locks=1)
    assert world.table.reclaim(claim("one", LATER + 10**9))
    assert world.table.last_token == LATER + 10**9
    with pytest.raises(Refused, match="There are 1 locks already"):
        world.table.reclaim(claim("one", LATER + 2 * 10**9, "5678collectPayment"))
    assert world.table.reclaim(claim("two", LATER + 10**9 + 5))
    world.let_pass(30)
    assert world.acquire("one", "5678collectPayment") == LATER + 2 * 10**9 + 1


def test_reclaimed_lease_may_end_with_a_session() -> None:
    """Like any lease; a waiter keeps waiting until the grace ends."""
    world, session = World(grace=10), Session()
    world.join("two")
    assert world.table.reclaim(claim("one", 5), session)
    world.table.end_session(session)
    assert world.queue() == ["two"]
    assert not world.woken
    world.let_pass(10)
    assert world.woken == ["two"]


def test_saved_table_goes_on_where_it_was() -> None:
    """Including ends. Offers aren't saved; kept locks are, without an owner."""
    world = World()
    token = world.acquire("one", ttl=30)
    world.acquire("two", "kept")
    world.release("two", "kept", keep=20)
    world.acquire("three", "ended", ttl=8)
    world.acquire("four", "offered")
    world.join("five", semaphore="offered")
    world.release("four", "offered")
    world.acquire("six", "endless", ttl=math.inf)
    world.acquire("seven", "past", ttl=0.5)
    world.let_pass(0.5, unseen=True)
    assert world.offered("offered") == "five"
    saved, last_token = world.table.save(), world.table.last_token
    assert [(each.semaphore, each.owner, each.remaining) for each in saved] == [
        *(
            ("1234collectPayment", "one", 29.5),
            ("kept", "", 19.5),
            ("ended", "three", 7.5),
            ("endless", "six", math.inf),
        ),
    ]
    world = World(last_token=last_token)
    world.wall -= 10**12
    world.table.load(saved, elapsed=9.5)
    assert sorted(world.table.names()) == ["1234collectPayment", "endless", "kept"]
    assert world.table.run_due() == 10
    assert world.table.save()[0] == saved[0]._replace(remaining=20)
    assert world.acquire("one") == token
    assert world.acquire("two", "kept") == world.acquire("newcomer", "kept") == 0
    assert world.acquire("six", "endless")
    assert world.acquire("newcomer", "ended") == last_token + 1
    world.let_pass(10)
    assert world.acquire("newcomer", "kept") == last_token + 2
    assert_sound(world.table)


def test_tokens_rise_above_those_that_were_saved() -> None:
    """Even if the clock was set back, and the lock has ended."""
    world = World()
    world.table.load([claim("one", LATER + 10**9, remaining=1)], elapsed=5)
    assert len(world.table) == 0
    assert world.acquire("two") == LATER + 10**9 + 1
