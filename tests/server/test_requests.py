"""Requests to a lock server: locks are acquired, renewed and released; its status."""

from __future__ import annotations

import pytest

from tests.support.lock_client import ONE, TWO, Endpoint, LockClient, Serving, friend

pytestmark = pytest.mark.needs("lock_server")


def test_lock_is_acquired_renewed_and_released_by_its_owner_only(quiet_client: LockClient) -> None:
    """On any connection."""
    token = quiet_client.acquire("1234collectPayment", "one", holder="host")
    assert quiet_client.acquire("1234collectPayment", "two") == 0
    assert quiet_client.acquire("1234collectPayment", "one") == token
    lease = ["1234collectPayment", "one", 60, token, "host"]
    assert quiet_client.renew(
        lease,
        ["1234collectPayment", "two", 60, token, ""],
        ["5678collectPayment", "one", 60, None, ""],
    ) == [
        True,
        False,
        False,
    ]
    assert quiet_client.release("1234collectPayment", "two") == 0
    assert quiet_client.release("1234collectPayment", "one") == 1
    assert quiet_client.release("1234collectPayment", "one") == 0
    assert quiet_client.renew(lease) == [False]
    assert quiet_client.acquire("1234collectPayment", "two") > token
    assert quiet_client.release("1234collectPayment", "two") == 1


def test_lock_is_kept_from_everybody_for_a_while() -> None:
    """After that it is free."""
    with Serving() as running, friend(running.endpoint) as client:
        client.acquire("1234collectPayment")
        assert client.release("1234collectPayment", keep=20) == 1
        running.let_pass(19)
        assert client.acquire("1234collectPayment", "other") == 0
        running.let_pass(1)
        assert client.acquire("1234collectPayment", "other") > 0


def test_force_release_needs_the_token(quiet_client: LockClient) -> None:
    """The holder learns of it when it renews."""
    token = quiet_client.acquire("1234collectPayment")
    taken = [
        quiet_client.ask("force_release", semaphore="1234collectPayment", token=number)["released"]
        for number in (token + 1, token, token)
    ]
    assert taken == [0, 1, 0]
    assert quiet_client.renew(["1234collectPayment", "me", 60, token, ""]) == [False]


@pytest.mark.parametrize("name", ["process", "bound"])
@pytest.mark.parametrize("process", [TWO, 7])
def test_process_that_does_not_listen_is_not_known(
    quiet_endpoint: Endpoint, quiet_client: LockClient, name: str, process: object
) -> None:
    """It can neither wait nor hold what would end with it."""
    do = "join" if name == "process" else "acquire"
    with friend(quiet_endpoint, ONE):
        request = {
            "semaphore": "1234collectPayment",
            "owner": "me",
            "ttl": 60,
            "number": 1,
            name: process,
        }
        assert quiet_client.ask(do, **request)["error"] == "process"
        assert quiet_client.is_served()


def test_status_counts_locks_waiters_and_connections(
    quiet_endpoint: Endpoint, quiet_client: LockClient
) -> None:
    """For an operator."""
    with friend(quiet_endpoint, ONE):
        quiet_client.acquire("1234collectPayment")
        quiet_client.ask(
            "join", semaphore="1234collectPayment", owner="other", process=ONE, number=1
        )
        status = quiet_client.ask("status")
        assert status.pop("up") > 0
        assert status.pop("limits")["max_ttl"] == 100_000
        counts = {"locks": 1, "waiters": 1, "connections": 2, "processes": 1}
        assert status == {"version": 1, "grace": 0, "pauses": 0, **counts}
        quiet_client.ask("leave", semaphore="1234collectPayment", owner="other")
        quiet_client.release("1234collectPayment")
