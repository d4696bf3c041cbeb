"""The lock table: leases and waits that end with a process's session."""

from __future__ import annotations

from django_distlock.server.locks import Session
from tests.support.lock_tables import World, assert_sound


def test_leases_and_waits_of_a_session_end_with_it() -> None:
    """The next waiters are served; other sessions' leases, and unbound ones, stay."""
    world, dead, other = World(), Session(), Session()
    world.acquire("one", session=dead)
    world.acquire("two", "5678collectPayment", session=other)
    world.acquire("three", "9012collectPayment")
    world.join("four", session=dead)
    world.join("five", session=other)
    for semaphore in ("5678collectPayment", "9012collectPayment"):
        world.join("six", semaphore=semaphore, session=dead)
    world.table.end_session(dead)
    assert world.woken == ["five"]
    assert (world.offered(), world.queue()) == ("five", ["five"])
    assert world.queue("5678collectPayment") == world.queue("9012collectPayment") == []
    assert world.table.renew("5678collectPayment", "two", 60, other)
    assert world.table.renew("9012collectPayment", "three", 60)
    assert (dead.waiting, dead.bound, set(other.bound)) == (set(), {}, {"5678collectPayment"})
    assert_sound(world.table)


def test_ended_session_is_offered_nothing() -> None:
    """Not even a lock that another owner of the session leaves, or held."""
    world, dead = World(), Session()
    world.acquire("one", session=dead)
    world.join(*(f"dead {number}" for number in range(20)), session=dead)
    world.join("alive")
    world.release("one")
    world.table.end_session(dead)
    assert world.woken == ["dead 0", "alive"]
    assert world.queue() == ["alive"]


def test_owner_that_joined_again_in_another_session_outlives_the_first() -> None:
    """As when a process reconnects before its old connection is known to be gone."""
    world, old, new = World(), Session(), Session()
    world.acquire("one")
    world.join("two", session=old)
    world.join("three")
    world.join("two", session=new)
    assert (old.waiting, new.waiting) == (set(), {("1234collectPayment", "two")})
    world.table.end_session(old)
    assert world.queue() == ["two", "three"]
    world.table.end_session(old)
    world.release("one")
    assert world.offered() == "two"
    world.table.end_session(new)
    assert world.offered() == "three"


def test_same_owner_waits_for_two_locks_in_one_session() -> None:
    """A waiter that leaves one queue stays in the other one, until its session ends."""
    world, session = World(), Session()
    for semaphore in ("1234collectPayment", "5678collectPayment"):
        world.acquire("one", semaphore)
        world.join("two", semaphore=semaphore, session=session)
    world.table.leave("1234collectPayment", "two")
    assert (world.queue(), world.queue("5678collectPayment")) == ([], ["two"])
    assert session.waiting == {("5678collectPayment", "two")}
    world.table.end_session(session)
    assert world.queue("5678collectPayment") == []


def test_lease_ends_with_the_session_that_renewed_it_last() -> None:
    """And with none, if it was renewed without one. A later owner's lease is not affected."""
    world, first, second = World(), Session(), Session()
    world.acquire("one", session=first)
    assert world.table.renew("1234collectPayment", "one", 60, second)
    assert (first.bound, set(second.bound)) == ({}, {"1234collectPayment"})
    world.table.end_session(first)
    assert world.table.renew("1234collectPayment", "one", 60)
    world.table.end_session(second)
    assert world.table.renew("1234collectPayment", "one", 60, second)
    world.let_pass(60)
    world.acquire("two")
    world.table.end_session(second)
    assert world.table.renew("1234collectPayment", "two", 60)


def test_lease_gained_by_waiting_ends_with_its_session() -> None:
    """An offer is not bound yet, but ends with its waiter's session."""
    world, session = World(), Session()
    world.join("one", session=session)
    assert session.bound == {}
    assert world.acquire("one", session=session)
    assert (set(session.bound), session.waiting) == ({"1234collectPayment"}, set())
    world.table.end_session(session)
    assert len(world.table) == 0


def test_lock_that_leaves_its_session_while_that_ends_is_not_freed_twice() -> None:
    """A waiter that is woken for one of its locks may acquire another one in its own session."""
    world, dead, other = World(), Session(), Session()
    world.acquire("one", session=dead)
    world.acquire("two", "5678collectPayment", session=dead)

    def rebind() -> None:
        assert world.table.renew("5678collectPayment", "two", 60, other)

    world.table.join("1234collectPayment", "three", "host", rebind)
    world.table.end_session(dead)
    assert world.table.renew("5678collectPayment", "two", 60, other)
