"""What a lock server refuses of the bytes that it is sent."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from tests.bad_input.table import Answered, Row
from tests.support.lock_client import Endpoint, LockClient, friend, line

if TYPE_CHECKING:
    from collections.abc import Callable

LOCK = {"semaphore": "1234collectPayment", "owner": "me"}


def frame(data: bytes) -> Callable[[Endpoint], None]:
    """Return a call that sends a frame after the handshake."""

    def send(endpoint: Endpoint) -> None:
        with friend(endpoint) as client:
            client.send(data)
            raise_error(client)

    return send


def request(do: Any, **members: Any) -> Callable[[Endpoint], None]:
    """Return a call that sends a request."""
    return frame(line({"do": do, **members}))


def hello(**changes: Any) -> Callable[[Endpoint], None]:
    """Return a call that introduces itself in a wrong way."""

    def send(endpoint: Endpoint) -> None:
        with LockClient(endpoint) as stranger:
            stranger.send(line(stranger.hello(stranger.message()["challenge"], **changes)))
            raise_error(stranger)

    return send


def raise_error(client: LockClient) -> None:
    """Raise the answer if it is an error, as it should be."""
    answer = client.message()
    if "error" in answer:
        raise Answered(answer["error"], answer["text"])
    raise AssertionError(json.dumps(answer))


ROWS = [
    Row("no JSON", frame(b"GET / HTTP/1.1\r\n"), "frame", "JSON"),
    Row("no Unicode", frame(b"\xff\xfe\n"), "frame", "JSON"),
    Row("a list", frame(b"[]\n"), "frame", "object|JSON"),
    Row("a number that JSON lacks", frame(b'{"do":NaN}\n'), "frame", "JSON"),
    Row("a deep nest", frame(b"[" * 60_000 + b"\n"), "frame", "JSON"),
    Row("a long frame", frame(b"x" * 70_000 + b"\n"), "frame", "at most 65536 bytes"),
    Row("a wrong secret", hello(answer="0" * 64), "secret", "The secret is not the server's"),
    Row("no secret", hello(answer=None), "secret", "The secret is not the server's"),
    Row("another version", hello(distlock=2), "version", "version|distlock"),
    Row("a process without a name", hello(process="me"), "invalid", "process"),
    *(
        Row(f"action {do!r:.20}", request(do), "invalid", "do|action|request")
        for do in ("destroy", None, 5, ["acquire"], "x" * 1000)
    ),
    *(
        Row(
            f"acquire with {[*given.items()]!r:.50}",
            request("acquire", **LOCK | given),
            "invalid",
            says,
        )
        for given, says in (
            ({"ttl": None}, "^ttl is a number of seconds"),
            ({"ttl": "60"}, "^ttl is a number of seconds"),
            ({"ttl": True}, "^ttl is a number of seconds"),
            ({"ttl": 0}, "^ttl is from 0.001 to 100000 seconds, not 0.*--max-ttl"),
            ({"ttl": 100_001}, "^ttl is from 0.001 to 100000 seconds.*--max-ttl"),
            ({"ttl": 60, "semaphore": ""}, "semaphore"),
            ({"ttl": 60, "semaphore": "x" * 256}, "semaphore"),
            ({"ttl": 60, "semaphore": 5}, "semaphore"),
            ({"ttl": 60, "semaphore": "a\0"}, "semaphore.*control characters"),
            ({"ttl": 60, "owner": ""}, "owner"),
            ({"ttl": 60, "owner": "\ud800"}, "owner"),
            ({"ttl": 60, "holder": "h" * 1001}, "holder"),
            ({"ttl": 60, "holder": 5}, "holder"),
        )
    ),
    Row("release without an owner", request("release", semaphore="a"), "invalid", "owner"),
    Row("release with a wrong keep", request("release", **LOCK, keep=-1), "invalid", "keep"),
    Row("force_release without a token", request("force_release", **LOCK), "invalid", "token"),
    *(
        Row(
            f"force_release with token {token!r}",
            request("force_release", **LOCK, token=token),
            "invalid",
            r"^token is a whole number from 0 to 2\*\*63 - 1",
        )
        for token in (-1, 2**63, 1.5, "1", True)
    ),
    Row("renewal of no list", request("renew", leases="x"), "invalid", "leases"),
    Row("listing of another prefix", request("held", prefix=None), "invalid", "prefix"),
    Row("listing without a limit", request("held", limit=1001), "invalid", "limit"),
    Row("page 0", request("page", page=0, limit=1, window=10), "invalid", "page is a whole number"),
    Row("pause of 0 seconds", request("pause", prefix="", seconds=0), "invalid", "seconds"),
    Row("resumption of a number", request("resume", prefix=7), "invalid", "prefix"),
    Row(
        "a waiter of no process",
        request("join", **LOCK, process=uuid4().hex, number=1),
        "process",
        "process",
    ),
]
