"""A lock server after a crash: for how long it grants nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from django_distlock import LockBackendUnavailable
from django_distlock.records import LeaseClaim
from tests.support.concurrency import until
from tests.support.lock_server_state import (
    FRESH,
    LONG,
    NOTHING_YET,
    change,
    content,
    crash,
    in_the_way,
    leave,
)
from tests.support.lock_servers import MOVED_CLOCK, move_clock

if TYPE_CHECKING:
    from tests.support.lock_server_command import Command, Place

pytestmark = pytest.mark.once


def test_first_server_grants_nothing_and_says_how_to_change_that(place: Place) -> None:
    """An earlier server's state may have been lost while its leases are still valid."""
    with place.start(*LONG) as running:
        said = running.serve()
        assert f"There is no table in {place.state}: nothing is granted for 1000 seconds" in said
        assert "--no-grace grants at once" in said
        with pytest.raises(LockBackendUnavailable, match="Nothing is granted"):
            place.acquire("1234collectPayment")


def test_after_a_crash_nothing_is_granted_for_the_longer_of_both_limits(place: Place) -> None:
    """Not even after a second crash: leases of the first server are still valid."""
    crash(place, *FRESH)
    assert content(place)["locks"] is None
    for _ in range(2):
        said = crash(place, "--max-ttl", "5")
        assert f"saved no table in {place.state}: nothing is granted for 1000 seconds" in said
        assert content(place)["max_ttl"] == 1000
    assert "nothing is granted for 2000 s" in crash(place, "--max-ttl", "2000")


def test_holder_reclaims_its_lock_after_a_crash(place: Place) -> None:
    """When it renews; nobody else gets a lock until then."""
    with place.start(*FRESH) as running:
        running.serve()
        [token] = place.acquire("1234collectPayment")
        running.kill()
    with place.start(*LONG) as running:
        running.serve()
        with place.store() as store:
            claim = LeaseClaim("1234collectPayment", "owner", 1000, token, "a host", 900)
            assert store.renew([claim])["owner"].renewed
        assert list(place.held()) == ["1234collectPayment"]
        with pytest.raises(LockBackendUnavailable):
            place.acquire("5678collectPayment")


def test_lease_that_is_over_is_not_reclaimed_after_a_crash(place: Place) -> None:
    """Its former holder knows that it has ended, though the server doesn't."""
    with place.start(*FRESH) as running:
        running.serve()
        [token] = place.acquire("1234collectPayment")
        running.kill()
    with place.start(*LONG) as running:
        running.serve()
        with place.store() as store:
            claim = LeaseClaim("1234collectPayment", "owner", 1000, token, "a host", remaining=0)
            assert store.renew([claim])["owner"].lost
        assert not place.held()


def test_no_grace_grants_at_once_after_a_crash(place: Place) -> None:
    """For operators who know that nobody holds a lock."""
    crash(place, *FRESH)
    with place.start(*FRESH) as running:
        assert NOTHING_YET not in running.serve()
        assert place.acquire("1234collectPayment")


def start_moved(place: Place, *arguments: str) -> Command:
    """Start a server whose clocks the test moves."""
    moved = str(place.directory / "moved")
    return place.start(*arguments, DJANGO_SETTINGS_MODULE=MOVED_CLOCK, DISTLOCK_TEST_MOVED=moved)


def test_shorter_limit_counts_when_all_longer_leases_have_ended(place: Place) -> None:
    """From then on a crash costs less time again."""
    crash(place, *FRESH)
    with start_moved(place, "--max-ttl", "500") as running:
        running.serve()
        assert not place.held()  # when it answers, it waits for the longer leases to end
        assert content(place)["max_ttl"] == 1000
        move_clock(place.directory, 1000)
        assert place.acquire("1234collectPayment", ttl=500)
        until(lambda: content(place)["max_ttl"] == 500)
        assert content(place)["locks"] is None
        assert running.stop()[0] == 0
    assert content(place)["max_ttl"] == 500


def test_shorter_limit_counts_from_the_next_start_if_it_cannot_be_written(place: Place) -> None:
    """A server whose disk is full continues, and logs it."""
    crash(place, *FRESH)
    with start_moved(place, "--max-ttl", "500") as running:
        running.serve()
        assert not place.held()
        with in_the_way(place):
            move_clock(place.directory, 1000)
            assert place.acquire("1234collectPayment", ttl=500)
            assert running.process.stderr is not None
            assert running.process.stderr.readline() == (
                f"[Errno 21] The state can't be written: Is a directory: '{place.state}'. "
                "After a crash, nothing would be granted for longer than necessary.\n"
            )
        assert running.stop()[0] == 0
    assert content(place)["max_ttl"] == 500


def test_longer_leases_are_not_forgotten_by_an_orderly_stop(place: Place) -> None:
    """A server with a shorter limit had them in its table, and the next one crashes."""
    leave(place)
    with place.start("--max-ttl", "5") as running:
        running.serve()
        assert running.stop()[0] == 0
    crash(place, "--max-ttl", "5")
    assert "nothing is granted for 1000 seconds" in crash(place, "--max-ttl", "5")


def test_orderly_stop_does_not_end_the_grace(place: Place) -> None:
    """Leases that were not reclaimed before it may still be valid, for the rest of the grace."""
    with place.start(*LONG) as running:
        running.serve()
        assert running.stop()[0] == 0
    change(place, at=content(place)["at"] - 400)
    with place.start(*LONG) as running:
        said = running.serve()
        assert "had only the leases reclaimed so far when it saved its table in" in said
        with pytest.raises(LockBackendUnavailable, match="Nothing is granted"):
            place.acquire("1234collectPayment")
        assert running.stop()[0] == 0
    assert 500 < content(place)["grace"] < 600
    change(place, at=content(place)["at"] - 600)
    with place.start(*LONG) as running:
        assert NOTHING_YET not in running.serve()
        assert place.acquire("1234collectPayment")
