"""Unauthenticated connections: they take no room from other clients, and don't fill the log."""

from __future__ import annotations

import json
import socket
import ssl
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.support.concurrency import until
from tests.support.lock_client import LockClient, Serving, endpoint_of, friend, line
from tests.support.lock_servers import connect_to, flawless_lock_server
from tests.support.ports import HOST

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.servers import Server

pytestmark = pytest.mark.needs("lock_server", "lock_server_tls")

MOST = 50
"""Connections that the servers here allow."""
CROWD = 400


@pytest.fixture(scope="module", params=[False, True], ids=["TCP", "TLS"])
def small(request: pytest.FixtureRequest) -> Iterator[Server]:
    """Run a server with room for few, where strangers have a minute for the handshake."""
    limits = ("--handshake", "60", "--max-connections", str(MOST))
    with flawless_lock_server(*limits, tls=request.param) as running:
        yield running


@contextmanager
def crowd(server: Server, size: int = CROWD) -> Iterator[list[socket.socket]]:
    """Keep so many silent connections open in the block, without even a TLS handshake."""
    with ExitStack() as connected:
        yield [
            connected.enter_context(socket.create_connection((HOST, server.port), 60))
            for _ in range(size)
        ]


def descriptors(server: Server) -> int:
    """Return how many files the server has open."""
    return process_of(server).num_fds()


def process_of(server: Server) -> psutil.Process:
    assert server.executor.process is not None
    return psutil.Process(server.executor.process.pid)


def lines(server: Server, text: str) -> list[str]:
    """Return the server's log lines with this text."""
    logged = Path(server.log.name).read_text().splitlines()
    return [each for each in logged if text in each]


# Room


def test_silent_crowd_is_counted_before_tls(small: Server) -> None:
    """Each new one replaces the oldest; a client with the secret gets in at once."""
    unused = descriptors(small)
    with friend(endpoint_of(small)) as earlier, crowd(small):
        began = time.monotonic()
        with friend(endpoint_of(small)) as newcomer:
            assert newcomer.is_served()
        assert time.monotonic() - began < 5
        assert earlier.ask("status")["connections"] <= MOST
        # As many more may be closing.
        assert descriptors(small) <= unused + 2 * MOST + 10
        assert earlier.is_served()
    until(lambda: descriptors(small) <= unused)


def test_oldest_in_a_silent_crowd_goes_first(small: Server) -> None:
    """The last ones are still open."""
    with crowd(small, MOST + 5) as connected, friend(endpoint_of(small)):
        assert all(is_ended(each) for each in connected[:6])
        assert not any(has_ended(each) for each in connected[10:])


def is_ended(connection: socket.socket) -> bool:
    """Return True when the server has closed it."""
    with suppress(ConnectionError):
        while connection.recv(65536):
            pass
    return True


def has_ended(connection: socket.socket) -> bool:
    """Return whether the server has closed it by now."""
    connection.setblocking(False)
    try:
        return b'"error"' in (found := connection.recv(65536)) or not found
    except BlockingIOError:
        return False


def test_stranger_has_one_time_for_tls_and_the_secret() -> None:
    """After it a connection is closed, whether TLS is unfinished or only the secret is missing."""
    with flawless_lock_server("--handshake", "1", tls=True) as running:
        began = time.monotonic()
        with crowd(running, 1) as [silent], LockClient(endpoint_of(running)) as stranger:
            assert is_ended(silent)
            assert 0.9 < time.monotonic() - began < 10
            assert "challenge" in stranger.message()
            assert stranger.message()["error"] == "idle"
        with friend(endpoint_of(running)) as other:
            until(lambda: other.ask("status")["connections"] == 1)


def test_unfinished_tls_handshake_is_closed_without_a_message() -> None:
    """The client couldn't read a message, and so needs no time for that."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with Serving(handshake=10, tls=tls) as running, connect_to(running.endpoint.options) as silent:
        until(lambda: len(running.service.admission.open) == 1)
        running.let_wait(9)
        assert not has_ended(silent)
        running.let_wait(1)
        silent.setblocking(True)
        silent.settimeout(60)
        assert is_ended(silent)


def test_authenticated_client_gets_an_error_when_there_is_no_room(small: Server) -> None:
    """With TLS, too, although it begins after the server has found that there is no room."""
    endpoint = endpoint_of(small)
    with ExitStack() as connected:
        first, *_ = [connected.enter_context(friend(endpoint)) for _ in range(MOST)]
        for _ in range(3):
            with LockClient(endpoint) as refused:
                assert refused.message()["error"] == "connections"
        assert first.is_served()


def test_full_server_bounds_the_connections_that_it_turns_away(small: Server) -> None:
    """A rejected silent crowd takes limited room, for a moment."""
    with ExitStack() as connected:
        first, *_ = [connected.enter_context(friend(endpoint_of(small))) for _ in range(MOST)]
        unused = descriptors(small)
        with crowd(small):
            assert first.is_served()
            assert descriptors(small) <= unused + MOST + 10
            assert first.ask("status")["connections"] == MOST


@pytest.mark.parametrize("tls", [False, True], ids=["TCP", "TLS"])
def test_request_sent_before_the_challenge_is_answered_after_it(*, tls: bool) -> None:
    """However early it comes: as soon as TLS is established."""
    with flawless_lock_server(tls=tls) as running:
        for _ in range(20):
            with LockClient(endpoint_of(running)) as hasty:
                hasty.send(line({"do": "ping"}))
                assert "challenge" in hasty.message()
                assert hasty.message()["error"] == "version"


def test_request_sent_with_the_last_tls_packet_is_answered_after_the_challenge() -> None:
    """In one packet: asyncio delivers it before it reports that TLS is established."""
    with flawless_lock_server(tls=True) as running:
        context = ssl.create_default_context(cafile=endpoint_of(running).options["tls_ca"])
        came, sent = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(came, sent, server_hostname=HOST)
        with socket.create_connection((HOST, running.port), 60) as connection:
            while True:
                with suppress(ssl.SSLWantReadError):
                    tls.do_handshake()
                    break
                connection.sendall(sent.read())
                came.write(connection.recv(65536))
            tls.write(line({"do": "ping"}))
            connection.sendall(sent.read())
            said = b""
            while said.count(b"\n") < 2:
                with suppress(ssl.SSLWantReadError):
                    said += tls.read(65536)
                    continue
                came.write(connection.recv(65536))
    challenge, error = map(json.loads, said.splitlines())
    assert "challenge" in challenge
    assert error["error"] == "version"


@pytest.mark.parametrize("how", ["closed", "reset", "no TLS", "half"])
def test_client_that_leaves_during_tls_is_forgotten(how: str) -> None:
    """Whether it closes or resets the connection, and whatever it sent."""
    with flawless_lock_server("--handshake", "60", tls=True) as running:
        with friend(endpoint_of(running)) as other:
            for _ in range(20):
                leave(running, how)
            until(lambda: other.ask("status")["connections"] == 1)
            assert other.is_served()


def leave(server: Server, how: str) -> None:
    """Connect, and leave like that."""
    with socket.create_connection((HOST, server.port), 60) as connection:
        if how == "reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        elif how == "no TLS":
            connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
        elif how == "half":
            connection.sendall(b"\x16\x03\x01\x02\x00")


def test_unfinished_tls_handshake_does_not_delay_the_stop() -> None:
    """It stops in a moment."""
    with (
        flawless_lock_server("--handshake", "60", tls=True) as running,
        crowd(running, 20),
        friend(endpoint_of(running)) as other,
    ):
        running.stop()
        assert other.last_word() == "closing"


def test_server_without_descriptors_closes_strangers_and_goes_on(small: Server) -> None:
    """A client with the secret gets in, and the log has one line a second."""
    process = process_of(small)
    soft, hard = process.rlimit(psutil.RLIMIT_NOFILE)
    began, logged = time.monotonic(), len(lines(small, ""))
    with friend(endpoint_of(small)) as earlier:
        process.rlimit(psutil.RLIMIT_NOFILE, (process.num_fds() + 20, hard))
        try:
            with crowd(small, 200):
                with friend(endpoint_of(small)) as newcomer:
                    assert newcomer.is_served()
                assert earlier.is_served()
        finally:
            process.rlimit(psutil.RLIMIT_NOFILE, (soft, hard))
    assert time.monotonic() - began < 30
    assert lines(small, "Too many open files")
    passed = time.monotonic() - began
    assert len(lines(small, "")) - logged <= 2 * (passed + 1)  # the other line: it is full


# The log


@pytest.mark.parametrize("tls", [False, True], ids=["TCP", "TLS"])
def test_flood_of_strangers_writes_a_line_a_second(*, tls: bool) -> None:
    """Of each kind: that it is full, and why a client was rejected."""
    began = time.monotonic()
    with flawless_lock_server("--max-connections", str(MOST), tls=tls) as running:
        endpoint = endpoint_of(running)
        for _ in range(100):
            with LockClient(endpoint) as stranger:
                hello = stranger.hello(stranger.message()["challenge"], answer="0" * 64)
                stranger.send(line(hello))
                assert stranger.message()["error"] == "secret"
        with crowd(running, 200), friend(endpoint) as client:
            assert client.is_served()
        passed = time.monotonic() - began
        assert 1 <= len(lines(running, "was turned away")) <= passed + 1
        assert 1 <= len(lines(running, "connections are open")) <= passed + 1
