"""The lock table: acquisition, expiry, release, and memory."""

from __future__ import annotations

import math
import tracemalloc

import pytest

from django_distlock.records import Released
from django_distlock.server.errors import Refused
from django_distlock.server.expiry import SLACK
from django_distlock.server.locks import LockDescription
from django_distlock.server.table import LockTable
from tests.support.lock_tables import LATER, World, assert_sound

# Holders


def test_held_lock_is_only_granted_to_its_owner_again() -> None:
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
    """Neither another owner nor a former one changes anything, before and after the next grant."""
    world = World()
    assert not world.table.renew("1234collectPayment", "one", 60)
    assert world.release("one") is Released.NOT_HELD
    world.acquire("one", ttl=10)
    assert not world.table.renew("1234collectPayment", "two", 60)
    assert world.release("two") is Released.NOT_HELD
    assert world.table.renew("1234collectPayment", "one", 20)
    assert world.table.remaining("1234collectPayment") == 20
    world.let_pass(20, unseen=True)
    assert not world.table.renew("1234collectPayment", "one", 60)
    assert world.release("one") is Released.NOT_HELD
    assert world.acquire("two")
    assert not world.table.renew("1234collectPayment", "one", 60)
    assert world.release("one") is Released.NOT_HELD
    assert world.acquire("three") == 0
    assert world.release("two") is Released.FREED
    assert len(world.table) == 0


def test_lease_expires_by_itself() -> None:
    """Not a moment earlier. An unlimited one doesn't."""
    world = World()
    world.acquire("one", ttl=10)
    world.acquire("one", "5678collectPayment", ttl=math.inf)
    world.let_pass(9.5, unseen=True)
    assert world.acquire("two") == 0
    world.let_pass(0.5, unseen=True)
    assert world.acquire("two")
    world.let_pass(1e9)
    assert world.acquire("two", "5678collectPayment") == 0
    assert world.table.remaining("5678collectPayment") == math.inf
    assert world.table.remaining("1234collectPayment") == 0
    assert world.release("one", "5678collectPayment") is Released.FREED


def test_table_says_when_to_look_after_it_again() -> None:
    """When the next lease may end; never, if there is none."""
    world = World()
    assert world.table.run_due() == math.inf
    world.acquire("one", ttl=10)
    world.acquire("one", "5678collectPayment", ttl=5)
    assert world.table.run_due() == 5
    world.table.renew("5678collectPayment", "one", 20)
    assert world.table.run_due() == 5
    world.let_pass(5)
    assert world.table.run_due() == 5
    world.let_pass(5)
    assert len(world.table) == 1
    assert world.table.run_due() == 10


def test_kept_lock_is_not_granted_until_its_time_has_passed() -> None:
    """Its former owner can't renew it, and the next waiter gets it then."""
    world = World()
    token = world.acquire("one")
    world.join("two")
    assert world.release("one", keep=10) is Released.FREED
    assert not world.table.renew("1234collectPayment", "one", 60)
    assert world.release("one") is Released.NOT_HELD
    assert world.acquire("one") == world.acquire("three") == 0
    assert [
        (each.kept, each.remaining) for each in world.table.describe(["1234collectPayment"])
    ] == [(True, 10)]
    world.let_pass(9)
    assert not world.woken
    world.let_pass(1)
    assert world.woken == ["two"]
    assert world.acquire("two") > token


def test_force_release_takes_it_from_the_holder_of_this_token_only() -> None:
    """Not from its successor, and not if the lock is free."""
    world = World()
    assert not world.table.force_release("1234collectPayment", 0)
    token = world.acquire("one")
    assert not world.table.force_release("1234collectPayment", token + 1)
    assert world.table.force_release("1234collectPayment", token)
    assert world.release("one") is Released.NOT_HELD
    assert not world.table.force_release("1234collectPayment", token)
    world.acquire("two", ttl=10)
    assert not world.table.force_release("1234collectPayment", token)
    world.let_pass(10, unseen=True)
    assert not world.table.force_release("1234collectPayment", world.table.last_token)
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
    """With all their details; ended locks are left out."""
    world = World()
    token = world.acquire("one", "ab", ttl=60)
    world.acquire("one", "ac", ttl=5)
    world.acquire("one", "b")
    world.let_pass(5, unseen=True)
    assert world.table.names("a") == ["ab"]
    assert sorted(world.table.names()) == ["ab", "b"]
    assert world.table.describe(["ab", "ac", "never"]) == [
        LockDescription("ab", token, "one's host", LATER, 55, 0, kept=False, waiting=0)
    ]


def test_table_at_its_limit_of_locks_loses_none() -> None:
    """More are refused, not reported as held; the owner of one acquires it again and renews it."""
    world = World(max_locks=2)
    token = world.acquire("one")
    world.acquire("one", "5678collectPayment", ttl=10)
    with pytest.raises(Refused, match="There are 2 locks already"):
        world.acquire("one", "9012collectPayment")
    with pytest.raises(Refused, match="There are 2 locks already"):
        world.join("one", semaphore="9012collectPayment")
    assert world.acquire("one") == token
    assert world.acquire("two") == 0
    world.let_pass(10, unseen=True)
    assert world.acquire("one", "9012collectPayment")


def test_clear_takes_all_locks_from_their_holders() -> None:
    """Waiters are offered them, or keep an earlier offer; kept locks are free, too."""
    world = World()
    world.acquire("one")
    world.join("two", "three")
    world.acquire("one", "5678collectPayment")
    world.join("four", semaphore="5678collectPayment")
    world.release("one", "5678collectPayment")
    world.acquire("one", "9012collectPayment")
    world.release("one", "9012collectPayment", keep=60)
    world.acquire("one", "d", ttl=1)
    world.let_pass(0.5)
    world.table.clear()
    assert world.woken == ["four", "two"]
    assert (world.offered(), world.offered("5678collectPayment")) == ("two", "four")
    assert sorted(world.table.names()) == ["1234collectPayment", "5678collectPayment", "d"][:2]
    assert world.release("one") is Released.NOT_HELD
    assert_sound(world.table)


# Memory


def test_outdated_entries_do_not_pile_up() -> None:
    """After 100,000 acquisitions and releases; current entries are kept."""
    world = World()
    world.acquire("long", "long", ttl=600)
    world.acquire("endless", "endless", ttl=math.inf)
    longest = 0
    for _ in range(100_000):
        world.now += 0.0001
        world.table.acquire("1234collectPayment", "one", 60, "")
        world.table.release("1234collectPayment", "one")
        longest = max(longest, len(world.table.schedule.entries))
    assert longest <= 3 + 1 + SLACK
    world.acquire("one", ttl=60)
    world.let_pass(60)
    assert sorted(world.table.names()) == ["endless", "long"]
    assert_sound(world.table)
    world.let_pass(600)
    assert world.table.names() == ["endless"]


@pytest.mark.parametrize("step", [0.001, 0, -0.001])
def test_alternating_renewals_do_not_pile_up(step: float) -> None:
    """Whether the sooner ends rise or fall; the lease ends on time, however often renewed."""
    world = World()
    world.acquire("one", ttl=600)
    sooner = 30.0
    for _ in range(10_000):
        sooner += step
        assert world.table.renew("1234collectPayment", "one", max(sooner, 1))
        assert world.table.renew("1234collectPayment", "one", 600)
        assert len(world.table.schedule.entries) <= 2 + SLACK
    assert_sound(world.table)
    world.table.renew("1234collectPayment", "one", 5)
    world.let_pass(4)
    assert len(world.table) == 1
    world.let_pass(1)
    assert len(world.table) == 0


def test_long_renewed_lock_ends_on_time() -> None:
    """It is checked now and then, and rescheduled; the waiter gets it when it has expired."""
    world = World()
    world.acquire("one", ttl=30)
    world.join("two")
    for _ in range(1000):
        world.let_pass(10)
        assert world.table.renew("1234collectPayment", "one", 30)
    assert len(world.table.schedule.entries) == 1
    world.let_pass(29)
    assert not world.woken
    assert world.table.run_due() == 1
    world.let_pass(1)
    assert world.woken == ["two"]


def test_hundred_thousand_locks_fit_into_sixty_megabytes() -> None:
    """With realistic semaphores, owners and holders: 600 bytes for each."""
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
