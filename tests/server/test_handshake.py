"""The handshake with a lock server: which clients are accepted and which rejected."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.support.lock_client import ONE, Endpoint, LockClient, Serving, friend, line, proof

if TYPE_CHECKING:
    from collections.abc import Callable


pytestmark = pytest.mark.needs("lock_server", "lock_server_unix")


def test_client_with_the_secret_is_accepted_and_gets_the_terms(endpoint: Endpoint) -> None:
    """The server proves that it knows the secret, too."""
    with LockClient(endpoint) as client:
        terms = client.introduce()
        assert terms == {"max_ttl": 100_000, "max_frame": 65_536, "idle": 120}
        assert client.ask("ping") == {}


def test_rejected_client_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """With its address and the reason, but not with its message."""
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


@pytest.mark.parametrize("how", STRANGE)
def test_rejected_client_gets_the_reason(each_endpoint: Endpoint, how: str) -> None:
    """Then its connection is closed; others are served before and after that."""
    code, strange = STRANGE[how]
    with LockClient(each_endpoint) as stranger, friend(each_endpoint) as other:
        hello = stranger.hello(stranger.message()["challenge"])
        stranger.send(strange(hello))
        assert other.is_served()
        assert stranger.last_word() == code
        assert other.is_served()


def test_nonce_may_be_any_text(endpoint: Endpoint) -> None:
    """A client that chooses badly can only be deceived itself."""
    with LockClient(endpoint) as client:
        challenge = client.message()["challenge"]
        answer = proof(endpoint.secret, "client", challenge, "\ud800")
        client.send(line({"distlock": 1, "nonce": "\ud800", "answer": answer}))
        assert client.message()["proof"] == proof(endpoint.secret, "server", challenge, "\ud800")


def test_overheard_answer_is_useless(endpoint: Endpoint) -> None:
    """Each connection has its own challenge, simultaneous ones, too."""
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
