"""A lock server without its predecessor's table: holders reclaim their leases."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.lock_client import ONE, LockClient, Serving, endpoint_of, friend
from tests.support.lock_servers import start_lock_server

if TYPE_CHECKING:
    from collections.abc import Iterator


pytestmark = pytest.mark.needs("lock_server")


HOUR = 3_600_000_000
"""Microseconds."""


def test_nothing_is_granted_after_a_start_without_a_table() -> None:
    """Requests for locks are refused, not answered "held"; the status says for how long."""
    with start_lock_server("--max-ttl", "1000", grace=True) as running:
        with friend(endpoint_of(running)) as client:
            answer = client.ask("acquire", semaphore="1234collectPayment", owner="me", ttl=60)
            assert answer["error"] == "refused"
            assert "restart" in answer["text"]
            assert 900 < client.ask("status")["grace"] <= 1_000
            assert client.renew(["1234collectPayment", "me", 60, 7, ""]) == [True]


@pytest.fixture
def restarted() -> Iterator[Serving]:
    """Run a server that grants nothing for 300 seconds."""
    with Serving(grace=300, max_ttl=300) as running:
        yield running


@pytest.fixture
def holder(restarted: Serving) -> Iterator[LockClient]:
    """Return a client of that server."""
    with friend(restarted.endpoint) as client:
        yield client


def test_holders_reclaim_what_they_have_and_the_highest_token_wins(
    restarted: Serving, holder: LockClient
) -> None:
    """Whichever comes first; later tokens are greater."""
    ahead = time.time_ns() // 1000 + HOUR
    assert holder.renew(["1234collectPayment", "old", 300, ahead - 1, ""]) == [True]
    assert holder.renew(
        ["1234collectPayment", "new", 300, ahead, ""],
        ["1234collectPayment", "old", 300, ahead - 1, ""],
    ) == [
        True,
        False,
    ]
    assert holder.renew(["5678collectPayment", "no token", 300, None, ""]) == [False]
    assert holder.acquire("1234collectPayment", "new") == ahead
    assert holder.acquire("1234collectPayment", "other") == 0
    assert (
        holder.ask("acquire", semaphore="5678collectPayment", owner="me", ttl=60)["error"]
        == "refused"
    )
    restarted.let_pass(301)
    assert holder.acquire("5678collectPayment") == ahead + 1
    assert holder.acquire("1234collectPayment") == ahead + 2


def test_token_that_cannot_have_been_granted_is_not_taken_from_a_holder(
    restarted: Serving, holder: LockClient
) -> None:
    """Otherwise one client could keep all others from renewing."""
    now = time.time_ns() // 1000
    believed, beyond = now + 23 * HOUR, now + 25 * HOUR
    leases = [
        ["1234collectPayment", "other", 300, 2**62 - 1, ""],
        ["5678collectPayment", "other", 300, beyond, ""],
    ]
    *errors, held = holder.ask(
        "renew", leases=[*leases, ["9012collectPayment", "me", 300, believed, ""]]
    )["expires_at"]
    for error in errors:
        assert error["error"] == "refused"
        assert "is more than a day beyond this machine's clock" in error["text"]
    assert held > now
    members = {"semaphore": "1234collectPayment", "owner": "other", "token": beyond, "left": 100}
    assert holder.ask("release", **members)["error"] == "refused"
    assert holder.renew(
        ["1234collectPayment", "me", 300, now, ""], ["5678collectPayment", "me", 300, now, ""]
    ) == [True, True]
    restarted.let_pass(300)
    token = holder.acquire("d")
    assert token == believed + 1
    [lock] = holder.ask("held", prefix="d")["locks"]
    assert lock[1] == token
    assert holder.renew(["d", "me", 300, token, ""]) == [True]


def test_lease_is_renewed_though_the_clock_was_set_back_by_a_year(
    restarted: Serving, holder: LockClient
) -> None:
    """The server has it in its table, even if the token is ahead of the clock."""
    restarted.let_pass(300)
    token = holder.acquire("1234collectPayment")
    table = restarted.service.table
    year = 365 * 24 * HOUR
    now = table.microseconds
    restarted.call(lambda: setattr(table, "microseconds", lambda: now() - year))
    assert holder.renew(["1234collectPayment", "me", 300, token, ""]) == [True]
    assert holder.ask("force_release", semaphore="1234collectPayment", token=token) == {
        "released": 1
    }
    assert holder.acquire("1234collectPayment") == token + 1


def test_waiter_after_a_restart_is_offered_the_lock_when_it_is_free(
    restarted: Serving, holder: LockClient
) -> None:
    """A lock that is free at the end of the grace, then; any other, later."""
    with friend(restarted.endpoint, ONE) as one:
        assert holder.renew(["a", "holder", 300, 7, ""]) == [True]
        restarted.let_pass(100)
        assert holder.renew(["a", "holder", 300, 7, ""]) == [True]
        for number, name in enumerate("ab"):
            request = {"owner": "waiter", "process": ONE, "number": number}
            left = holder.ask("join", semaphore=name, **request)["left"]
            assert left == pytest.approx(300 if name == "a" else 200)
        restarted.let_pass(199)
        assert not one.has_something()
        assert holder.ask("acquire", semaphore="b", owner="waiter", ttl=9)["error"] == "refused"
        restarted.let_pass(1)
        assert one.message() == {"offer": 1}
        assert holder.acquire("b", "waiter") > 0
        restarted.let_pass(100)
        assert one.message() == {"offer": 0}


def test_lease_that_was_released_is_not_reclaimed(restarted: Serving, holder: LockClient) -> None:
    """By a renewal that was on its way, whether or not the server knew the lease."""
    lease, other = (
        ["1234collectPayment", "me", 300, 7, ""],
        ["5678collectPayment", "me", 300, 7, ""],
    )
    assert holder.renew(lease) == [True]
    assert holder.release("1234collectPayment", token=7, left=100) == 1
    assert holder.release("5678collectPayment", token=7, left=100) == 1
    assert holder.renew(lease, other) == [False, False]
    assert holder.release("5678collectPayment", token=7, left=100) == 0
    assert (
        holder.ask("acquire", semaphore="1234collectPayment", owner="other", ttl=9)["error"]
        == "refused"
    )
    restarted.let_pass(300)
    assert holder.acquire("1234collectPayment", "other") > 7
    assert holder.acquire("5678collectPayment", "other") > 7


def test_lease_that_lasts_longer_than_the_server_allows_is_released(holder: LockClient) -> None:
    """An earlier server had a longer --max-ttl."""
    assert holder.release("1234collectPayment", token=7, left=1_000) == 1
    assert holder.renew(["1234collectPayment", "me", 60, 7, ""]) == [False]


def test_lease_that_was_taken_away_is_not_reclaimed(restarted: Serving, holder: LockClient) -> None:
    """By its former holder's next renewal; a lease with a higher token is."""
    assert holder.renew(["1234collectPayment", "me", 300, 7, ""]) == [True]
    assert holder.ask("force_release", semaphore="1234collectPayment", token=7) == {"released": 1}
    assert holder.renew(["1234collectPayment", "me", 300, 7, ""]) == [False]
    assert holder.ask("held", prefix="")["locks"] == []
    assert holder.renew(["1234collectPayment", "successor", 300, 8, ""]) == [True]


@pytest.mark.parametrize("members", [{}, {"token": 7}, {"left": 9}, {"token": 7, "left": 0}])
def test_lease_that_had_ended_is_not_released(holder: LockClient, members: dict[str, Any]) -> None:
    """Nor is one without its token: its owner is unknown."""
    assert holder.release("1234collectPayment", **members) == 0


def test_release_after_a_restart_does_not_take_the_lock_from_its_successor(
    holder: LockClient,
) -> None:
    """The successor has a higher token."""
    assert holder.renew(["1234collectPayment", "successor", 300, 8, ""]) == [True]
    assert holder.release("1234collectPayment", token=7, left=100) == 0
    assert holder.renew(["1234collectPayment", "successor", 300, 8, ""]) == [True]


def test_nothing_is_reclaimed_once_locks_are_granted(
    restarted: Serving, holder: LockClient
) -> None:
    """Neither by a renewal nor by a release."""
    restarted.let_pass(300)
    assert holder.renew(["1234collectPayment", "me", 300, 7, ""]) == [False]
    assert holder.release("1234collectPayment", token=7, left=100) == 0
    assert holder.ask("status")["locks"] == 0
