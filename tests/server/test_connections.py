"""The lock server, from the outside: who is let in, who is turned away, and how it ends."""

from __future__ import annotations

import json
import threading
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

import pytest

from django_distlock.server import protocol, requests
from tests.support.lock_client import (
    Endpoint,
    LockClient,
    Serving,
    endpoint_of,
    friend,
    line,
    proof,
)
from tests.support.lock_servers import start_lock_server, state_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.servers import Server

ONE, TWO = "1" * 32, "2" * 32
"""Names of processes."""
KINDS = ["lock_server", "lock_server_unix", "lock_server_tls"]

pytestmark = pytest.mark.needs(*KINDS)


@pytest.fixture(params=KINDS[:2])
def each_endpoint(servers: dict[str, Server], request: pytest.FixtureRequest) -> Endpoint:
    """Return where a server is, by TCP and a unix socket in turn."""
    return endpoint_of(servers[request.param])


@pytest.fixture
def endpoint(servers: dict[str, Server]) -> Endpoint:
    """Return where a server is, by TCP."""
    return endpoint_of(servers["lock_server"])


@pytest.fixture
def lock_client(endpoint: Endpoint) -> Iterator[LockClient]:
    """Return a client of that server."""
    with friend(endpoint) as connected:
        yield connected


# Who is let in


def test_who_knows_the_secret_is_let_in_and_told_the_terms(endpoint: Endpoint) -> None:
    """The server proves that it knows it, too."""
    with LockClient(endpoint) as client:
        terms = client.introduce()
        assert terms == {"max_ttl": 100_000, "max_frame": 65_536, "idle": 120}
        assert client.ask("ping") == {}


def test_who_is_turned_away_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """From where he came, and why; not what he said."""
    with Serving() as running, LockClient(running.endpoint) as stranger:
        challenge = stranger.message()["challenge"]
        hello = stranger.hello(challenge, answer="0" * 64)
        assert stranger.last_word_after(line(hello)) == "secret"
    [text] = [record.getMessage() for record in caplog.records]
    assert text.startswith("('127.0.0.1', ")
    assert text.endswith(" was turned away: The secret is not the server's.")


def hello_without(*names: str) -> Callable[[dict[str, Any]], bytes]:
    return lambda hello: line({name: hello[name] for name in hello if name not in names})


def hello_with(**changes: Any) -> Callable[[dict[str, Any]], bytes]:
    return lambda hello: line(hello | changes)


STRANGE: dict[str, tuple[str, Callable[[dict[str, Any]], bytes]]] = {
    "wrong answer": ("secret", hello_with(answer="0" * 64)),
    "answer of the server's": ("secret", hello_with(answer=proof(b"", "server", "", ""))),
    "no answer": ("secret", hello_without("answer")),
    "answer that is no text": ("secret", hello_with(answer=[7])),
    "answer that is no Unicode": ("secret", hello_with(answer="\ud800")),
    "no nonce": ("secret", hello_without("nonce")),
    "nonce that is no text": ("secret", hello_with(nonce=None)),
    "nonce that is no Unicode": ("secret", hello_with(nonce="\ud800")),
    "no version": ("version", hello_without("distlock")),
    "another version": ("version", hello_with(distlock=2)),
    "request instead": ("version", lambda _: line({"do": "ping"})),
    "name that is none": ("invalid", hello_with(process="me")),
    "name that is no text": ("invalid", hello_with(process=[ONE])),
    "HTTP": ("frame", lambda _: b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
}
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


@pytest.mark.parametrize("how", STRANGE)
def test_stranger_is_told_why_he_is_not_let_in(each_endpoint: Endpoint, how: str) -> None:
    """And the connection is closed; others are served meanwhile, and afterwards."""
    code, strange = STRANGE[how]
    with LockClient(each_endpoint) as stranger, friend(each_endpoint) as other:
        hello = stranger.hello(stranger.message()["challenge"])
        stranger.send(strange(hello))
        assert other.is_served()
        assert stranger.last_word() == code
        assert other.is_served()


@pytest.mark.parametrize("known", [True, False], ids=["friend", "stranger"])
@pytest.mark.parametrize("what", GARBAGE)
def test_garbage_ends_the_connection_that_it_came_on(
    each_endpoint: Endpoint, what: str, *, known: bool
) -> None:
    """The last words reach a client that had sent more, and others are served."""
    with LockClient(each_endpoint) as client, friend(each_endpoint) as other:
        if known:
            client.introduce()
        else:
            client.message()
        behind_others = what == "long frame behind others"
        code = "version" if behind_others and not known else "frame"
        assert client.last_word_after(GARBAGE[what] * 2) == code
        assert other.is_served()


def test_last_words_reach_a_client_that_has_sent_more_by_tls(servers: dict[str, Server]) -> None:
    """Where the client should close the connection: that alone can't be said there."""
    endpoint = endpoint_of(servers["lock_server_tls"])
    with LockClient(endpoint) as client, friend(endpoint) as other:
        client.message()
        assert client.last_word_after(GARBAGE["long frame without an end"]) == "frame"
        assert other.is_served()
    with friend(endpoint) as client:
        client.send(GARBAGE["long frame"])
        assert client.message()["error"] == "frame"


def test_longest_frame_is_taken(lock_client: LockClient) -> None:
    """Its line's end isn't counted."""
    frame = line({"do": "ping"})
    lock_client.send(frame[:-1].ljust(65_536) + b"\n")
    assert lock_client.message() == {}


def test_nonce_is_any_text(endpoint: Endpoint) -> None:
    """A client that chooses badly risks only that it is deceived itself."""
    with LockClient(endpoint) as client:
        challenge = client.message()["challenge"]
        answer = proof(endpoint.secret, "client", challenge, "\ud800")
        client.send(line({"distlock": 1, "nonce": "\ud800", "answer": answer}))
        assert client.message()["proof"] == proof(endpoint.secret, "server", challenge, "\ud800")


def test_answer_that_was_overheard_is_of_no_use(endpoint: Endpoint) -> None:
    """Each connection has a challenge of its own, those at the same time, too."""
    with LockClient(endpoint) as first, LockClient(endpoint) as second:
        challenges = [first.message()["challenge"], second.message()["challenge"]]
        overheard = line(first.hello(challenges[0]))
        first.send(overheard)
        assert "proof" in first.message()
        second.send(overheard)
        assert second.last_word() == "secret"
    with LockClient(endpoint) as third:
        challenges.append(third.message()["challenge"])
        third.send(overheard)
        assert third.last_word() == "secret"
    assert len(set(challenges)) == 3


def test_secret_is_not_sent(endpoint: Endpoint) -> None:
    """Neither by the server, nor by a client that follows the protocol."""
    with LockClient(endpoint) as client:
        hello = line(client.hello(client.message()["challenge"]))
        client.send(hello)
        assert endpoint.secret not in hello + line(client.message())


# Who says nothing


def test_who_says_nothing_is_closed() -> None:
    """A stranger, one who says half of it, and a friend who asks nothing; not one who pings."""
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


def test_half_a_frame_before_the_end_is_no_request(
    endpoint: Endpoint, lock_client: LockClient
) -> None:
    """Nor is what comes behind the last words."""
    acquire = line({"do": "acquire", "semaphore": "half", "owner": "o", "ttl": 60})
    with friend(endpoint) as other:
        other.send(acquire[:-1])
    with friend(endpoint) as other:
        assert other.last_word_after(b"?\n" + acquire) == "frame"
    assert lock_client.ask("held", prefix="half")["locks"] == []


# What is asked


@pytest.mark.parametrize("kind", KINDS)
def test_requests_are_answered_in_order(servers: dict[str, Server], kind: str) -> None:
    """However many are sent at once, and whatever is wrong with some."""
    with friend(endpoint_of(servers[kind])) as client:
        ask_for_many(client)


def ask_for_many(client: LockClient) -> None:
    """Send thousands of requests at once, twice."""
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


# The end


def test_everybody_is_told_that_the_server_stops() -> None:
    """Who listens, who doesn't, who is a stranger still, and who sends something just then."""
    with start_lock_server() as running, ExitStack() as connected:
        endpoint = endpoint_of(running)
        clients = [connected.enter_context(friend(endpoint, process)) for process in (ONE, None)]
        stranger = connected.enter_context(LockClient(endpoint))
        assert "challenge" in stranger.message()
        clients[1].acquire("1234collectPayment", bound=ONE)
        clients[1].send(b'{"do":')
        running.stop()
        assert [each.last_word() for each in (*clients, stranger)] == ["closing"] * 3
        # What is bound to a process is saved, too: that listens to the next server.
        assert [lock[0] for lock in saved(running.directory)] == ["1234collectPayment"]


def saved(directory: Any) -> list[list[Any]]:
    """Return the locks that the server has saved."""
    found: list[list[Any]] = json.loads(state_file(directory).read_text())["locks"]
    return found


def test_nothing_is_answered_that_was_not_saved() -> None:
    """Whoever was granted a lock before the stop has it after the next start."""
    with start_lock_server() as running, friend(endpoint_of(running)) as client:
        granted: list[str] = []
        begun = threading.Event()

        def take() -> None:
            while True:
                name = f"s{len(granted)}"
                with suppress(BrokenPipeError):
                    client.send(line({"do": "acquire", "semaphore": name, "owner": "o", "ttl": 60}))
                answer = client.message()
                if "error" in answer:
                    assert answer["error"] == "closing"
                    return
                granted.append(name)
                begun.set()

        thread = threading.Thread(target=take)
        thread.start()
        assert begun.wait(60)
        running.stop()
        thread.join(60)
        assert not thread.is_alive()
        assert sorted(lock[0] for lock in saved(running.directory)) == sorted(granted)
        running.start()
        with friend(endpoint_of(running)) as again:
            assert again.ask("status")["locks"] == len(granted)
            assert again.acquire(granted[0], "other") == 0


def test_who_connects_while_the_server_stops_is_told_so() -> None:
    """And is not let in."""
    with Serving() as running:
        running.call(running.service.stop)
        with LockClient(running.endpoint) as client:
            assert client.last_word() == "closing"


def test_who_leaves_at_that_moment_does_not_keep_others_from_being_told() -> None:
    """What is said to him may be sent, and the connection be gone before it can be closed."""
    stopped = threading.Event()
    with Serving() as running, friend(running.endpoint) as other:
        leaving = [friend(running.endpoint) for _ in range(5)]

        def stop() -> None:
            for each in leaving:
                each.close()
            running.service.stop()
            stopped.set()

        running.call(stop)
        assert stopped.is_set()
        assert other.last_word() == "closing"


def test_who_was_cut_off_is_told_nothing() -> None:
    """Though his connection is still there when the server stops."""
    with Serving() as running, friend(running.endpoint) as client:
        [connection] = running.service.admission.open

        def stop() -> None:
            connection.abort()
            running.service.stop()

        running.call(stop)
        assert client.read() is None


def test_failure_of_the_server_ends_the_connection_only(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged, and others are served."""
    monkeypatch.setitem(requests.ACTIONS, "ping", lambda *arguments: 1 / 0)
    with (
        Serving() as running,
        friend(running.endpoint) as client,
        friend(running.endpoint) as other,
    ):
        assert client.last_word_after(line({"do": "ping"})) == "internal"
        assert other.is_served()
    assert "could not be answered" in caplog.text


def test_what_json_does_not_know_is_not_sent() -> None:
    """Other languages couldn't read it."""
    with pytest.raises(ValueError, match="JSON"):
        protocol.encode({"ttl": float("inf")})
