"""The limits of a lock server: locks, waiters, ttl, frames."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from django_distlock.server.limits import Limits
from tests.support.concurrency import until
from tests.support.lock_client import LockClient, endpoint_of, friend, line

if TYPE_CHECKING:
    from tests.support.servers import Server

pytestmark = pytest.mark.needs("lock_server")


PROCESS = "1" * 32


def test_number_of_locks_is_limited(tight_client: LockClient) -> None:
    """A waiter for a new lock needs room, too; a release makes room."""
    for number in range(5):
        assert tight_client.acquire(f"s{number}", ttl=10)
    refused = tight_client.ask("acquire", semaphore="more", owner="me", ttl=10)
    assert refused["error"] == "refused"
    assert "5 locks" in refused["text"]
    assert tight_client.acquire("s0", ttl=10)
    tight_client.release("s0")
    assert tight_client.acquire("more", ttl=10)
    for name in ("s1", "s2", "s3", "s4", "more"):
        assert tight_client.release(name) == 1


def test_number_of_waiters_for_one_lock_is_limited(tight: Server, tight_client: LockClient) -> None:
    """A waiter may join again; one that leaves makes room."""
    with friend(endpoint_of(tight), PROCESS):

        def join(owner: str) -> dict[str, Any]:
            request = {
                "semaphore": "1234collectPayment",
                "owner": owner,
                "process": PROCESS,
                "number": 1,
            }
            return tight_client.ask("join", **request)

        tight_client.acquire("1234collectPayment", ttl=10)
        assert all("left" in join(owner) for owner in ("one", "two", "one"))
        refused = join("three")
        assert refused["error"] == "refused"
        assert "2 wait" in refused["text"]
        tight_client.ask("leave", semaphore="1234collectPayment", owner="one")
        assert "left" in join("three")
    tight_client.release("1234collectPayment")


def test_number_of_all_waiters_is_limited(tight: Server, tight_client: LockClient) -> None:
    """Over all locks; a waiter that leaves, or gets its lock, makes room."""
    with friend(endpoint_of(tight), PROCESS):

        def join(semaphore: str, owner: str) -> dict[str, Any]:
            request = {"owner": owner, "process": PROCESS, "number": 1}
            return tight_client.ask("join", semaphore=semaphore, **request)

        for name in ("s0", "s1", "s2"):
            tight_client.acquire(name, ttl=10)
        places = [("s0", "one"), ("s0", "two"), ("s1", "one"), ("s1", "two")]
        assert all("left" in join(*place) for place in (*places, *places))
        refused = join("s2", "one")
        assert refused["error"] == "refused"
        assert refused["text"] == "4 wait for locks already, as many as --max-all-waiters allows."
        assert tight_client.ask("status")["waiters"] == 4
        tight_client.release("s0")
        assert tight_client.acquire("s0", "one", ttl=10)
        assert "left" in join("s2", "one")
        assert join("s2", "two")["error"] == "refused"
        tight_client.ask("leave", semaphore="s1", owner="one")
        assert "left" in join("s2", "two")
    until(lambda: tight_client.ask("status")["waiters"] == 0)
    for name, owner in (("s0", "one"), ("s1", "me"), ("s2", "me")):
        assert tight_client.release(name, owner) == 1


def test_ttl_and_frame_have_their_limits(tight: Server, tight_client: LockClient) -> None:
    """The terms have them; exceeding one is an error."""
    endpoint = endpoint_of(tight)
    with LockClient(endpoint) as other:
        terms = other.introduce()
        assert (terms["max_ttl"], terms["max_frame"]) == (10, 1_000)
        refused = other.ask("acquire", semaphore="1234collectPayment", owner="me", ttl=10.001)
        assert refused == {
            "error": "invalid",
            "text": "ttl is from 0.001 to 10 seconds, not 10.001. "
            "The limit is the server's --max-ttl.",
        }
        assert other.acquire("1234collectPayment", ttl=10)
        assert other.release("1234collectPayment")
        other.send(line({"do": "ping"})[:-1].ljust(1_000) + b"\n")
        assert other.message() == {}
        assert other.last_word_after(b" " * 1_001) == "frame"
    assert tight_client.is_served()


@pytest.mark.parametrize("value", [0, -1, float("inf"), float("nan")])
def test_limits_are_positive_and_finite(value: float) -> None:
    """A wrong one is an error at the start."""
    with pytest.raises(ValueError, match="idle is"):
        Limits(idle=value)
