"""How the backend understands a lock server's messages, including wrong ones."""

from __future__ import annotations

import asyncio
import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from django_distlock import LockBackendUnavailable, clocks
from django_distlock.backends.server import ServerBackend
from django_distlock.server.protocol import VERSION, decode, encode, prove
from tests.support.lock_server_command import SECRET
from tests.support.lock_servers import ALIAS, PATIENCE
from tests.support.ports import HOST

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def conversations(*answers: list[dict[str, Any]], proves: bool = True) -> Iterator[ServerBackend]:
    """Run a server that answers requests with these messages, on one connection each.

    For an empty message it answers nothing.
    """

    def serve() -> None:
        for each in answers:
            connection, _ = listening_socket.accept()
            with connection, connection.makefile("rwb", buffering=0) as lines:
                lines.write(encode({"distlock": VERSION, "challenge": "9012collectPayment"}))
                nonce = decode(lines.readline())["nonce"]
                secret = SECRET.encode() if proves else b"another"
                proof = prove(secret, "server", "9012collectPayment", nonce)
                lines.write(encode({"proof": proof, "idle": 60, "max_frame": 65536}))
                for answer in each:
                    lines.readline()
                    if answer:
                        lines.write(encode(answer))

    listening_socket = socket.create_server((HOST, 0))
    thread = threading.Thread(target=serve)
    thread.start()
    address = f"{HOST}:{listening_socket.getsockname()[1]}"
    backend = ServerBackend(ALIAS, address=address, secret=SECRET, store_timeout=PATIENCE)
    try:
        yield backend
        thread.join(PATIENCE)
    finally:
        backend.close()
        listening_socket.close()


IDLE = {"error": "idle", "text": "Nothing was asked."}
PONG = {"version": VERSION}


def test_connection_that_is_closed_at_that_moment_is_replaced() -> None:
    """The server has not received the request."""
    with conversations([IDLE], [PONG]) as store:
        assert {**store.status()} == PONG


def test_connection_that_is_closed_at_that_moment_is_replaced_for_tasks() -> None:
    """Likewise."""

    async def ask(store: ServerBackend) -> dict[str, Any]:
        return await store.server.aask({"do": "status"}, clocks.monotonic() + PATIENCE)

    with conversations([IDLE], [PONG]) as store:
        assert asyncio.run(ask(store)) == PONG


def test_last_message_answers_all_requests() -> None:
    """So all of the requests are repeated."""
    requests: list[dict[str, Any]] = [{"do": "status"}] * 2
    with conversations([IDLE, {}], [PONG, PONG]) as store:
        assert store.server.ask_several(requests, clocks.monotonic() + PATIENCE) == [PONG, PONG]


def test_connection_with_a_last_message_is_not_used_again() -> None:
    """Even if its end comes later."""
    closing = {"error": "closing", "text": "The server stops."}
    with conversations([closing, {}], [PONG]) as store:
        with pytest.raises(LockBackendUnavailable, match="The server stops"):
            store.status()
        assert {**store.status()} == PONG


def test_server_that_does_not_know_the_secret_is_not_trusted() -> None:
    """Whatever else it answers."""
    with conversations([], proves=False) as store:
        with pytest.raises(LockBackendUnavailable, match="doesn't know the secret"):
            store.status()


@pytest.mark.parametrize(
    ("greeting", "message"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n", "not a lock server: not JSON"),
        (b"[]\n", "not a lock server: not a JSON object"),
        (b'{"distlock":2,"challenge":"c"}\n', "it doesn't support version 1"),
        (b'{"distlock":1}\n', "it doesn't support version 1"),
        (b"", "the server closed the connection"),
    ],
)
def test_unknown_servers_are_unavailable(greeting: bytes, message: str) -> None:
    """They are sent no request."""

    def serve() -> None:
        connection, _ = listening_socket.accept()
        with connection:
            connection.sendall(greeting)

    with socket.create_server((HOST, 0)) as listening_socket:
        thread = threading.Thread(target=serve)
        thread.start()
        address = f"{HOST}:{listening_socket.getsockname()[1]}"
        with pytest.raises(LockBackendUnavailable, match=message):
            ServerBackend(ALIAS, address=address, secret=SECRET, store_timeout=PATIENCE).status()
        thread.join(PATIENCE)
