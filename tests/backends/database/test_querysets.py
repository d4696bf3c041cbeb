"""How locks are looked up in the table: by their state, and by a prefix."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from django_distlock.fields import to_microseconds
from django_distlock.models import Lock
from django_distlock.records import LockState
from tests.support.databases import on_each_database
from tests.support.lock_rows import HOUR, NOW, TICK, clock_at, make_lock, semaphores_of

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.django_db(databases="__all__")


# States


@pytest.fixture
def locks_around_now(alias: str) -> Iterator[None]:
    """Write locks in all states, a microsecond apart, with a clock that stands still."""
    make_lock(alias, "held", owner="x", expires_at=NOW + TICK)
    make_lock(alias, "held without end", owner="x", expires_at=None)
    make_lock(alias, "stale", owner="x", expires_at=NOW)
    make_lock(alias, "stale for long", owner="x", expires_at=NOW - HOUR)
    make_lock(alias, "released", owner="", expires_at=NOW - TICK)
    make_lock(alias, "released by a fast clock", owner="", expires_at=NOW + HOUR)
    make_lock(alias, "released, of unknown time", owner="", expires_at=None)
    with clock_at(alias, NOW):
        yield


@on_each_database
@pytest.mark.usefixtures("locks_around_now")
def test_held_locks_have_an_owner_and_an_unexpired_lease(alias: str) -> None:
    """The lease may also have no end."""
    assert semaphores_of(Lock.objects.using(alias).held()) == ["held", "held without end"]


@on_each_database
@pytest.mark.usefixtures("locks_around_now")
def test_stale_locks_have_an_owner_and_an_expired_lease(alias: str) -> None:
    """At the end of its ttl a lease has expired."""
    assert semaphores_of(Lock.objects.using(alias).stale()) == ["stale", "stale for long"]


@on_each_database
@pytest.mark.usefixtures("locks_around_now")
def test_released_locks_have_no_owner(alias: str) -> None:
    """Their times don't matter."""
    assert semaphores_of(Lock.objects.using(alias).released()) == [
        "released",
        "released by a fast clock",
        "released, of unknown time",
    ]


@on_each_database
@pytest.mark.usefixtures("locks_around_now")
def test_state_is_annotated_as_the_filters_have_it(alias: str) -> None:
    """Each lock has exactly one state, by the database's time in the same row."""
    locks = Lock.objects.using(alias)
    states = {lock.semaphore: lock.state for lock in locks.with_state()}
    assert states == {
        **dict.fromkeys(semaphores_of(locks.held()), LockState.HELD),
        **dict.fromkeys(semaphores_of(locks.stale()), LockState.STALE),
        **dict.fromkeys(semaphores_of(locks.released()), LockState.RELEASED),
    }
    assert len(states) == 7
    assert {lock.seen_at for lock in locks.with_state()} == {NOW}


@on_each_database
@pytest.mark.usefixtures("locks_around_now")
def test_mark_released_frees_locks_at_the_databases_time(alias: str) -> None:
    """The token stays, and the answer says whether a lock was released."""
    locks = Lock.objects.using(alias)
    locks.filter(semaphore="held").update(token=5)
    assert locks.filter(semaphore="held").mark_released() is True
    lock = locks.get(semaphore="held")
    assert (lock.owner, lock.expires_at, lock.token) == ("", NOW, 5)
    assert locks.filter(semaphore="nothing").mark_released() is False
    assert "held without end" in semaphores_of(locks.held())


@on_each_database
def test_purgeable_locks_were_released_longer_ago_than_that(alias: str) -> None:
    """Neither younger ones, nor stale or held ones."""
    make_lock(alias, "long ago", owner="", token=1, expires_at=NOW - HOUR - TICK)
    make_lock(alias, "an hour ago", owner="", token=1, expires_at=NOW - HOUR)
    make_lock(alias, "of unknown time", owner="", token=1, expires_at=None)
    make_lock(alias, "stale", owner="x", token=1, expires_at=NOW - 2 * HOUR)
    make_lock(alias, "held", owner="x", token=1, expires_at=NOW + HOUR)
    with clock_at(alias, NOW):
        assert semaphores_of(Lock.objects.using(alias).purgeable(HOUR)) == ["long ago"]
        assert semaphores_of(Lock.objects.using(alias).purgeable(timedelta())) == [
            "an hour ago",
            "long ago",
        ]


@on_each_database
def test_lock_whose_token_is_ahead_of_the_clock_is_not_purgeable(alias: str) -> None:
    """Without its row, the next token would be the clock's, and smaller."""
    long_ago = NOW - 2 * HOUR
    for semaphore, ahead in (("behind", -TICK), ("equal", timedelta()), ("ahead", TICK)):
        token = to_microseconds(NOW + ahead)
        make_lock(alias, semaphore, owner="", token=token, expires_at=long_ago)
    with clock_at(alias, NOW):
        assert semaphores_of(Lock.objects.using(alias).purgeable(HOUR)) == ["behind"]


# Prefixes


@on_each_database
def test_prefix_is_taken_literally(alias: str) -> None:
    """No wildcards, no case folding, no stripping; the prefix itself begins with itself."""
    for semaphore in ("a", "ab", "a%", "a%b", "a_", "a_b", "A", "Ab", "a b", "a\\b", "a*b", "b"):
        make_lock(alias, semaphore)
    locks = Lock.objects.using(alias)
    for prefix, expected in {
        "a%": ["a%", "a%b"],
        "a_": ["a_", "a_b"],
        "A": ["A", "Ab"],
        "a ": ["a b"],
        "a\\": ["a\\b"],
        "a*": ["a*b"],
        "ab": ["ab"],
        "c": [],
    }.items():
        assert semaphores_of(locks.with_prefix(prefix)) == expected
    assert locks.with_prefix("").count() == 12
    assert locks.with_prefix("a").count() == 9


@on_each_database
def test_prefix_at_the_end_of_a_range_of_characters(alias: str) -> None:
    """The last character before the surrogates, and the last of all."""
    last = "\U0010ffff"
    semaphores = ["a", "a\ud7ff", "a\ud7ffb", "a\ue000", f"a{last}", f"a{last}b", "b", last]
    for semaphore in semaphores:
        make_lock(alias, semaphore)
    locks = Lock.objects.using(alias)
    assert semaphores_of(locks.with_prefix("a\ud7ff")) == ["a\ud7ff", "a\ud7ffb"]
    assert semaphores_of(locks.with_prefix(f"a{last}")) == [f"a{last}", f"a{last}b"]
    assert semaphores_of(locks.with_prefix(last)) == [last]
