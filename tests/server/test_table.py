"""The table of locks: who has which, who waits, and what becomes of both as time passes."""

from __future__ import annotations

import math
import sys
import tracemalloc
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from django_distlock.server import table as tables
from django_distlock.server.table import (
    GONE,
    OFFER,
    SLACK,
    Described,
    Lock,
    LockTable,
    Party,
    Refused,
    Release,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LATER = 1_700_000_000_000_000


class World:
    """A table whose time passes when it is told to, and who was woken."""

    def __init__(self, *, grace: float = 0, **options: Any) -> None:
        self.now = 1000.0
        self.wall = LATER
        self.woken: list[str] = []
        self.away: set[str] = set()
        self.table = LockTable(
            grants_from=self.now + grace if grace else GONE,
            monotonic=lambda: self.now,
            microseconds=lambda: self.wall,
            **options,
        )

    def let_pass(self, seconds: float, *, unseen: bool = False) -> None:
        """Let time pass, and the table be looked after, unless it is not for now."""
        self.now += seconds
        self.wall += round(seconds * 1_000_000)
        if not unseen:
            self.table.run_due()

    def acquire(
        self, owner: str, semaphore: str = "a", ttl: float = 60, party: Party | None = None
    ) -> int:
        """Return the token, 0 if somebody else has it."""
        lock = self.table.acquire(semaphore, owner, ttl, f"{owner}'s host", party)
        return lock.token if lock else 0

    def join(self, *owners: str, semaphore: str = "a", party: Party | None = None) -> float:
        """Let them wait, one after the other."""
        left = 0.0
        for owner in owners:
            left = self.table.join(semaphore, owner, "host", partial(self.wake, owner), party)
        return left

    def wake(self, owner: str) -> bool:
        """Note that he was woken; False if he isn't there any more."""
        self.woken.append(owner)
        return owner not in self.away

    def release(self, owner: str, semaphore: str = "a", keep: float = 0) -> Release:
        """Let him give it back."""
        return self.table.release(semaphore, owner, keep)

    def lock(self, semaphore: str = "a") -> Lock:
        """Return the lock, which must be in the table."""
        return self.table._locks[semaphore]

    def queue(self, semaphore: str = "a") -> list[str]:
        """Return who waits, in order."""
        return list(self.lock(semaphore).queue or ())

    def offered(self, semaphore: str = "a") -> str:
        """Return to whom it is offered, if it is."""
        lock = self.table._locks.get(semaphore)
        return lock.owner if lock and lock.offered and lock.ends > self.now else ""


def claim(
    owner: str, token: int, semaphore: str = "a", left: float = 30, acquired_at: int = 7
) -> Described:
    """Return what a holder says of its lease."""
    return Described(semaphore, owner, token, f"{owner}'s host", acquired_at, left)


def assert_sound(table: LockTable) -> None:
    """Fail if what belongs together doesn't agree."""
    now = table._monotonic()
    for semaphore, lock in table._locks.items():
        assert lock.semaphore == semaphore
        assert lock.ends > GONE or (lock.queue and table.grace), "neither taken nor waited for"
        waiters = dict(lock.queue or {})
        assert not lock.offered or lock.owner in waiters
        for owner, waiter in waiters.items():
            assert waiter.owner == owner
            assert (semaphore, owner) in waiter.party.waiting
        if lock.party is not None:
            assert lock.party.bound[semaphore] is lock
        if GONE < lock.ends < math.inf:
            assert lock.due <= lock.ends
            assert (lock.due, semaphore) in table._due
    for due, semaphore in table._due:
        assert due > GONE
        assert semaphore
    assert len(table._due) <= 2 * len(table._locks) + SLACK
    assert now == table._monotonic()


# Who has the lock


def test_held_lock_is_nobody_elses_and_its_owner_gets_it_again() -> None:
    """With the same token, and for its ttl from then on."""
    world = World()
    token = world.acquire("one", ttl=10)
    assert token == LATER
    assert world.acquire("two") == 0
    world.let_pass(9)
    assert world.acquire("one", ttl=10) == token
    world.let_pass(9)
    assert world.acquire("two") == 0
    assert len(world.table) == 1


def test_only_the_owner_renews_and_releases() -> None:
    """A stranger changes nothing, nor does who has lost it, before and after it is another's."""
    world = World()
    assert not world.table.renew("a", "one", 60)
    assert world.release("one") is Release.LOST
    world.acquire("one", ttl=10)
    assert not world.table.renew("a", "two", 60)
    assert world.release("two") is Release.LOST
    assert world.table.renew("a", "one", 20)
    assert world.table.left("a") == 20
    world.let_pass(20, unseen=True)
    assert not world.table.renew("a", "one", 60)
    assert world.release("one") is Release.LOST
    assert world.acquire("two")
    assert not world.table.renew("a", "one", 60)
    assert world.release("one") is Release.LOST
    assert world.acquire("three") == 0
    assert world.release("two") is Release.RELEASED
    assert len(world.table) == 0


def test_lease_ends_after_its_ttl_with_nobodys_help() -> None:
    """Not a moment earlier; one without an end doesn't."""
    world = World()
    world.acquire("one", ttl=10)
    world.acquire("one", "b", ttl=math.inf)
    world.let_pass(9.5, unseen=True)
    assert world.acquire("two") == 0
    world.let_pass(0.5, unseen=True)
    assert world.acquire("two")
    world.let_pass(1e9)
    assert world.acquire("two", "b") == 0
    assert world.table.left("b") == math.inf
    assert world.table.left("a") == 0
    assert world.release("one", "b") is Release.RELEASED


def test_table_says_when_to_look_after_it_again() -> None:
    """When the next lease ends, as far as it knows; never, if there is none."""
    world = World()
    assert world.table.run_due() == math.inf
    world.acquire("one", ttl=10)
    world.acquire("one", "b", ttl=5)
    assert world.table.run_due() == 5
    world.table.renew("b", "one", 20)
    assert world.table.run_due() == 5
    world.let_pass(5)
    assert world.table.run_due() == 5
    world.let_pass(5)
    assert len(world.table) == 1
    assert world.table.run_due() == 10


def test_kept_lock_is_nobodys_until_its_time_has_passed() -> None:
    """Who released it can't renew it, and who waits comes then."""
    world = World()
    token = world.acquire("one")
    world.join("two")
    assert world.release("one", keep=10) is Release.RELEASED
    assert not world.table.renew("a", "one", 60)
    assert world.release("one") is Release.LOST
    assert world.acquire("one") == world.acquire("three") == 0
    assert [(each.owner, each.left) for each in world.table.describe(["a"])] == [("", 10)]
    world.let_pass(9)
    assert not world.woken
    world.let_pass(1)
    assert world.woken == ["two"]
    assert world.acquire("two") > token


def test_force_release_takes_it_from_the_holder_of_this_token_only() -> None:
    """Not from its successor, nor from nobody."""
    world = World()
    assert not world.table.force_release("a", 0)
    token = world.acquire("one")
    assert not world.table.force_release("a", token + 1)
    assert world.table.force_release("a", token)
    assert world.release("one") is Release.LOST
    assert not world.table.force_release("a", token)
    world.acquire("two", ttl=10)
    assert not world.table.force_release("a", token)
    world.let_pass(10, unseen=True)
    assert not world.table.force_release("a", world.table.last_token)
    assert len(world.table) == 0


def test_tokens_rise_though_the_clock_steps_back() -> None:
    """Or stands still: each is greater than all before, whichever lock it is of."""
    world = World()
    tokens = [world.acquire("one")]
    for step in (0, -5_000_000, 1_000_000, 3, 5_000_000):
        world.wall += step
        world.release("one")
        tokens.append(world.acquire("one"))
        tokens.append(world.acquire(f"for {step}", f"b {step}"))
    assert tokens == sorted(set(tokens))
    assert tokens[-2] == world.wall
    assert world.table.last_token == tokens[-1]


def test_locks_are_described_by_their_names() -> None:
    """With all that is known of them; those that have ended are left out."""
    world = World()
    token = world.acquire("one", "ab", ttl=60)
    world.acquire("one", "ac", ttl=5)
    world.acquire("one", "b")
    world.let_pass(5, unseen=True)
    assert sorted(world.table.names("a")) == ["ab", "ac"]
    assert sorted(world.table.names()) == ["ab", "ac", "b"]
    assert world.table.describe(["ab", "ac", "never"]) == [
        Described("ab", "one", token, "one's host", LATER, 55)
    ]


def test_most_locks_that_there_may_be_are_no_reason_to_lose_one() -> None:
    """More are refused, and not told to be held; who has one gets it again, renews and returns."""
    world = World(max_locks=2)
    token = world.acquire("one")
    world.acquire("one", "b", ttl=10)
    with pytest.raises(Refused, match="There are 2 locks already"):
        world.acquire("one", "c")
    with pytest.raises(Refused, match="There are 2 locks already"):
        world.join("one", semaphore="c")
    assert world.acquire("one") == token
    assert world.acquire("two") == 0
    world.let_pass(10, unseen=True)
    assert world.acquire("one", "c")


def test_clear_takes_all_locks_from_their_holders() -> None:
    """Who waits is next, and keeps what he was offered before; what was kept is free, too."""
    world = World()
    world.acquire("one")
    world.join("two", "three")
    world.acquire("one", "b")
    world.join("four", semaphore="b")
    world.release("one", "b")
    world.acquire("one", "c")
    world.release("one", "c", keep=60)
    world.acquire("one", "d", ttl=1)
    world.let_pass(0.5)
    world.table.clear()
    assert world.woken == ["four", "two"]
    assert (world.offered(), world.offered("b")) == ("two", "four")
    assert sorted(world.table.names()) == ["a", "b", "d"][:2]
    assert world.release("one") is Release.LOST
    assert_sound(world.table)


# Who waits


def test_who_waits_is_served_in_order() -> None:
    """Each is woken when it is his turn, once; nobody else gets the lock meanwhile."""
    world = World()
    tokens = [world.acquire("one")]
    assert world.join("two", "three", "four") == 60
    assert world.table.waiters == 3
    for earlier, owner in (("one", "two"), ("two", "three"), ("three", "four")):
        assert world.acquire("newcomer") == 0
        assert world.release(earlier) is Release.HANDED_OVER
        assert world.woken[-1] == owner
        assert world.acquire("newcomer") == 0
        tokens.append(world.acquire(owner))
    assert world.woken == ["two", "three", "four"]
    assert tokens == sorted(set(tokens))
    assert world.release("four") is Release.RELEASED
    assert world.table.waiters == len(world.table) == 0


def test_lock_that_is_free_is_offered_to_who_joins() -> None:
    """At once; it is free again if he doesn't come, and he is offered it again as he waits on."""
    world = World()
    assert world.join("one") == OFFER
    assert world.woken == ["one"]
    assert world.acquire("newcomer") == 0
    world.let_pass(OFFER)
    assert world.woken == ["one", "one"]
    world.table.leave("a", "one")
    assert world.acquire("newcomer")


def test_who_joins_again_keeps_his_place() -> None:
    """And is woken once more if it is his turn, since he may not have heard of it."""
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


def test_so_many_may_wait_for_one_lock() -> None:
    """Who is one too many is told so, rather than that it is held; another lock has its own."""
    world = World(max_waiters=1)
    world.acquire("one")
    world.join("two")
    with pytest.raises(Refused, match="1 wait for 'a' already"):
        world.join("three")
    world.join("three", semaphore="b")
    assert world.queue() == ["two"]
    world.table.leave("a", "two")
    world.join("three")
    assert world.queue() == ["three"]


def test_who_waits_for_nothing_and_leaves_changes_nothing() -> None:
    """Nor does a stranger, while somebody holds it."""
    world = World()
    world.table.leave("a", "one")
    world.acquire("one", ttl=10)
    world.table.leave("a", "two")
    world.table.leave("a", "one")
    assert world.acquire("two") == 0
    world.let_pass(10, unseen=True)
    world.table.leave("a", "two")
    assert len(world.table) == 0


def test_who_gives_back_what_he_was_offered_waits_no_more() -> None:
    """As one whose reply got lost does: it is the next one's."""
    world = World()
    world.acquire("one")
    world.join("two", "three")
    world.release("one")
    assert world.release("two") is Release.HANDED_OVER
    assert world.queue() == ["three"]
    assert world.woken == ["two", "three"]


def let_release(world: World) -> None:
    """Let the holder give it back."""
    world.release("one")


def let_expire(world: World) -> None:
    """Let the lease end, without that anybody notes."""
    world.let_pass(60, unseen=True)


def let_force_release(world: World) -> None:
    """Let an operator take it away."""
    world.table.force_release("a", world.lock().token)


def let_leave(world: World) -> None:
    """Let somebody who is before them be offered it, and leave."""
    queue = world.lock().queue
    assert queue is not None
    world.join("zero")
    queue.move_to_end("zero", last=False)
    world.release("one")
    assert world.woken.pop() == "zero"
    world.table.leave("a", "zero")


def let_disband(world: World) -> None:
    """Let the holder's process end."""
    party = Party()
    world.table.renew("a", "one", 60, party)
    world.table.disband(party)


def let_clear(world: World) -> None:
    """Take all away."""
    world.table.clear()


@pytest.mark.parametrize(
    "let_end", [let_release, let_expire, let_force_release, let_leave, let_disband, let_clear]
)
@pytest.mark.parametrize("max_locks", [math.inf, 1])
def test_newcomer_never_overtakes_who_waits(
    let_end: Callable[[World], None], max_locks: float
) -> None:
    """However the lease ended: it is offered to the first, and to the next if he doesn't come."""
    world = World(max_locks=max_locks)
    token = world.acquire("one")
    world.join("two", "three")
    let_end(world)
    assert world.acquire("newcomer") == 0
    assert world.woken == ["two"]
    world.let_pass(OFFER, unseen=True)
    assert world.acquire("newcomer") == 0
    assert world.woken == ["two", "three"]
    assert world.acquire("three") > token
    assert_sound(world.table)


def test_newcomer_does_not_overtake_at_the_very_end_of_the_grace() -> None:
    """Though nobody has noted yet that it is over; the lock was free all the time."""
    world = World(grace=10, max_locks=1)
    assert world.join("one", "two") == 10
    with pytest.raises(Refused):
        world.acquire("newcomer")
    world.let_pass(10, unseen=True)
    assert world.acquire("newcomer") == 0
    assert world.woken == ["one"]
    assert world.acquire("one")


def test_refused_try_forgets_no_waiters_place() -> None:
    """In the grace, and where there are as many locks as may be."""
    world = World(grace=10, max_locks=2)
    world.join("one", "two")
    world.join("one", "two", semaphore="b")
    for owner in ("one", "two"):
        with pytest.raises(Refused, match=r"until all leases of then .* 10.0 s more"):
            world.acquire(owner)
        with pytest.raises(Refused, match="until all leases of then"):
            world.acquire(owner, "c")
    assert world.queue() == ["one", "two"]
    world.let_pass(10)
    with pytest.raises(Refused, match="There are 2 locks already"):
        world.acquire("one", "c")
    assert world.queue() == ["one", "two"]
    assert world.acquire("one")
    assert world.release("one") is Release.HANDED_OVER
    assert world.acquire("two")


def test_who_missed_an_offer_comes_after_those_who_are_heard_of() -> None:
    """Two who did so keep their order; where nobody else waits, they are offered it again."""
    world = World()
    world.acquire("one")
    world.join("two", "three", "four")
    world.release("one")
    world.let_pass(OFFER)
    world.let_pass(OFFER)
    assert world.woken == ["two", "three", "four"]
    assert world.queue() == ["two", "three", "four"]
    assert world.acquire("four")
    assert world.release("four") is Release.HANDED_OVER
    assert world.woken[3:] == ["two"]
    world.let_pass(OFFER)
    assert world.woken[3:] == ["two", "two"]
    assert world.queue() == ["two", "three"]


@pytest.mark.parametrize("how", ["acquire", "join"])
def test_who_missed_an_offer_and_is_heard_of_keeps_his_place(how: str) -> None:
    """He was late only: whoever came after him is still behind him."""
    world, party = World(), Party()
    world.acquire("one")
    world.join("two", party=party)
    world.join("three", "four")
    world.release("one")
    world.let_pass(OFFER)
    assert (party.silent, world.offered()) == (True, "three")
    if how == "join":
        world.join("two", party=party)
    else:
        assert world.acquire("two") == 0
    assert not party.silent
    world.acquire("three")
    world.release("three")
    assert world.offered() == "two"
    world.release("two")
    assert world.offered() == "four"


def test_silent_party_costs_the_others_one_offer() -> None:
    """Not one for each that waits there, however many, or for however many locks."""
    world, dead = World(), Party()
    for semaphore in ("a", "b"):
        world.acquire("one", semaphore)
        world.join(*(f"dead {number}" for number in range(50)), semaphore=semaphore, party=dead)
        world.join("alive", semaphore=semaphore)
    world.release("one")
    world.let_pass(OFFER)
    assert world.woken == ["dead 0", "alive"]
    world.release("one", "b")
    assert world.woken == ["dead 0", "alive", "alive"]
    world.join("dead 7", party=dead)
    world.release("alive")
    assert world.woken[3:] == ["dead 0"]


def test_offer_that_is_given_back_or_taken_away_is_no_silence() -> None:
    """Only who let it pass is asked after the others."""
    world, party = World(), Party()
    world.acquire("one")
    world.join("two", "three", party=party)
    world.join("four")
    world.release("one")
    world.table.leave("a", "two")
    assert not party.silent
    assert world.offered() == "three"
    assert world.table.force_release("a", world.lock().token)
    assert world.offered() == "three"
    world.let_pass(OFFER, unseen=True)
    world.table.leave("a", "three")
    assert not party.silent
    assert world.offered() == "four"


def test_who_is_not_there_any_more_is_passed_over_at_once() -> None:
    """His event loop is closed, say: the next one is offered the lock, or it is free."""
    world = World()
    world.acquire("one")
    world.join("two", "three", "four", "five")
    world.away = {"two", "three"}
    assert world.release("one") is Release.HANDED_OVER
    assert world.woken == ["two", "three", "four"]
    assert world.queue() == ["four", "five"]
    world.away |= {"five"}
    assert world.release("four") is Release.RELEASED
    assert len(world.table) == 0
    assert world.join("five") == 0
    assert len(world.table) == 0
    assert world.acquire("six")


# Parties


def test_partys_leases_and_waits_end_with_it() -> None:
    """The next ones are served; those of nobody, and of others, stay."""
    world, dead, other = World(), Party(), Party()
    world.acquire("one", party=dead)
    world.acquire("two", "b", party=other)
    world.acquire("three", "c")
    world.join("four", party=dead)
    world.join("five", party=other)
    for semaphore in ("b", "c"):
        world.join("six", semaphore=semaphore, party=dead)
    world.table.disband(dead)
    assert world.woken == ["five"]
    assert (world.offered(), world.queue()) == ("five", ["five"])
    assert world.queue("b") == world.queue("c") == []
    assert world.table.renew("b", "two", 60, other)
    assert world.table.renew("c", "three", 60)
    assert (dead.waiting, dead.bound, set(other.bound)) == (set(), {}, {"b"})
    assert_sound(world.table)


def test_disbanded_party_is_offered_nothing() -> None:
    """Not even what another one of it leaves, or held."""
    world, dead = World(), Party()
    world.acquire("one", party=dead)
    world.join(*(f"dead {number}" for number in range(20)), party=dead)
    world.join("alive")
    world.release("one")
    world.table.disband(dead)
    assert world.woken == ["dead 0", "alive"]
    assert world.queue() == ["alive"]


def test_owner_that_joined_again_by_another_party_outlives_the_first() -> None:
    """A process that has a new connection, before its old one is known to be gone."""
    world, old, new = World(), Party(), Party()
    world.acquire("one")
    world.join("two", party=old)
    world.join("three")
    world.join("two", party=new)
    assert (old.waiting, new.waiting) == (set(), {("a", "two")})
    world.table.disband(old)
    assert world.queue() == ["two", "three"]
    world.table.disband(old)
    world.release("one")
    assert world.offered() == "two"
    world.table.disband(new)
    assert world.offered() == "three"


def test_same_owner_waits_for_two_locks_in_one_party() -> None:
    """Who leaves one queue stays in the other one, and leaves that with his party."""
    world, party = World(), Party()
    for semaphore in ("a", "b"):
        world.acquire("one", semaphore)
        world.join("two", semaphore=semaphore, party=party)
    world.table.leave("a", "two")
    assert (world.queue(), world.queue("b")) == ([], ["two"])
    assert party.waiting == {("b", "two")}
    world.table.disband(party)
    assert world.queue("b") == []


def test_lease_ends_with_the_party_that_renewed_it_last() -> None:
    """And with none, if it was renewed without; its end is that of its successor with nothing."""
    world, first, second = World(), Party(), Party()
    world.acquire("one", party=first)
    assert world.table.renew("a", "one", 60, second)
    assert (first.bound, set(second.bound)) == ({}, {"a"})
    world.table.disband(first)
    assert world.table.renew("a", "one", 60)
    world.table.disband(second)
    assert world.table.renew("a", "one", 60, second)
    world.let_pass(60)
    world.acquire("two")
    world.table.disband(second)
    assert world.table.renew("a", "two", 60)


def test_lease_of_a_party_that_was_taken_by_waiting_ends_with_it() -> None:
    """What is offered is not bound yet, but waits with its party."""
    world, party = World(), Party()
    world.join("one", party=party)
    assert party.bound == {}
    assert world.acquire("one", party=party)
    assert (set(party.bound), party.waiting) == ({"a"}, set())
    world.table.disband(party)
    assert len(world.table) == 0


def test_lock_that_leaves_its_party_while_that_is_disbanded_is_not_freed_twice() -> None:
    """Who is woken for one of its locks may take another one of them into his own party."""
    world, dead, other = World(), Party(), Party()
    world.acquire("one", party=dead)
    world.acquire("two", "b", party=dead)

    def rebind() -> None:
        assert world.table.renew("b", "two", 60, other)

    world.table.join("a", "three", "host", rebind)
    world.table.disband(dead)
    assert world.table.renew("b", "two", 60, other)


# Restarts


def test_lease_that_was_gained_by_waiting_is_reclaimed_from_a_new_table() -> None:
    """After a kill its holder knows of it what any other holder does."""
    world = World()
    world.acquire("one")
    world.join("two")
    world.release("one")
    token = world.acquire("two", ttl=30)
    [described] = world.table.describe(["a"])
    assert described == Described("a", "two", token, "two's host", LATER, 30)
    assert world.table.save() == [described]
    world = World(grace=60)
    assert world.table.reclaim(described)
    assert world.table.describe(["a"]) == [described]
    assert world.acquire("two", ttl=30) == token
    assert world.acquire("three") == 0
    world.let_pass(60)
    assert world.acquire("three") > token


def test_nothing_is_granted_in_the_grace_but_what_was_held() -> None:
    """Who waits is offered it at its end, or when the lease that was reclaimed ends after that."""
    world = World(grace=10)
    assert world.table.grace == 10
    assert world.table.run_due() == 10
    assert world.table.reclaim(claim("one", 5, left=3))
    assert world.table.reclaim(claim("one", 6, "b", left=20))
    assert world.join("two") == 10
    assert world.join("two", semaphore="b") == 20
    assert world.join("two", semaphore="c") == 10
    assert world.table.run_due() == 3
    world.let_pass(3)
    assert world.table.run_due() == 7
    assert world.table.left("a") == 7
    assert world.queue() == ["two"]
    assert [each.semaphore for each in world.table.describe(["a", "b", "c"])] == ["b"]
    world.table.clear()
    assert world.release("one", "b") is Release.LOST
    assert not world.woken
    world.table.leave("c", "two")
    assert sorted(world.table.names()) == ["a", "b"]
    assert_sound(world.table)
    world.let_pass(7)
    assert world.woken == ["two", "two"]
    assert world.table.grace == 0
    assert_sound(world.table)


def test_lock_that_ends_in_the_grace_is_looked_at_once() -> None:
    """Not again and again, while it can't be offered to who waits."""
    world = World(grace=10)
    world.table.reclaim(claim("one", 5, left=3))
    world.join("two")
    world.let_pass(4, unseen=True)
    looks = count()
    settle = world.table._settle

    def look(lock: Lock, now: float) -> None:
        assert next(looks) < 5
        settle(lock, now)

    world.table._settle = look  # type: ignore[method-assign]
    assert world.table.run_due() == 6


@pytest.mark.parametrize("first", [0, 1])
def test_highest_token_wins_whichever_is_reclaimed_first(first: int) -> None:
    """Of two that say that they hold it, the other one has lost it, maybe without knowing it."""
    world = World(grace=60)
    party = Party()
    claims = [claim("lost", 5, left=50, acquired_at=3), claim("holds", 6, left=20)]
    assert world.table.reclaim(claims[first], party)
    assert world.table.reclaim(claims[1 - first]) is (first == 0)
    assert world.table.describe(["a"]) == [claims[1]]
    assert not world.table.reclaim(claim("late", 6))
    assert not world.table.renew("a", "lost", 60)
    assert set(party.bound) == (set() if first == 0 else {"a"})
    assert_sound(world.table)


def test_nothing_is_reclaimed_after_the_grace() -> None:
    """Somebody else may have had it in between, even if it is free."""
    world = World(grace=10)
    world.let_pass(10, unseen=True)
    assert not world.table.reclaim(claim("one", 5))
    assert not World().table.reclaim(claim("one", 5))
    assert len(world.table) == 0


def test_reclaimed_lock_is_one_of_those_that_there_may_be() -> None:
    """Refused is not lost; and no token of that lock is granted again, nor is an earlier one."""
    world = World(grace=10, max_locks=1)
    assert world.table.reclaim(claim("one", LATER + 10**9))
    assert world.table.last_token == LATER + 10**9
    with pytest.raises(Refused, match="There are 1 locks already"):
        world.table.reclaim(claim("one", LATER + 2 * 10**9, "b"))
    assert world.table.reclaim(claim("two", LATER + 10**9 + 5))
    world.let_pass(30)
    assert world.acquire("one", "b") == LATER + 2 * 10**9 + 1


def test_reclaimed_lease_may_end_with_a_party() -> None:
    """As any lease; who waits for it meanwhile keeps waiting until the grace ends."""
    world, party = World(grace=10), Party()
    world.join("two")
    assert world.table.reclaim(claim("one", 5), party)
    world.table.disband(party)
    assert world.queue() == ["two"]
    assert not world.woken
    world.let_pass(10)
    assert world.woken == ["two"]


def test_saved_table_goes_on_where_it_was() -> None:
    """Ends included; what is only offered isn't saved, what is kept is, as nobody's."""
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
    assert [(each.semaphore, each.owner, each.left) for each in saved] == [
        *(
            ("a", "one", 29.5),
            ("kept", "", 19.5),
            ("ended", "three", 7.5),
            ("endless", "six", math.inf),
        ),
    ]
    world = World(last_token=last_token)
    world.wall -= 10**12
    world.table.load(saved, elapsed=9.5)
    assert sorted(world.table.names()) == ["a", "endless", "kept"]
    assert world.table.run_due() == 10
    assert world.table.describe(["a"]) == [saved[0]._replace(left=20)]
    assert world.acquire("one") == token
    assert world.acquire("two", "kept") == world.acquire("newcomer", "kept") == 0
    assert world.acquire("six", "endless")
    assert world.acquire("newcomer", "ended") == last_token + 1
    world.let_pass(10)
    assert world.acquire("newcomer", "kept") == last_token + 2
    assert_sound(world.table)


def test_tokens_rise_above_those_that_were_saved() -> None:
    """Though the clock was set back meanwhile, and the lock has ended."""
    world = World()
    world.table.load([claim("one", LATER + 10**9, left=1)], elapsed=5)
    assert len(world.table) == 0
    assert world.acquire("two") == LATER + 10**9 + 1


# What it takes


def test_ends_that_count_no_more_are_not_hoarded() -> None:
    """Of 100,000 locks that are acquired and given back; and those that count are all there."""
    world = World()
    world.acquire("long", "long", ttl=600)
    world.acquire("endless", "endless", ttl=math.inf)
    longest = 0
    for _ in range(100_000):
        world.now += 0.0001
        world.table.acquire("a", "one", 60, "")
        world.table.release("a", "one")
        longest = max(longest, len(world.table._due))
    assert longest <= 3 + 1 + SLACK
    world.acquire("one", ttl=60)
    world.let_pass(60)
    assert sorted(world.table.names()) == ["endless", "long"]
    assert_sound(world.table)
    world.let_pass(600)
    assert world.table.names() == ["endless"]


@pytest.mark.parametrize("step", [0.001, 0, -0.001])
def test_renewals_to_sooner_and_later_in_turn_are_not_hoarded(step: float) -> None:
    """Whether the sooner ends rise or fall; the lease ends on time, however often renewed."""
    world = World()
    world.acquire("one", ttl=600)
    sooner = 30.0
    for _ in range(10_000):
        sooner += step
        assert world.table.renew("a", "one", max(sooner, 1))
        assert world.table.renew("a", "one", 600)
        assert len(world.table._due) <= 2 + SLACK
    assert_sound(world.table)
    world.table.renew("a", "one", 5)
    world.let_pass(4)
    assert len(world.table) == 1
    world.let_pass(1)
    assert len(world.table) == 0


def test_long_renewed_lock_ends_on_time() -> None:
    """Its end is looked at now and then, and put off; who waits gets it when it has come."""
    world = World()
    world.acquire("one", ttl=30)
    world.join("two")
    for _ in range(1000):
        world.let_pass(10)
        assert world.table.renew("a", "one", 30)
    assert len(world.table._due) == 1
    world.let_pass(29)
    assert not world.woken
    assert world.table.run_due() == 1
    world.let_pass(1)
    assert world.woken == ["two"]


def test_hundred_thousand_locks_fit_into_sixty_megabytes() -> None:
    """With semaphores, owners and holders as they are: 600 bytes for each."""
    tracemalloc.start()
    try:
        table = LockTable()
        for number in range(10_000):
            owner = f"{number:032x}"
            table.acquire(f"customer {number}: collect payment", owner, 60, f"host-{number} pid 1")
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(table) == 10_000
    assert size < 600 * 10_000


# Releases in finalizers


def in_the_midst(
    prepare: Callable[[], tuple[World, Callable[[], object]]], finalize: Callable[[World], object]
) -> Iterator[World]:
    """Finalize something at each step of a call, as the collector may, with all prepared anew."""
    steps = count()
    return iter(lambda: _at_step(next(steps), *prepare(), finalize), None)


def _at_step(
    step: int, world: World, call: Callable[[], object], finalize: Callable[[World], object]
) -> World | None:
    """Return the world if the call has so many steps."""
    steps = count()

    # Of what it does, calls are what may set off the collector.
    sys.setprofile(
        lambda frame, *event: (
            frame.f_code.co_filename == tables.__file__ and next(steps) == step and finalize(world)
        )
    )
    try:
        call()
    finally:
        sys.setprofile(None)
    return world if next(steps) > step else None


def busy() -> tuple[World, Party]:
    """Return a table in which there is much to do, by now, and a party with a part in it."""
    world, party = World(), Party()
    world.acquire("lost", ttl=1)
    world.let_pass(1)
    world.acquire("one", party=party)
    world.join("two", party=party)
    world.join("three")
    world.acquire("other", "b", party=party)
    world.join("next", semaphore="b")
    world.acquire("alone", "c", party=party)
    world.acquire("lost", "expired", ttl=5)
    world.acquire("lost", "expired and waited for", ttl=5)
    world.join("two", "three", semaphore="expired and waited for", party=party)
    world.acquire("one", "offered")
    world.let_pass(5, unseen=True)
    world.join("two", "three", semaphore="offered", party=party)
    world.release("one", "offered")
    return world, party


CALLS: dict[str, Callable[[World, Party], object]] = {
    "acquire": lambda world, party: world.acquire("new", "new"),
    "acquire what is held": lambda world, party: world.acquire("new"),
    "acquire again": lambda world, party: world.acquire("one", ttl=90),
    "acquire what expired": lambda world, party: world.acquire("new", "expired"),
    "acquire what is waited for": (
        lambda world, party: world.acquire("new", "expired and waited for")
    ),
    "take": lambda world, party: world.acquire("two", "offered", party=party),
    "renew": lambda world, party: world.table.renew("a", "one", 60, Party()),
    "release": lambda world, party: world.release("one"),
    "release and keep": lambda world, party: world.release("one", keep=5),
    "force release": lambda world, party: world.table.force_release("a", world.lock().token),
    "join": lambda world, party: world.join("new", party=party),
    "join again": lambda world, party: world.join("two"),
    "join who expired": lambda world, party: world.join("new", semaphore="expired"),
    "leave": lambda world, party: world.table.leave("a", "two"),
    "leave an offer": lambda world, party: world.table.leave("offered", "two"),
    "disband": lambda world, party: world.table.disband(party),
    "clear": lambda world, party: world.table.clear(),
    "left": lambda world, party: world.table.left("expired"),
    "describe": lambda world, party: world.table.describe(sorted(world.table.names())),
    "save": lambda world, party: world.table.save(),
    "look after": lambda world, party: world.table.run_due(),
}


def describe(world: World) -> list[object]:
    """Return who has what, until when, and who waits for it."""
    world.table.run_due()
    return [
        (name, lock.owner, lock.offered, lock.ends, list(lock.queue or ()))
        for name, lock in sorted(world.table._locks.items())
    ]


def prepared(name: str) -> tuple[World, Callable[[], object]]:
    """Return a busy table, and how to call it."""
    world, party = busy()
    return world, partial(CALLS[name], world, party)


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize(
    ("semaphore", "owner", "keep"),
    [
        ("b", "other", 0),
        ("b", "other", 5),
        ("c", "alone", 0),
        ("a", "lost", 0),
        ("expired", "lost", 0),
        ("expired and waited for", "lost", 0),
    ],
)
def test_release_in_a_finalizer_breaks_no_call_in_the_midst_of_which_it_comes(
    name: str, semaphore: str, owner: str, keep: float
) -> None:
    """At whatever step: all is as if it had come after the call, or before it."""

    def finalize(world: World) -> None:
        world.release(owner, semaphore, keep)

    before, call = prepared(name)
    finalize(before)
    call()
    after, call = prepared(name)
    call()
    finalize(after)
    expected = [describe(before), describe(after)]
    worlds = list(in_the_midst(partial(prepared, name), finalize))
    assert len(worlds) > 3
    for step, world in enumerate(worlds):
        assert describe(world) in expected, step
        assert_sound(world.table)


@pytest.mark.parametrize("name", CALLS)
def test_release_of_the_same_lock_in_a_finalizer_breaks_no_call(name: str) -> None:
    """A forgotten lease may be collected while its lock is asked for, or renewed, or listed."""
    for world in in_the_midst(partial(prepared, name), let_release):
        waiting = world.queue()
        assert waiting in (["two", "three"], ["three"], ["two", "three", "new"])
        assert_sound(world.table)
        world.let_pass(60)
        assert (world.offered() or world.lock().owner) in waiting


def test_lock_that_a_finalizer_gives_back_while_it_is_listed_is_not_listed_as_ended() -> None:
    """Nor is it saved so."""
    listed: list[Described] = []

    def prepare() -> tuple[World, Callable[[], object]]:
        world = World()
        world.acquire("one")
        world.acquire("two", "b")
        table = world.table
        return world, lambda: listed.extend(table.describe(["a", "b"]) + table.save())

    for world in in_the_midst(prepare, let_release):
        assert world.table.names() == ["b"]
    assert {each.left for each in listed} == {60}


def test_lease_that_a_finalizer_gives_back_while_it_is_renewed_keeps_nobody_out() -> None:
    """The thread that renews it may collect what had it."""

    def prepare() -> tuple[World, Callable[[], object]]:
        world = World()
        world.acquire("one")
        return world, lambda: world.table.renew("a", "one", 90, Party())

    for world in in_the_midst(prepare, let_release):
        assert world.table.names() == []


@pytest.mark.parametrize("keep", [0, 60])
def test_release_in_a_finalizer_loses_no_end_while_old_ones_are_dropped(
    monkeypatch: pytest.MonkeyPatch, keep: float
) -> None:
    """That goes through all locks, and what is scheduled meanwhile is looked at on time, too."""
    monkeypatch.setattr(tables, "SLACK", 20)

    def prepare() -> tuple[World, Callable[[], object]]:
        world = World()
        world.acquire("other", "b", ttl=600)
        world.join("next", semaphore="b")
        world.acquire("one", ttl=600)
        while len(world.table._due) < 3 + tables.SLACK:
            world.acquire("one", "c", ttl=600)
            world.release("one", "c")
        return world, lambda: world.acquire("two", "c", ttl=5)

    for world in in_the_midst(prepare, lambda world: world.release("other", "b", keep)):
        assert len(world.table._due) < 10
        assert_sound(world.table)
        world.let_pass(keep)
        assert world.woken == ["next"]


@pytest.mark.parametrize("clock", ["_monotonic", "microseconds"])
@pytest.mark.parametrize("name", CALLS)
def test_release_while_a_clock_is_read_breaks_nothing(name: str, clock: str) -> None:
    """Of another lock, or of a lost lease of the same one."""
    world, party = busy()
    read = getattr(world.table, clock)
    releases = [("b", "other"), ("a", "lost"), ("expired", "lost"), ("c", "alone")]

    def read_and_collect() -> object:
        if releases:
            semaphore, owner = releases.pop()
            world.release(owner, semaphore)
        return read()

    setattr(world.table, clock, read_and_collect)
    CALLS[name](world, party)
    assert_sound(world.table)
    world.table.run_due()
    assert world.release("other", "b") is Release.LOST or releases


def test_who_is_woken_may_call_at_once() -> None:
    """He takes it, or gives it back, or releases another lock, before the call has returned."""
    world = World()
    world.acquire("one")
    world.acquire("one", "b")
    tokens = []

    def take() -> None:
        tokens.append(world.acquire("two"))

    def give_back() -> None:
        assert world.release("two", "b") is Release.HANDED_OVER

    world.table.join("a", "two", "", take)
    world.join("three")
    world.table.join("b", "two", "", give_back)
    world.join("three", semaphore="b")
    assert world.release("one") is Release.RELEASED  # and taken already, no offer any more
    assert world.table.renew("a", "two", 60)
    assert world.queue() == ["three"]
    assert world.release("one", "b") is Release.HANDED_OVER
    assert world.offered("b") == "three"
    world.table.join("free", "two", "", lambda: world.acquire("two", "free"))
    assert world.table.renew("free", "two", 60)
    assert_sound(world.table)


def test_lock_that_changes_hands_at_the_end_of_the_grace_stays_its_new_holders() -> None:
    """Who is woken then may give back one, and another one acquire it."""
    world = World(grace=10)

    def hand_over() -> None:
        world.release("one", "b")
        world.acquire("three", "b")

    world.table.join("a", "two", "", hand_over)
    world.table.reclaim(claim("one", 5, "b", left=60))
    world.let_pass(10)
    assert world.acquire("four", "b") == 0
    assert world.release("three", "b") is Release.RELEASED


# Whatever happens, in whatever order


@dataclass
class Model:
    """What is to be known of a lock."""

    owner: str = ""
    ends: float = GONE
    token: int = 0
    offered: bool = False
    party: str = ""
    queue: dict[str, str] = field(default_factory=dict)
    """Who waits, in order, and with whom."""


OWNERS = st.sampled_from(["one", "two", "three", "four", "five"])
SEMAPHORES = st.sampled_from(["a", "b"])
PARTIES = st.sampled_from(["left", "right", "elsewhere"])
TTLS = st.sampled_from([0.5, OFFER, 1.5, 3.0, 60.0, math.inf])


class Anything(RuleBasedStateMachine):
    """Does anything, and compares the table with what is to be expected of it."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.table = self.world.table
        self.models = {semaphore: Model() for semaphore in ("a", "b")}
        self.parties = {name: Party() for name in ("left", "right", "elsewhere")}
        self.silent: set[str] = set()
        self.away: set[str] = set()
        self.last_token = 0

    def is_held(self, semaphore: str, owner: str) -> bool:
        """Tell whether the lock is this owner's."""
        model = self.models[semaphore]
        return model.owner == owner and model.ends > self.world.now

    def free(self, semaphore: str, keep: float = 0) -> None:
        """Expect the lock to be nobody's."""
        model = self.models[semaphore]
        model.owner, model.offered, model.party = "", False, ""
        model.ends = self.world.now + keep if keep else GONE

    def see_token(self, token: int) -> None:
        """Expect it to be greater than all before."""
        assert token > self.last_token
        self.last_token = token

    def be_woken(self, semaphore: str, owner: str) -> bool:
        """Expect it to be his turn."""
        model, now = self.models[semaphore], self.world.now
        if model.offered and self.is_held(semaphore, owner):
            return True  # who joined again is told once more
        assert model.ends <= now, f"{owner} was offered what {model.owner!r} has"
        if model.offered and model.owner in model.queue:
            self.silent.add(model.queue[model.owner])
        there = [each for each, party in model.queue.items() if party not in self.silent]
        assert owner == next(iter(there or model.queue))
        self.free(semaphore)
        self.see_token(self.table.last_token)
        if owner in self.away:
            del model.queue[owner]
            return False
        model.owner, model.offered, model.ends = owner, True, now + OFFER
        model.token = self.last_token
        return True

    @rule(semaphore=SEMAPHORES, owner=OWNERS, ttl=TTLS, party=PARTIES)
    def acquire(self, semaphore: str, owner: str, ttl: float, party: str) -> None:
        """Get what is free and what is one's own, and nothing else."""
        lock = self.table.acquire(semaphore, owner, ttl, "", self.parties[party])
        model, now = self.models[semaphore], self.world.now
        if model.ends > now:
            self.silent.discard(model.queue.get(owner, ""))
            assert (lock is not None) == (model.owner == owner)
            if lock is None:
                return
            assert lock.token == model.token
            if model.offered:
                del model.queue[owner]
        else:
            assert lock is not None
            assert not model.queue, "somebody was overtaken"
            self.see_token(lock.token)
        model.owner, model.ends, model.token = owner, now + ttl, lock.token
        model.offered, model.party = False, party

    @rule(semaphore=SEMAPHORES, owner=OWNERS, ttl=TTLS, party=PARTIES)
    def renew(self, semaphore: str, owner: str, ttl: float, party: str) -> None:
        """Put off the end of what one has."""
        held = self.is_held(semaphore, owner)
        assert self.table.renew(semaphore, owner, ttl, self.parties[party]) == held
        if held:
            self.models[semaphore].ends = self.world.now + ttl
            self.models[semaphore].party = party

    @rule(semaphore=SEMAPHORES, owner=OWNERS, keep=st.sampled_from([0, 0, 2]))
    def release(self, semaphore: str, owner: str, keep: float) -> None:
        """Give back what one has."""
        model, held = self.models[semaphore], self.is_held(semaphore, owner)
        if held:
            model.queue.pop(owner, None)
            self.free(semaphore, keep)
        released = self.table.release(semaphore, owner, keep)
        if not held:
            assert released is Release.LOST
        else:
            assert released is (Release.HANDED_OVER if model.offered else Release.RELEASED)

    @rule(semaphore=SEMAPHORES, stale=st.booleans())
    def force_release(self, semaphore: str, stale: bool) -> None:
        """Take it from its holder."""
        model = self.models[semaphore]
        held = bool(model.owner) and model.ends > self.world.now and not stale
        if held:
            self.free(semaphore)
        assert self.table.force_release(semaphore, model.token - stale) == held

    @rule(semaphore=SEMAPHORES, owner=OWNERS, party=PARTIES, there=st.booleans())
    def join(self, semaphore: str, owner: str, party: str, there: bool) -> None:
        """Wait behind the others, or where one waits already."""
        self.table.left(semaphore)  # what has ended is another one's before
        self.models[semaphore].queue[owner] = party
        self.silent.discard(party)
        self.away -= {owner}
        self.away |= set() if there else {owner}
        left = self.table.join(
            semaphore, owner, "", lambda: self.be_woken(semaphore, owner), self.parties[party]
        )
        assert left == max(self.models[semaphore].ends - self.world.now, 0)

    @rule(semaphore=SEMAPHORES, owner=OWNERS)
    def leave(self, semaphore: str, owner: str) -> None:
        """Wait no more."""
        model = self.models[semaphore]
        model.queue.pop(owner, None)
        if model.offered and model.owner == owner:
            self.free(semaphore)
        self.table.leave(semaphore, owner)

    @rule(party=PARTIES)
    def disband(self, party: str) -> None:
        """End all that a party waits for and holds."""
        for semaphore, model in self.models.items():
            for owner in [each for each, where in model.queue.items() if where == party]:
                del model.queue[owner]
                if model.offered and model.owner == owner:
                    self.free(semaphore)
            if model.party == party:
                self.free(semaphore)
        self.table.disband(self.parties[party])
        assert not self.parties[party].waiting
        assert not self.parties[party].bound

    @rule()
    def clear(self) -> None:
        """Take all from their holders."""
        for semaphore, model in self.models.items():
            if model.ends > self.world.now and not model.offered:
                self.free(semaphore)
        self.table.clear()

    @rule(seconds=st.sampled_from([0.25, 0.5, OFFER, 3.0]), clock=st.integers(-3, 3))
    def let_pass(self, seconds: float, clock: int) -> None:
        """Let time pass, of which nobody takes notice yet; the wall clock has its own."""
        self.world.now += seconds
        self.world.wall += clock

    @rule()
    def look_after(self) -> None:
        """Let what has ended be the next one's."""
        seconds = self.table.run_due()
        assert seconds > 0
        for semaphore, model in self.models.items():
            ends = model.ends > self.world.now
            assert ends == (semaphore in self.table._locks)
            assert ends or not model.queue, "nobody holds what is waited for"
            assert not ends or model.ends - self.world.now >= seconds

    @invariant()
    def agree(self) -> None:
        """Expect the table to be as the model."""
        assert_sound(self.table)
        now = self.world.now
        for semaphore, model in self.models.items():
            lock = self.table._locks.get(semaphore)
            if lock is None:
                assert model.ends <= now
                assert not model.queue
                continue
            assert list(lock.queue or ()) == list(model.queue)
            for owner, waiter in (lock.queue or {}).items():
                assert waiter.party is self.parties[model.queue[owner]]
            assert lock.ends == model.ends
            if model.ends > now:
                assert (lock.owner, lock.offered) == (model.owner, model.offered)
                assert lock.party is self.parties.get(model.party)
        for name, party in self.parties.items():
            assert {semaphore for semaphore, _ in party.waiting} <= set(self.models)
            assert party.silent == (name in self.silent)
            assert party.waiting == {
                (semaphore, owner)
                for semaphore, model in self.models.items()
                for owner, where in model.queue.items()
                if where == name
            }


def test_what_is_expected_comes_true_in_a_known_course() -> None:
    """Whatever chance leaves out: offers that are taken, told again, left, missed, disbanded."""
    machine = Anything()
    machine.acquire("a", "one", 60.0, "left")
    for number, owner in enumerate(("two", "three", "four", "five")):
        machine.join("a", owner, ("left", "right")[number % 2], there=owner != "four")
    machine.agree()
    machine.force_release("a", stale=True)
    machine.force_release("a", stale=False)
    machine.join("a", "two", "left", there=True)
    machine.leave("a", "two")
    machine.let_pass(OFFER, clock=-3)
    machine.look_after()
    machine.join("a", "two", "elsewhere", there=True)
    machine.disband("right")
    machine.agree()
    machine.acquire("a", "one", 60.0, "left")
    machine.acquire("a", "two", 60.0, "left")
    machine.renew("a", "two", 60.0, "right")
    machine.join("a", "four", "left", there=False)
    machine.join("a", "one", "left", there=True)
    machine.disband("right")
    machine.acquire("a", "one", 60.0, "left")
    machine.join("a", "two", "left", there=True)
    machine.clear()
    machine.release("a", "two", keep=2)
    machine.release("a", "two", keep=0)
    machine.look_after()
    machine.agree()


Anything.TestCase.settings = settings(max_examples=70, stateful_step_count=40, deadline=None)
test_table_is_as_expected_whatever_happens = Anything.TestCase
