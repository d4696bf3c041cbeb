"""The lock table: queues of waiters, and whose turn it is."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest

from django_distlock.records import Released
from django_distlock.server.errors import Refused
from django_distlock.server.locks import Session
from django_distlock.server.transitions import OFFER_SECONDS
from tests.support.lock_tables import World, assert_sound, let_release

if TYPE_CHECKING:
    from collections.abc import Callable


def test_waiters_are_served_in_order() -> None:
    """Each is woken once, at its turn; nobody else gets the lock before that."""
    world = World()
    tokens = [world.acquire("one")]
    assert world.join("two", "three", "four") == 60
    assert len(world.table.waiters) == 3
    for earlier, owner in (("one", "two"), ("two", "three"), ("three", "four")):
        assert world.acquire("newcomer") == 0
        assert world.release(earlier) is Released.HANDED_OVER
        assert world.woken[-1] == owner
        assert world.acquire("newcomer") == 0
        tokens.append(world.acquire(owner))
    assert world.woken == ["two", "three", "four"]
    assert tokens == sorted(set(tokens))
    assert world.release("four") is Released.FREED
    assert len(world.table.waiters) == len(world.table) == 0


def test_free_lock_is_offered_to_a_waiter_that_joins() -> None:
    """At once; it is offered again as long as the waiter neither acquires it nor leaves."""
    world = World()
    assert world.join("one") == OFFER_SECONDS
    assert world.woken == ["one"]
    assert world.acquire("newcomer") == 0
    world.let_pass(OFFER_SECONDS)
    assert world.woken == ["one", "one"]
    world.table.leave("1234collectPayment", "one")
    assert world.acquire("newcomer")


def test_waiter_that_joins_again_keeps_its_place() -> None:
    """And is woken once more if it is its turn, since it may have missed that."""
    world = World(max_waiters=2)
    world.acquire("one")
    world.join("two", "three", "two")
    assert world.queue() == ["two", "three"]
    world.release("one")
    world.let_pass(0.25)
    assert world.join("two") == 0.75
    assert world.woken == ["two", "two"]
    assert world.acquire("two")
    assert world.queue() == ["three"]


def test_number_of_waiters_for_one_lock_is_limited() -> None:
    """One more is refused, not answered "held"; other locks have their own limit."""
    world = World(max_waiters=1)
    world.acquire("one")
    world.join("two")
    with pytest.raises(Refused, match="1 wait for '1234collectPayment' already"):
        world.join("three")
    world.join("three", semaphore="5678collectPayment")
    assert world.queue() == ["two"]
    world.table.leave("1234collectPayment", "two")
    world.join("three")
    assert world.queue() == ["three"]


def test_leave_without_join_changes_nothing() -> None:
    """Nor does another owner's leave while the lock is held."""
    world = World()
    world.table.leave("1234collectPayment", "one")
    world.acquire("one", ttl=10)
    world.table.leave("1234collectPayment", "two")
    world.table.leave("1234collectPayment", "one")
    assert world.acquire("two") == 0
    world.let_pass(10, unseen=True)
    world.table.leave("1234collectPayment", "two")
    assert len(world.table) == 0


def test_waiter_that_releases_an_offer_leaves_the_queue() -> None:
    """As after a lost reply: the next waiter is offered the lock."""
    world = World()
    world.acquire("one")
    world.join("two", "three")
    world.release("one")
    assert world.release("two") is Released.HANDED_OVER
    assert world.queue() == ["three"]
    assert world.woken == ["two", "three"]


def expire(world: World) -> None:
    """Expire the lease, without running due work."""
    world.let_pass(60, unseen=True)


def take_by_force(world: World) -> None:
    """Force-release the lock."""
    world.table.force_release("1234collectPayment", world.lock().token)


def offer_and_leave(world: World) -> None:
    """Offer the lock to an earlier waiter, which then leaves."""
    queue = world.lock().queue
    assert queue is not None
    world.join("zero")
    queue.move_to_end("zero", last=False)
    world.release("one")
    assert world.woken.pop() == "zero"
    world.table.leave("1234collectPayment", "zero")


def end_holders_session(world: World) -> None:
    """End the session of the holder."""
    session = Session()
    world.table.renew("1234collectPayment", "one", 60, session)
    world.table.end_session(session)


def clear_all(world: World) -> None:
    """Clear the table."""
    world.table.clear()


@pytest.mark.parametrize(
    "end",
    [let_release, expire, take_by_force, offer_and_leave, end_holders_session, clear_all],
)
@pytest.mark.parametrize("max_locks", [math.inf, 1])
def test_newcomer_never_overtakes_a_waiter(end: Callable[[World], None], max_locks: float) -> None:
    """However the lease ended: it is offered to the first waiter, and then to the next."""
    world = World(max_locks=max_locks)
    token = world.acquire("one")
    world.join("two", "three")
    end(world)
    assert world.acquire("newcomer") == 0
    assert world.woken == ["two"]
    world.let_pass(OFFER_SECONDS, unseen=True)
    assert world.acquire("newcomer") == 0
    assert world.woken == ["two", "three"]
    assert world.acquire("three") > token
    assert_sound(world.table)


def test_newcomer_does_not_overtake_at_the_very_end_of_the_grace() -> None:
    """Even if its end has not been processed yet; the lock was free all the time."""
    world = World(grace=10, max_locks=1)
    assert world.join("one", "two") == 10
    with pytest.raises(Refused):
        world.acquire("newcomer")
    world.let_pass(10, unseen=True)
    assert world.acquire("newcomer") == 0
    assert world.woken == ["one"]
    assert world.acquire("one")


def test_refused_try_forgets_no_waiters_place() -> None:
    """In the grace, and at the limit of locks."""
    world = World(grace=10, max_locks=2)
    world.join("one", "two")
    world.join("one", "two", semaphore="5678collectPayment")
    for owner in ("one", "two"):
        with pytest.raises(Refused, match=r"until all earlier leases .* 10.0 s more"):
            world.acquire(owner)
        with pytest.raises(Refused, match="until all earlier leases"):
            world.acquire(owner, "9012collectPayment")
    assert world.queue() == ["one", "two"]
    world.let_pass(10)
    with pytest.raises(Refused, match="There are 2 locks already"):
        world.acquire("one", "9012collectPayment")
    assert world.queue() == ["one", "two"]
    assert world.acquire("one")
    assert world.release("one") is Released.HANDED_OVER
    assert world.acquire("two")


def test_waiter_that_missed_an_offer_comes_after_responsive_ones() -> None:
    """Two of them keep their order; without other waiters they are offered the lock again."""
    world = World()
    world.acquire("one")
    world.join("two", "three", "four")
    world.release("one")
    world.let_pass(OFFER_SECONDS)
    world.let_pass(OFFER_SECONDS)
    assert world.woken == ["two", "three", "four"]
    assert world.queue() == ["two", "three", "four"]
    assert world.acquire("four")
    assert world.release("four") is Released.HANDED_OVER
    assert world.woken[3:] == ["two"]
    world.let_pass(OFFER_SECONDS)
    assert world.woken[3:] == ["two", "two"]
    assert world.queue() == ["two", "three"]


@pytest.mark.parametrize("how", ["acquire", "join"])
def test_responsive_waiter_that_missed_an_offer_keeps_its_place(how: str) -> None:
    """It was only late: later waiters stay behind it."""
    world, session = World(), Session()
    world.acquire("one")
    world.join("two", session=session)
    world.join("three", "four")
    world.release("one")
    world.let_pass(OFFER_SECONDS)
    assert (session.unresponsive, world.offered()) == (True, "three")
    if how == "join":
        world.join("two", session=session)
    else:
        assert world.acquire("two") == 0
    assert not session.unresponsive
    world.acquire("three")
    world.release("three")
    assert world.offered() == "two"
    world.release("two")
    assert world.offered() == "four"


def test_unresponsive_session_costs_the_others_one_offer() -> None:
    """Not one for each of its waiters, nor for each lock."""
    world, dead = World(), Session()
    for semaphore in ("1234collectPayment", "5678collectPayment"):
        world.acquire("one", semaphore)
        world.join(*(f"dead {number}" for number in range(50)), semaphore=semaphore, session=dead)
        world.join("alive", semaphore=semaphore)
    world.release("one")
    world.let_pass(OFFER_SECONDS)
    assert world.woken == ["dead 0", "alive"]
    world.release("one", "5678collectPayment")
    assert world.woken == ["dead 0", "alive", "alive"]
    world.join("dead 7", session=dead)
    world.release("alive")
    assert world.woken[3:] == ["dead 0"]


def test_offer_that_was_released_or_cleared_does_not_count_as_missed() -> None:
    """Only a session that let an offer expire comes after the others."""
    world, session = World(), Session()
    world.acquire("one")
    world.join("two", "three", session=session)
    world.join("four")
    world.release("one")
    world.table.leave("1234collectPayment", "two")
    assert not session.unresponsive
    assert world.offered() == "three"
    assert world.table.force_release("1234collectPayment", world.lock().token)
    assert world.offered() == "three"
    world.let_pass(OFFER_SECONDS, unseen=True)
    world.table.leave("1234collectPayment", "three")
    assert not session.unresponsive
    assert world.offered() == "four"


def test_waiter_that_is_gone_is_passed_over_at_once() -> None:
    """As when its event loop is closed: the next waiter is offered the lock, or it is free."""
    world = World()
    world.acquire("one")
    world.join("two", "three", "four", "five")
    world.away = {"two", "three"}
    assert world.release("one") is Released.HANDED_OVER
    assert world.woken == ["two", "three", "four"]
    assert world.queue() == ["four", "five"]
    world.away |= {"five"}
    assert world.release("four") is Released.FREED
    assert len(world.table) == 0
    assert world.join("five") == 0
    assert len(world.table) == 0
    assert world.acquire("six")
