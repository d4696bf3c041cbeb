"""The table of locks, when a finalizer releases a lease during a call."""

from __future__ import annotations

import sys
from functools import partial
from itertools import count
from typing import TYPE_CHECKING

import pytest

from django_distlock.records import Released
from django_distlock.server import expiry, locks, table, tokens, transitions, waiters
from django_distlock.server.locks import LockDescription, LockSnapshot, Session
from tests.support.lock_tables import World, assert_sound, claim, let_release

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


SOURCES = {each.__file__ for each in (expiry, locks, table, tokens, transitions, waiters)}


def finalize_at_each_step(
    prepare: Callable[[], tuple[World, Callable[[], object]]], finalize: Callable[[World], object]
) -> Iterator[World]:
    """Run a finalizer at each step of a call, as the collector may, with a new table each time."""
    steps = count()
    return iter(lambda: _at_step(next(steps), *prepare(), finalize), None)


def _at_step(
    step: int, world: World, call: Callable[[], object], finalize: Callable[[World], object]
) -> World | None:
    """Return the world, if the call has so many steps."""
    steps = count()

    # The collector can only be triggered by its calls.
    sys.setprofile(
        lambda frame, *event: (
            frame.f_code.co_filename in SOURCES and next(steps) == step and finalize(world)
        )
    )
    try:
        call()
    finally:
        sys.setprofile(None)
    return world if next(steps) > step else None


def busy() -> tuple[World, Session]:
    """Return a table with much due work, and a session that takes part."""
    world, session = World(), Session()
    world.acquire("lost", ttl=1)
    world.let_pass(1)
    world.acquire("one", session=session)
    world.join("two", session=session)
    world.join("three")
    world.acquire("other", "5678collectPayment", session=session)
    world.join("next", semaphore="5678collectPayment")
    world.acquire("alone", "9012collectPayment", session=session)
    world.acquire("lost", "expired", ttl=5)
    world.acquire("lost", "expired and waited for", ttl=5)
    world.join("two", "three", semaphore="expired and waited for", session=session)
    world.acquire("one", "offered")
    world.let_pass(5, unseen=True)
    world.join("two", "three", semaphore="offered", session=session)
    world.release("one", "offered")
    return world, session


CALLS: dict[str, Callable[[World, Session], object]] = {
    "acquire": lambda world, session: world.acquire("new", "new"),
    "acquire what is held": lambda world, session: world.acquire("new"),
    "acquire again": lambda world, session: world.acquire("one", ttl=90),
    "acquire what expired": lambda world, session: world.acquire("new", "expired"),
    "acquire what is waited for": (
        lambda world, session: world.acquire("new", "expired and waited for")
    ),
    "take": lambda world, session: world.acquire("two", "offered", session=session),
    "renew": lambda world, session: world.table.renew("1234collectPayment", "one", 60, Session()),
    "release": lambda world, session: world.release("one"),
    "release and keep": lambda world, session: world.release("one", keep=5),
    "force release": lambda world, session: world.table.force_release(
        "1234collectPayment", world.lock().token
    ),
    "join": lambda world, session: world.join("new", session=session),
    "join again": lambda world, session: world.join("two"),
    "join who expired": lambda world, session: world.join("new", semaphore="expired"),
    "leave": lambda world, session: world.table.leave("1234collectPayment", "two"),
    "leave an offer": lambda world, session: world.table.leave("offered", "two"),
    "end_session": lambda world, session: world.table.end_session(session),
    "pause": lambda world, session: world.table.pause("", 60, "", ""),
    "acquire what is paused": lambda world, session: (
        world.table.pause("expired", 60, "", ""),
        world.acquire("new", "expired"),
        world.table.resume("expired"),
    ),
    "clear": lambda world, session: world.table.clear(),
    "left": lambda world, session: world.table.remaining("expired"),
    "describe": lambda world, session: world.table.describe(sorted(world.table.names())),
    "save": lambda world, session: world.table.save(),
    "look after": lambda world, session: world.table.run_due(),
}


def describe(world: World) -> list[object]:
    """Return the owner, the expiry and the queue of each lock."""
    world.table.run_due()
    return [
        (name, lock.owner, lock.offered, lock.expires, list(lock.queue or ()))
        for name, lock in sorted(world.table.locks.items())
    ]


def prepared(name: str) -> tuple[World, Callable[[], object]]:
    """Return a busy table, and a call of it."""
    world, session = busy()
    return world, partial(CALLS[name], world, session)


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize(
    ("semaphore", "owner", "keep"),
    [
        ("5678collectPayment", "other", 0),
        ("5678collectPayment", "other", 5),
        ("9012collectPayment", "alone", 0),
        ("1234collectPayment", "lost", 0),
        ("expired", "lost", 0),
        ("expired and waited for", "lost", 0),
    ],
)
def test_release_in_a_finalizer_breaks_no_call_that_it_interrupts(
    name: str, semaphore: str, owner: str, keep: float
) -> None:
    """At any step: the result is as if the release came before or after the call."""

    def finalize(world: World) -> None:
        world.release(owner, semaphore, keep)

    before, call = prepared(name)
    finalize(before)
    call()
    after, call = prepared(name)
    call()
    finalize(after)
    expected = [describe(before), describe(after)]
    worlds = list(finalize_at_each_step(partial(prepared, name), finalize))
    assert len(worlds) > 3
    for step, world in enumerate(worlds):
        assert describe(world) in expected, step
        assert_sound(world.table)


@pytest.mark.parametrize("name", CALLS)
def test_release_of_the_same_lock_in_a_finalizer_breaks_no_call(name: str) -> None:
    """A forgotten lease may be collected while its lock is acquired, renewed or listed."""
    for world in finalize_at_each_step(partial(prepared, name), let_release):
        waiting = world.queue()
        assert waiting in (["two", "three"], ["three"], ["two", "three", "new"])
        assert_sound(world.table)
        world.let_pass(60)
        assert (world.offered() or world.lock().owner) in waiting


def test_lock_that_a_finalizer_releases_during_a_listing_is_not_listed_as_expired() -> None:
    """Nor is it saved as expired."""
    listed: list[LockDescription | LockSnapshot] = []

    def prepare() -> tuple[World, Callable[[], object]]:
        world = World()
        world.acquire("one")
        world.acquire("two", "5678collectPayment")
        table = world.table
        return world, lambda: listed.extend(
            [*table.describe(["1234collectPayment", "5678collectPayment"]), *table.save()]
        )

    for world in finalize_at_each_step(prepare, let_release):
        assert world.table.names() == ["5678collectPayment"]
    assert {each.remaining for each in listed} == {60}


def test_lease_that_a_finalizer_releases_during_its_renewal_is_free() -> None:
    """The renewing thread may collect the object that held it."""

    def prepare() -> tuple[World, Callable[[], object]]:
        world = World()
        world.acquire("one")
        return world, lambda: world.table.renew("1234collectPayment", "one", 90, Session())

    for world in finalize_at_each_step(prepare, let_release):
        assert world.table.names() == []


@pytest.mark.parametrize("keep", [0, 60])
def test_release_in_a_finalizer_loses_no_end_while_old_ones_are_dropped(
    monkeypatch: pytest.MonkeyPatch, keep: float
) -> None:
    """Dropping goes through all locks; ends scheduled during it are checked on time, too."""
    monkeypatch.setattr(expiry, "SLACK", 20)

    def prepare() -> tuple[World, Callable[[], object]]:
        world = World()
        world.acquire("other", "5678collectPayment", ttl=600)
        world.join("next", semaphore="5678collectPayment")
        world.acquire("one", ttl=600)
        while len(world.table.schedule.entries) < 3 + expiry.SLACK:
            world.acquire("one", "9012collectPayment", ttl=600)
            world.release("one", "9012collectPayment")
        return world, lambda: world.acquire("two", "9012collectPayment", ttl=5)

    for world in finalize_at_each_step(
        prepare, lambda world: world.release("other", "5678collectPayment", keep)
    ):
        assert len(world.table.schedule.entries) < 10
        assert_sound(world.table)
        world.let_pass(keep)
        assert world.woken == ["next"]


@pytest.mark.parametrize("clock", ["monotonic", "microseconds"])
@pytest.mark.parametrize("name", CALLS)
def test_release_while_a_clock_is_read_breaks_nothing(name: str, clock: str) -> None:
    """The release of another lock, or of a lost lease of the same one."""
    world, session = busy()
    read = getattr(world.table, clock)
    releases = [
        ("5678collectPayment", "other"),
        ("1234collectPayment", "lost"),
        ("expired", "lost"),
        ("9012collectPayment", "alone"),
    ]

    def read_and_collect() -> object:
        if releases:
            semaphore, owner = releases.pop()
            world.release(owner, semaphore)
        return read()

    setattr(world.table, clock, read_and_collect)
    CALLS[name](world, session)
    assert_sound(world.table)
    world.table.run_due()
    assert releases or world.release("other", "5678collectPayment") is Released.NOT_HELD


def test_woken_waiter_may_call_the_table_at_once() -> None:
    """It acquires or releases the lock, or releases another one, before the call has returned."""
    world = World()
    world.acquire("one")
    world.acquire("one", "5678collectPayment")
    tokens = []

    def take() -> None:
        tokens.append(world.acquire("two"))

    def release_other() -> None:
        assert world.release("two", "5678collectPayment") is Released.HANDED_OVER

    world.table.join("1234collectPayment", "two", "", take)
    world.join("three")
    world.table.join("5678collectPayment", "two", "", release_other)
    world.join("three", semaphore="5678collectPayment")
    assert world.release("one") is Released.FREED  # and acquired already, no longer an offer
    assert world.table.renew("1234collectPayment", "two", 60)
    assert world.queue() == ["three"]
    assert world.release("one", "5678collectPayment") is Released.HANDED_OVER
    assert world.offered("5678collectPayment") == "three"
    world.table.join("free", "two", "", lambda: world.acquire("two", "free"))
    assert world.table.renew("free", "two", 60)
    assert_sound(world.table)


def test_lock_that_changes_hands_at_the_end_of_the_grace_stays_with_its_new_holder() -> None:
    """A waiter that is woken then may release a lock, and another one acquire it."""
    world = World(grace=10)

    def hand_over() -> None:
        world.release("one", "5678collectPayment")
        world.acquire("three", "5678collectPayment")

    world.table.join("1234collectPayment", "two", "", hand_over)
    world.table.reclaim(claim("one", 5, "5678collectPayment", remaining=60))
    world.let_pass(10)
    assert world.acquire("four", "5678collectPayment") == 0
    assert world.release("three", "5678collectPayment") is Released.FREED
