"""The lock table: pauses, in which nothing is granted and nobody is offered a lock."""

from __future__ import annotations

import math

import pytest

from django_distlock.records import Released
from django_distlock.server.errors import Refused
from django_distlock.server.locks import LockDescription, Session
from django_distlock.server.page_search import PageSearch
from django_distlock.server.pauses import PauseSnapshot
from django_distlock.server.transitions import OFFER_SECONDS
from tests.support.lock_tables import LATER, World, assert_sound, claim


def pause(world: World, prefix: str = "1234", seconds: float = 60) -> None:
    """Pause what begins with the prefix."""
    world.table.pause(prefix, seconds, "deploy", "root")


def test_waiters_are_offered_the_lock_in_turn_when_the_pause_ends() -> None:
    """The table says when to look after it; nobody who comes just then overtakes them."""
    world = World()
    world.acquire("one")
    world.join("two", "three")
    pause(world, seconds=10)
    assert world.release("one") is Released.FREED
    assert world.acquire("two") == world.acquire("newcomer") == 0
    assert world.queue() == ["two", "three"]
    assert world.table.run_due() == 10
    assert_sound(world.table)
    world.let_pass(9)
    assert not world.woken
    world.let_pass(1, unseen=True)
    assert world.acquire("newcomer") == 0
    assert world.woken == ["two"]
    assert world.table.run_due() == OFFER_SECONDS
    assert world.acquire("two")


def test_resumption_offers_what_is_waited_for() -> None:
    """Each lock to its own waiters, unless another pause keeps it back."""
    world = World()
    for semaphore in ("1234collectPayment", "1234refund"):
        world.acquire("one", semaphore)
        world.join(f"for {semaphore}", semaphore=semaphore)
    pause(world)
    pause(world, "1234r")
    for semaphore in ("1234collectPayment", "1234refund"):
        world.release("one", semaphore)
    assert world.table.resume("1234")
    assert not world.table.resume("1234")
    assert world.woken == ["for 1234collectPayment"]
    assert world.table.resume("1234r")
    assert world.woken[1:] == ["for 1234refund"]


def test_offer_that_was_not_taken_is_withdrawn() -> None:
    """The process of its waiter did not let it pass: it is the first to be offered it again."""
    world, session = World(), Session()
    world.acquire("one")
    world.join("two", session=session)
    world.join("three")
    world.release("one")
    assert world.offered() == "two"
    pause(world)
    assert world.acquire("two", session=session) == 0
    world.let_pass(2 * OFFER_SECONDS)
    assert not session.unresponsive
    world.table.resume("1234")
    assert world.offered() == "two"
    assert world.queue() == ["two", "three"]
    assert world.acquire("two", session=session)
    assert_sound(world.table)


def test_free_lock_that_is_paused_can_be_waited_for() -> None:
    """The waiter learns when to try again; when it leaves, nothing of the lock remains."""
    world, session = World(), Session()
    pause(world, seconds=10)
    assert world.join("one") == 10
    assert world.table.remaining("1234collectPayment") == 10
    pause(world, seconds=math.inf)
    assert world.join("two", session=session) == math.inf
    assert world.table.remaining("1234collectPayment") == math.inf
    assert world.table.describe(["1234collectPayment"]) == []
    assert world.table.save() == []
    world.table.end_session(session)
    assert world.queue() == ["one"]
    world.table.leave("1234collectPayment", "one")
    assert len(world.table) == 0


def test_refusal_tells_what_is_in_the_way() -> None:
    """A holder first; then the pause that ends last; nothing, if the lock is free by now."""
    world = World()
    token = world.acquire("one", ttl=10)
    pause(world, "1", 20)
    pause(world, "12", 30)
    pause(world, "123", 25)
    assert world.table.refusal("1234collectPayment") == LockDescription(
        "1234collectPayment", token, "one's host", LATER, 10, 0, kept=False, waiting=0
    )
    world.let_pass(10)
    assert world.table.refusal("1234collectPayment") == PauseSnapshot(
        "12", LATER, 20, "deploy", "root"
    )
    world.let_pass(20)
    assert world.table.refusal("1234collectPayment") is None


def test_pauses_are_bounded() -> None:
    """A pause can be replaced all the same, and one that has ended makes room."""
    world = World(max_pauses=2)
    pause(world, "1", 10)
    pause(world, "2")
    with pytest.raises(Refused, match="There are 2 pauses already"):
        pause(world, "3")
    pause(world, "2", 20)
    assert [each.prefix for each in world.table.pauses_in_force()] == ["1", "2"]
    world.let_pass(10, unseen=True)
    assert [each.remaining for each in world.table.pauses_in_force()] == [10]
    pause(world, "3")
    assert world.table.resume("1") is False


def test_lease_can_be_reclaimed_in_a_pause() -> None:
    """After a crash; it is nothing new."""
    world = World(grace=10)
    pause(world)
    assert world.table.reclaim(claim("one", 5, remaining=30))
    world.let_pass(20)
    assert world.table.renew("1234collectPayment", "one", 30)
    assert world.acquire("two", "1234refund") == 0


def test_saved_pauses_go_on_where_they_were() -> None:
    """Without those that have ended since."""
    world = World()
    pause(world, "1", 5)
    pause(world, "12", 20)
    pause(world, "", math.inf)
    saved = world.table.pauses_in_force()
    world = World()
    world.table.load_pauses(saved, elapsed=6)
    assert [(each.prefix, each.remaining) for each in world.table.pauses_in_force()] == [
        ("", math.inf),
        ("12", 14),
    ]
    assert world.acquire("one", "5678collectPayment") == 0
    world.table.resume("")
    assert world.acquire("one", "5678collectPayment")
    assert world.table.run_due() == 14


def test_what_is_only_waited_for_is_not_listed() -> None:
    """Nor does it count towards a limit."""
    world = World()
    pause(world, "1234c")
    world.join("one")
    world.acquire("two", "1234refund")
    assert world.table.names("1234") == ["1234refund"]
    search = PageSearch(world.table, "1234", "", 1)
    assert not search.look_on()
    assert (len(search), search.is_capped) == (1, False)
