"""Connections to a lock server: frames, garbage, silence, and the order of answers."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from django_distlock.server import protocol, requests
from tests.support.known_owners import SECRET, shown_by
from tests.support.lock_client import Endpoint, LockClient, Serving, endpoint_of, friend, line
from tests.support.lock_servers import KINDS

if TYPE_CHECKING:
    from tests.support.servers import Server

pytestmark = pytest.mark.needs(*KINDS)


GARBAGE: dict[str, bytes] = {
    "binary": bytes(range(256)) + b"\n",
    "invalid UTF-8": b'{"do":"ping\xff"}\n',
    "empty line": b"\n",
    "list": b"[]\n",
    "number": b"7\n",
    "NaN": b'{"do":NaN}\n',
    "nesting": b"[" * 60_000 + b"\n",
    "huge integer": b'{"do":' + b"9" * 5_000 + b"}\n",
    "long frame": line({"do": "ping"})[:-1].ljust(65_537) + b"\n",
    "long frame without an end": b" " * 4_000_000,
    "long frame behind others": line({"do": "ping"}) * 3 + b" " * 65_537 + b"\n",
}


@pytest.mark.parametrize("known", [True, False], ids=["friend", "stranger"])
@pytest.mark.parametrize("what", GARBAGE)
def test_garbage_ends_the_connection_that_it_came_on(
    each_endpoint: Endpoint, what: str, *, known: bool
) -> None:
    """The last message reaches a client that had sent more, and others are served."""
    with LockClient(each_endpoint) as client, friend(each_endpoint) as other:
        if known:
            client.introduce()
        else:
            client.message()
        behind_others = what == "long frame behind others"
        code = "version" if behind_others and not known else "frame"
        assert client.last_word_after(GARBAGE[what] * 2) == code
        assert other.is_served()


def test_last_message_reaches_a_client_that_has_sent_more_by_tls(
    servers: dict[str, Server],
) -> None:
    """With TLS the client should close the connection: one direction can't be closed alone."""
    endpoint = endpoint_of(servers["lock_server_tls"])
    with LockClient(endpoint) as client, friend(endpoint) as other:
        client.message()
        assert client.last_word_after(GARBAGE["long frame without an end"]) == "frame"
        assert other.is_served()
    with friend(endpoint) as client:
        client.send(GARBAGE["long frame"])
        assert client.message()["error"] == "frame"


def test_longest_frame_is_taken(lock_client: LockClient) -> None:
    """The line's end isn't counted."""
    frame = line({"do": "ping"})
    lock_client.send(frame[:-1].ljust(65_536) + b"\n")
    assert lock_client.message() == {}


def test_silent_connection_is_closed() -> None:
    """With no handshake, half of one, or no requests after one; but not with pings."""
    with Serving(handshake=10, idle=100) as running, ExitStack() as connected:
        endpoint = running.endpoint
        silent, slow = (connected.enter_context(LockClient(endpoint)) for _ in range(2))
        idle, slow_friend, pinging = (connected.enter_context(friend(endpoint)) for _ in range(3))
        slow.message()
        silent.message()
        slow.send(b'{"distlock":')
        slow_friend.send(b'{"do":')
        running.let_wait(9)
        assert not any(each.has_something() for each in (silent, slow, idle, slow_friend))
        running.let_wait(1)
        assert [each.last_word() for each in (silent, slow)] == ["idle"] * 2
        running.let_wait(99)
        assert pinging.ask("ping") == {}
        assert not any(each.has_something() for each in (idle, slow_friend))
        running.let_wait(1)
        assert [each.last_word() for each in (idle, slow_friend)] == ["idle"] * 2
        running.let_wait(99)
        assert pinging.is_served()


def test_half_a_frame_is_answered_when_the_rest_comes(lock_client: LockClient) -> None:
    """Byte by byte, if need be."""
    for byte in line({"do": "ping"}):
        assert not lock_client.has_something()
        lock_client.send(bytes([byte]))
    assert lock_client.message() == {}


def test_half_a_frame_before_the_end_is_not_a_request(
    endpoint: Endpoint, lock_client: LockClient
) -> None:
    """Nor are bytes after the last message."""
    acquire = line({"do": "acquire", "semaphore": "half", "owner": "o", "ttl": 60})
    with friend(endpoint) as other:
        other.send(acquire[:-1])
    with friend(endpoint) as other:
        assert other.last_word_after(b"?\n" + acquire) == "frame"
    assert lock_client.ask("held", prefix="half")["locks"] == []


@pytest.mark.parametrize("kind", KINDS)
def test_requests_are_answered_in_order(servers: dict[str, Server], kind: str) -> None:
    """However many are sent at once, and even if some are wrong."""
    with friend(endpoint_of(servers[kind])) as client:
        assert_answered_in_order(client)


def assert_answered_in_order(client: LockClient) -> None:
    """Send thousands of requests at once, twice, and compare the answers."""
    names = [f"s{number}" for number in range(3_000)]
    client.send(
        b"".join(
            line({"do": "acquire", "semaphore": name, "owner": "o", "ttl": 60})
            + line({"do": "acquire", "semaphore": ""})
            for name in names
        )
    )
    tokens = []
    for _ in names:
        tokens.append(client.message()["token"])
        assert client.message()["error"] == "invalid"
    assert tokens == sorted(set(tokens))
    release = {"do": "release", "owner": "o"}
    client.send(b"".join(line(release | {"semaphore": name}) for name in names))
    assert [client.message() for _ in names] == [{"released": 1}] * len(names)


def test_failure_of_the_server_ends_the_connection_only(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged, without the request, which has the owner, and others are served."""
    monkeypatch.setitem(requests.ACTIONS, "ping", lambda *arguments: 1 / 0)
    with (
        Serving() as running,
        friend(running.endpoint) as client,
        friend(running.endpoint) as other,
    ):
        assert client.last_word_after(line({"do": "ping", "owner": SECRET})) == "internal"
        assert other.is_served()
    assert "could not be answered" in caplog.text
    [error] = [record.exc_info[1] for record in caplog.records if record.exc_info]
    assert error is not None
    assert shown_by(error) == []


def test_numbers_that_json_lacks_are_not_sent() -> None:
    """Other languages couldn't read it."""
    with pytest.raises(ValueError, match="JSON"):
        protocol.encode({"ttl": float("inf")})
