"""Malformed requests to a lock server: each is refused, and changes nothing."""

from __future__ import annotations

from typing import Any

import pytest

from django_distlock.server import request_fields
from tests.support.lock_client import ONE, Endpoint, LockClient, Serving, friend, line

pytestmark = pytest.mark.needs("lock_server")


def test_holder_of_many_locks_is_stored_once() -> None:
    """While it is recent: old texts don't pile up."""
    with Serving() as running, friend(running.endpoint) as client:
        for name in ("first", "second"):
            client.acquire(name, holder="a host and its process")
        for number in range(request_fields.HOLDERS):
            client.acquire("of others", holder=f"host {number}")
        client.acquire("third", holder="a host and its process")
        first, second, third = running.service.table.describe(["first", "second", "third"])
        assert first.holder is second.holder
        assert first.holder is not third.holder


LEASE: list[Any] = ["1234collectPayment", "me", 60, 1, ""]
SENSELESS: dict[str, dict[str, Any]] = {
    "no action": {},
    "unknown action": {"do": "grant"},
    "action of another type": {"do": ["acquire"]},
    "no semaphore": {"do": "acquire", "owner": "me", "ttl": 60},
    "semaphore of another type": {"do": "leave", "semaphore": 7, "owner": "me"},
    "semaphore that can't be": {"do": "leave", "semaphore": "\0", "owner": "me"},
    "no owner": {"do": "leave", "semaphore": "1234collectPayment"},
    "long owner": {"do": "leave", "semaphore": "1234collectPayment", "owner": "o" * 201},
    "no ttl": {"do": "acquire", "semaphore": "1234collectPayment", "owner": "me"},
    "ttl of another type": {
        "do": "acquire",
        "semaphore": "1234collectPayment",
        "owner": "me",
        "ttl": True,
    },
    "short ttl": {"do": "acquire", "semaphore": "1234collectPayment", "owner": "me", "ttl": 0},
    "long ttl": {"do": "acquire", "semaphore": "1234collectPayment", "owner": "me", "ttl": 100_001},
    "endless ttl": {
        "do": "acquire",
        "semaphore": "1234collectPayment",
        "owner": "me",
        "ttl": 10**400,
    },
    "long holder": {
        "do": "acquire",
        "semaphore": "1234collectPayment",
        "owner": "me",
        "ttl": 60,
        "holder": "h" * 1_001,
    },
    "holder with a line's end": {
        "do": "acquire",
        "semaphore": "1234collectPayment",
        "owner": "me",
        "ttl": 60,
        "holder": "a\nb",
    },
    "waiting holder that is no Unicode": {
        "do": "join",
        "semaphore": "1234collectPayment",
        "owner": "me",
        "process": ONE,
        "number": 1,
        "holder": "\ud800",
    },
    "owner with a control character": {
        "do": "acquire",
        "semaphore": "1234collectPayment",
        "owner": "m\x9be",
        "ttl": 60,
    },
    "prefix that no semaphore has": {"do": "held", "prefix": "\0"},
    "no leases": {"do": "renew"},
    "leases of another type": {"do": "renew", "leases": {"a": LEASE}},
    "negative time": {
        "do": "release",
        "semaphore": "1234collectPayment",
        "owner": "me",
        "keep": -1,
    },
    "time of another type": {
        "do": "release",
        "semaphore": "1234collectPayment",
        "owner": "me",
        "keep": "1",
    },
    "no number": {"do": "join", "semaphore": "1234collectPayment", "owner": "me", "process": ONE},
    "huge number": {
        "do": "join",
        "semaphore": "1234collectPayment",
        "owner": "me",
        "process": ONE,
        "number": 2**63,
    },
    "prefix of another type": {"do": "held", "prefix": None},
    "limit that is too high": {"do": "held", "limit": 1_001},
    "page without a number": {"do": "page", "limit": 10, "window": 10},
    "page before the first": {"do": "page", "page": 0, "limit": 10, "window": 10},
    "page of another type": {"do": "page", "page": 1.0, "limit": 10, "window": 10},
    "page of too many": {"do": "page", "page": 1, "limit": 1_001, "window": 10},
    "page from too many": {"do": "page", "page": 1, "limit": 10, "window": 10_001},
    "long search": {"do": "page", "page": 1, "limit": 1, "window": 1, "search": "s" * 1_001},
    "lock without a name": {"do": "find", "semaphore": ""},
    "waiters of another type": {"do": "waiters", "semaphore": ["1234collectPayment"]},
    "pause of what can't be": {"do": "pause", "prefix": "1234\n"},
    "pause of no time": {"do": "pause", "prefix": "1234", "seconds": 0},
    "pause of another type": {"do": "pause", "prefix": "1234", "seconds": "60"},
    "pause forever": {"do": "pause", "prefix": "1234", "seconds": 10**400},
    "reason with a line's end": {"do": "pause", "prefix": "1234", "reason": "a\nb"},
    "long reason": {"do": "pause", "prefix": "1234", "reason": "r" * 256},
    "pauser with a control character": {"do": "pause", "prefix": "1234", "by": "\x1b[2J"},
    "resumption of what can't be": {"do": "resume", "prefix": 7},
    "no token": {"do": "force_release", "semaphore": "1234collectPayment"},
}


@pytest.mark.parametrize("what", SENSELESS)
def test_senseless_request_changes_nothing(
    quiet_endpoint: Endpoint, quiet_client: LockClient, what: str
) -> None:
    """The error says so, and the connection stays open."""
    with friend(quiet_endpoint, ONE):
        quiet_client.send(line(SENSELESS[what]))
        error = quiet_client.message()
        assert error["error"] == "invalid"
        assert error["text"]
        assert quiet_client.is_served()


def test_error_names_the_invalid_text_and_character(quiet_client: LockClient) -> None:
    """Strange but valid texts are accepted."""
    request = {"semaphore": "1234collectPayment", "owner": "me", "ttl": 60}
    error = quiet_client.ask("acquire", holder="a\tb", **request)
    assert error["text"] == (
        "holder has no control characters or lone surrogates, this one has '\\t'."
    )
    assert quiet_client.acquire("1234collectPayment", holder="h" * 999 + "\N{SNOWMAN}")
    assert quiet_client.release("1234collectPayment")


SENSELESS_LEASES: dict[str, Any] = {
    "another type": "1234collectPayment",
    "something more": [*LEASE, None],
    "semaphore that can't be": ["", *LEASE[1:]],
    "no owner": ["1234collectPayment", "", *LEASE[2:]],
    "short ttl": ["1234collectPayment", "me", 0, 1, ""],
    "endless ttl": ["1234collectPayment", "me", 10**400, 1, ""],
    "token that is none": ["1234collectPayment", "me", 60, 2**63, ""],
    "long holder": [*LEASE[:4], "h" * 1_001],
    "holder with a control character": [*LEASE[:4], "\x1b[2J"],
}


@pytest.mark.parametrize("what", SENSELESS_LEASES)
def test_senseless_lease_does_not_affect_others(quiet_client: LockClient, what: str) -> None:
    """The error says so, and the others are renewed."""
    token = quiet_client.acquire("1234collectPayment")
    leases = [
        ["1234collectPayment", "me", 100, token, ""],
        SENSELESS_LEASES[what],
        ["5678collectPayment", "me", 100, token, ""],
    ]
    end, error, lost = quiet_client.ask("renew", leases=leases)["expires_at"]
    assert end - token > 99_000_000
    assert error["error"] == "invalid"
    assert error["text"]
    assert lost is None
    assert quiet_client.release("1234collectPayment")
