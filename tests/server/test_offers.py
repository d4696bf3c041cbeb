"""Queues at a lock server: the order of offers, and processes that end."""

from __future__ import annotations

from typing import Any

import pytest

from django_distlock.server import connection
from django_distlock.server.transitions import OFFER_SECONDS
from tests.support.concurrency import until
from tests.support.lock_client import ONE, TWO, Endpoint, LockClient, Serving, friend

pytestmark = pytest.mark.needs("lock_server")


def join(client: LockClient, process: str, number: int, owner: str, **members: Any) -> None:
    """Add a waiter of this process to the queue."""
    request = {
        "semaphore": "1234collectPayment",
        "owner": owner,
        "process": process,
        "number": number,
    }
    answer = client.ask("join", **request | members)
    assert answer["left"] is None or answer["left"] >= 0


def test_waiters_of_several_processes_are_offered_the_lock_in_order(
    quiet_endpoint: Endpoint, quiet_client: LockClient
) -> None:
    """Each offer is sent on the connection on which the waiter's process listens."""
    quiet_client.acquire("1234collectPayment", "holder")
    with friend(quiet_endpoint, ONE) as one, friend(quiet_endpoint, TWO) as two:
        waiting = [(one, ONE, 7), (two, TWO, 7), (one, ONE, 8), (two, TWO, 6)]
        for index, (_, process, number) in enumerate(waiting):
            join(quiet_client, process, number, f"waiter {index}")
        owner = "holder"
        for index, (listening, _, number) in enumerate(waiting):
            assert not one.has_something()
            assert not two.has_something()
            assert quiet_client.release("1234collectPayment", owner) == 2
            assert listening.message() == {"offer": number}
            assert quiet_client.acquire("1234collectPayment", "newcomer") == 0
            owner = f"waiter {index}"
            assert quiet_client.acquire("1234collectPayment", owner) > 0
        assert quiet_client.release("1234collectPayment", owner) == 1


def test_lock_that_ends_by_itself_is_offered(
    quiet_endpoint: Endpoint, quiet_client: LockClient
) -> None:
    """No request is needed at that moment."""
    quiet_client.acquire("1234collectPayment", "holder", ttl=0.1)
    with friend(quiet_endpoint, ONE) as one:
        join(quiet_client, ONE, 1, "waiter")
        assert one.message() == {"offer": 1}
        quiet_client.ask("leave", semaphore="1234collectPayment", owner="waiter")


def test_waiters_and_bound_leases_of_a_process_end_with_its_connection(
    quiet_endpoint: Endpoint, quiet_client: LockClient
) -> None:
    """At once; other leases stay."""
    with friend(quiet_endpoint, TWO) as two:
        with friend(quiet_endpoint, ONE) as one:
            for name in ("bound", "bound by renewal", "other"):
                bound = {"bound": ONE} if name == "bound" else {}
                token = quiet_client.acquire(name, ttl=90_000, **bound)
                if name == "bound by renewal":
                    assert quiet_client.renew([name, "me", 90_000, token, ""], bound=ONE) == [True]
                join(one, TWO, len(name), f"next of {name}", semaphore=name)
            quiet_client.acquire("1234collectPayment", "holder")
            join(quiet_client, ONE, 1, "gone")
            join(quiet_client, TWO, 2, "there")
        offers = [two.message()["offer"] for _ in range(2)]
        assert sorted(offers) == [len("bound"), len("bound by renewal")]
        assert quiet_client.ask("status")["processes"] == 1
        assert quiet_client.release("1234collectPayment", "holder") == 2
        assert two.message() == {"offer": 2}
        assert quiet_client.acquire("1234collectPayment", "there") > 0
        assert quiet_client.release("other") == 2
        assert two.message() == {"offer": len("other")}
        quiet_client.release("1234collectPayment", "there")


def test_second_connection_of_a_process_takes_over(
    quiet_endpoint: Endpoint, quiet_client: LockClient
) -> None:
    """Nothing is lost with the first connection, whose end is not the process's."""
    quiet_client.acquire("1234collectPayment", "holder")
    with friend(quiet_endpoint, ONE) as first:
        assert quiet_client.acquire("bound", bound=ONE)
        join(quiet_client, ONE, 1, "waiter")
        second = friend(quiet_endpoint, ONE)
    with second:
        until(lambda: quiet_client.ask("status")["connections"] == 2)
        status = quiet_client.ask("status")
        assert (status["locks"], status["waiters"], status["processes"]) == (2, 1, 1)
        join(quiet_client, ONE, 1, "waiter")
        assert quiet_client.release("1234collectPayment", "holder") == 2
        assert second.message() == {"offer": 1}
        assert first.offers == []
        join(quiet_client, ONE, 3, "waiter")
        assert second.message() == {"offer": 3}  # it may have missed the first one
    until(lambda: quiet_client.ask("status")["locks"] == 0)


def test_first_connection_of_a_process_may_outlast_the_second(
    quiet_endpoint: Endpoint, quiet_client: LockClient
) -> None:
    """Then it is an ordinary connection."""
    with friend(quiet_endpoint, ONE) as first:
        with friend(quiet_endpoint, ONE):
            assert quiet_client.acquire("bound", bound=ONE)
        until(lambda: quiet_client.ask("status")["processes"] == 0)
        assert quiet_client.ask("status")["locks"] == 0
        assert first.is_served()
    until(lambda: quiet_client.ask("status")["connections"] == 1)


def test_process_whose_connection_was_ended_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if it hasn't closed its end yet."""
    monkeypatch.setattr(connection, "CLOSE_TIMEOUT", 60)
    with Serving() as running, friend(running.endpoint) as client:
        with friend(running.endpoint, ONE) as one, friend(running.endpoint, TWO) as two:
            client.acquire("1234collectPayment", "holder")
            join(client, ONE, 1, "gone")
            join(client, TWO, 2, "there")
            assert one.last_word_after(b"?\n") == "frame"
            assert client.release("1234collectPayment", "holder") == 2
            assert two.message() == {"offer": 2}
            assert client.ask("status")["waiters"] == 1


def test_waiter_that_ignores_an_offer_is_passed_over() -> None:
    """After a second; it stays in the queue."""
    with Serving() as running:
        with friend(running.endpoint, ONE) as one, friend(running.endpoint, TWO) as two:
            one.acquire("1234collectPayment", "holder")
            join(one, ONE, 1, "asleep")
            join(one, TWO, 2, "awake")
            assert one.release("1234collectPayment", "holder") == 2
            assert one.offers == [1]
            running.let_pass(OFFER_SECONDS)
            assert two.message() == {"offer": 2}
            assert two.ask("status")["waiters"] == 2
