"""A lock server's pauses, from the outside: who is told, and what outlasts a restart."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from django_distlock.server.pauses import MAX_PAUSES
from tests.support.lock_client import ONE, LockClient, Serving, friend
from tests.support.lock_server_command import said
from tests.support.lock_server_state import FRESH, content, in_the_way

if TYPE_CHECKING:
    from tests.support.lock_server_command import Place

pytestmark = [pytest.mark.once, pytest.mark.needs("lock_server")]


def test_pause_outlasts_a_crash_and_an_orderly_stop(place: Place) -> None:
    """One that was resumed doesn't. The status tells of those in force."""
    with place.start(*FRESH) as running:
        running.serve()
        with place.store() as store:
            store.pause("1234", 3600, reason="deploy 7", by="root")
            store.pause("5678")
            store.pause("")
            store.resume("")
        running.kill()
    with place.start(*FRESH) as running:
        assert f"Pauses of the earlier server in {place.state}: 2.\n" in running.serve()
        assert place.acquire("1234collectPayment", "5678collectPayment") == []
        assert place.acquire("9012collectPayment")
        with place.store() as store:
            assert [(each.prefix, each.reason) for each in store.pauses()] == [
                ("1234", "deploy 7"),
                ("5678", ""),
            ]
            assert store.status()["pauses"] == 2
        lines = said("--status", *place.at).splitlines()
        assert running.stop()[0] == 0
    assert [prefix for prefix, *_ in content(place)["pauses"]] == ["1234", "5678"]
    assert lines[5].startswith("Paused: what begins with 1234, until 2")
    assert lines[5].endswith(": deploy 7")
    assert lines[6].startswith("    by root, since 2")
    assert lines[7] == "Paused: what begins with 5678, until resumed"


def test_pause_that_cannot_be_saved_is_in_force_all_the_same(place: Place) -> None:
    """Whoever pauses in an incident needs it now. The log warns of what a crash would do."""
    with place.start(*FRESH) as running:
        running.serve()
        with place.store() as store, in_the_way(place):
            assert store.pause("").until is None
        assert place.acquire("1234collectPayment") == []
        running.process.terminate()
        status, _, log = running.end()
    assert status == 0
    assert "A crash would undo the last pause or resumption." in log


def test_waiter_is_offered_the_lock_by_the_server_at_the_end_of_the_pause() -> None:
    """Nobody has to ask."""
    with (
        Serving() as running,
        friend(running.endpoint, ONE) as waiter,
        friend(running.endpoint) as client,
    ):
        assert client.ask("pause", prefix="1234", seconds=10)["pause"][2] == 10
        answer = waiter.ask(
            "join", semaphore="1234collectPayment", owner="two", process=ONE, number=1
        )
        assert answer == {"left": 10}
        client.ask("pause", prefix="1234", seconds=None)
        waiting = waiter.ask(
            "join", semaphore="1234collectPayment", owner="two", process=ONE, number=1
        )
        assert waiting == {"left": None}
        client.ask("pause", prefix="1234", seconds=20)
        running.let_pass(20)
        assert waiter.message() == {"offer": 1}
        assert waiter.acquire("1234collectPayment", "two")


def test_end_of_a_pause_is_told_however_long_it_takes_to_save_it() -> None:
    """What is left of it, and the time, are of the same moment: their sum is its end."""
    now = 1_000_000
    with Serving() as running, friend(running.endpoint) as client:
        running.service.table.microseconds = lambda: now

        def save() -> None:
            nonlocal now
            now += 50_000

        running.service.save_pauses = save
        assert client.ask("pause", prefix="1234", seconds=10)["now"] == 1_000_000


def test_pauses_are_bounded(quiet_client: LockClient) -> None:
    """Each attempt looks at all of them."""
    for number in range(MAX_PAUSES):
        assert "pause" in quiet_client.ask("pause", prefix=f"{number:03}")
    error = quiet_client.ask("pause", prefix="one more")
    assert error["error"] == "refused"
    assert "There are 100 pauses already" in error["text"]
    assert "pause" in quiet_client.ask("pause", prefix="099", seconds=1)
    for number in range(MAX_PAUSES):
        quiet_client.ask("resume", prefix=f"{number:03}")
    assert quiet_client.ask("pauses")["pauses"] == []
