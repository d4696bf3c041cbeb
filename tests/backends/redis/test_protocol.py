"""Commands to Redis, and how its answers are parsed."""

from __future__ import annotations

import asyncio
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from django_distlock.backends.redis.protocol import RedisConnection, code_of
from django_distlock.backends.sockets.connections import ServerError

if TYPE_CHECKING:
    from collections.abc import Iterator


class Connection:
    """A connection like redis-py's, over a pair of sockets; the server has the other end."""

    def __init__(self) -> None:
        self.client, self.server = socket.socketpair()

    @property
    def _sock(self) -> socket.socket:
        """Return the client's end, under redis-py's name for it."""
        return self.client

    def disconnect(self) -> None:
        self.client.close()


@pytest.fixture
def fake_connection() -> Iterator[Connection]:
    """Return a connection whose server's end the test writes to."""
    found = Connection()
    with found.client, found.server:
        yield found


PUSH = b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\na\r\n"
ANSWERS: list[tuple[bytes, Any]] = [
    (b":1\r\n", 1),
    (b":-1700000000000001\r\n", -1700000000000001),
    (b"+OK\r\n", b"OK"),
    (b"+\r\n", b""),
    (b"$0\r\n\r\n", b""),
    (b"$-1\r\n", None),
    (b"$8\r\n\r\n:1\r\n\r\xff\r\n", b"\r\n:1\r\n\r\xff"),
    (b"*0\r\n", []),
    (b"*-1\r\n", None),
    (b"*4\r\n:1\r\n*2\r\n+a\r\n*0\r\n$-1\r\n$1\r\nb\r\n", [1, [b"a", []], None, b"b"]),
    (b"_\r\n", None),
    (b"~2\r\n+a\r\n:2\r\n", [b"a", 2]),
    (b"~0\r\n", []),
    (b"%2\r\n+a\r\n:1\r\n+b\r\n%1\r\n_\r\n*0\r\n", [b"a", 1, b"b", [None, []]]),
    (b"%0\r\n", []),
    (PUSH + b":7\r\n", 7),
    (PUSH + PUSH + b"$1\r\na\r\n", b"a"),
]
ERRORS = {
    b"-ERR no such key\r\n": ("ERR no such key", "ERR"),
    b"-MOVED 5 127.0.0.1:7000\r\n": ("MOVED 5 127.0.0.1:7000", "MOVED"),
    b"-LOADING\r\n": ("LOADING", "LOADING"),
    b"-ERR \xff\r\n": ("ERR \ufffd", "ERR"),
}


@pytest.mark.parametrize(("sent", "expected"), ANSWERS)
def test_answer_may_be_cut_at_any_byte(
    fake_connection: Connection, sent: bytes, expected: Any
) -> None:
    """The network may split it at any byte."""
    connection = RedisConnection(fake_connection)
    for cut in range(1, len(sent)):
        connection.outstanding = 1
        fake_connection.server.sendall(sent[:cut])
        assert connection.has_message(60)
        assert receive_in_time(connection, fake_connection) is MORE
        assert connection.outstanding == 1
        fake_connection.server.sendall(sent[cut:])
        assert connection.receive() == expected
        assert connection.outstanding == 0
        assert not connection.has_ended()


MORE = object()


def receive_in_time(connection: RedisConnection, fake_connection: Connection) -> Any:
    """Return the answer, or MORE if it is incomplete."""
    fake_connection.client.settimeout(0)
    try:
        return connection.receive()
    except BlockingIOError:
        return MORE
    finally:
        fake_connection.client.settimeout(None)


def test_answers_are_understood_byte_by_byte(fake_connection: Connection) -> None:
    """One after the other, without pauses between them; by async code as well."""
    text = b"".join(sent for sent, _ in ANSWERS)
    expected = [answer for _, answer in ANSWERS]
    connection = RedisConnection(fake_connection)
    found = []
    for at in range(len(text)):
        fake_connection.server.sendall(text[at : at + 1])
        answer = receive_in_time(connection, fake_connection)
        if answer is not MORE:
            found.append(answer)
    assert found == expected
    fake_connection.server.sendall(text)
    assert [connection.receive() for _ in expected] == expected

    async def receive_all() -> list[Any]:
        receiving = asyncio.create_task(receive_each())
        for at in range(len(text)):
            fake_connection.server.sendall(text[at : at + 1])
            await asyncio.sleep(0)
        return await receiving

    async def receive_each() -> list[Any]:
        return [await connection.areceive() for _ in expected]

    assert asyncio.run(receive_all()) == expected


@pytest.mark.parametrize("sent", ERRORS)
def test_errors_are_answers(fake_connection: Connection, sent: bytes) -> None:
    """Also among other answers; the first word is the error's code."""
    connection = RedisConnection(fake_connection)
    fake_connection.server.sendall(sent + b"*2\r\n:1\r\n" + sent)
    alone, [one, among] = connection.receive(), connection.receive()
    assert one == 1
    for error in (alone, among):
        assert isinstance(error, ServerError)
        assert (str(error), error.code) == ERRORS[sent]


WRAPPED = "ERR Error running script (call to f_aa1531040367b44a34013b5b5fa11d8c766948b1): "


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("READONLY You can't write. script: ab, on @user_script:25.", "READONLY"),
        (f"{WRAPPED}@user_script:25: @user_script: 25: -READONLY You can't write.", "READONLY"),
        (f"{WRAPPED}@user_script:9: WRONGTYPE Operation against a key", "WRONGTYPE"),
        (f"{WRAPPED}@user_script:56: user_script:56: attempt to concatenate local 'owner'", "ERR"),
        (f"{WRAPPED}@user_script:25: @user_script: 25: The user can't run this command", "ERR"),
        ("ERR a: -READONLY b has something else than a lock", "ERR"),
        ("NOSCRIPT No matching script. Please use EVAL.", "NOSCRIPT"),
    ],
)
def test_code_of_an_error_is_recognized(text: str, code: str) -> None:
    """In the texts of Redis 7.0 and 6.2."""
    assert code_of(text) == code


def test_subscriber_alone_receives_push_messages(fake_connection: Connection) -> None:
    """Other connections skip them."""
    connection = RedisConnection(fake_connection)
    fake_connection.server.sendall(PUSH + b":1\r\n" + PUSH + b":1\r\n")
    assert connection.receive() == 1
    connection.takes_pushes = True
    assert connection.receive() == [b"invalidate", [b"a"]]
    assert connection.has_message(0)
    assert connection.receive() == 1
    assert not connection.has_message(0)


@pytest.mark.parametrize(
    "sent", [b",1.5\r\n", b"#t\r\n", b"(1\r\n", b"HTTP/1.1 400\r\n", b"*1\r\n,1\r\n", b"\r\n"]
)
def test_invalid_answer_is_an_error(fake_connection: Connection, sent: bytes) -> None:
    """As of a type that Redis doesn't use for these requests, or of another kind of server."""
    connection = RedisConnection(fake_connection)
    fake_connection.server.sendall(sent)
    with pytest.raises(OSError, match=r"^not an answer of Redis: "):
        connection.receive()


def test_end_of_a_connection_is_an_error(fake_connection: Connection) -> None:
    """Whether or not part of an answer has come."""
    connection = RedisConnection(fake_connection)
    fake_connection.server.sendall(b"$5\r\nab")
    fake_connection.server.close()
    assert connection.has_ended()
    with pytest.raises(ConnectionResetError, match="the server closed the connection"):
        connection.receive()
    connection.close()
    assert fake_connection.client.fileno() == -1


def test_commands_are_sent_as_bytes_of_any_length(fake_connection: Connection) -> None:
    """All at once."""
    connection = RedisConnection(fake_connection)
    connection.send([("SET", "ä", 1), ("GET", b"\xff")])
    assert connection.outstanding == 2
    assert fake_connection.server.recv(1_000) == (
        b"*3\r\n$3\r\nSET\r\n$2\r\n\xc3\xa4\r\n$1\r\n1\r\n*2\r\n$3\r\nGET\r\n$1\r\n\xff\r\n"
    )


def test_idle_connection_that_says_something_is_not_used(fake_connection: Connection) -> None:
    """Its message would count as an answer."""
    connection = RedisConnection(fake_connection)
    assert not connection.has_ended()
    fake_connection.server.sendall(b":1\r\n")
    assert connection.has_ended()


def encrypted(side: int) -> ssl.SSLContext:
    """Return TLS contexts that need no certificate."""
    context = ssl.SSLContext(side)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("AECDH-AES128-SHA:@SECLEVEL=0")
    return context


def test_answer_that_tls_has_read_already_is_not_waited_for(
    fake_connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The socket itself then has nothing more to read."""
    monkeypatch.setattr("django_distlock.backends.sockets.connections.CHUNK", 4)
    with ThreadPoolExecutor(1) as thread:
        wrapping = thread.submit(
            encrypted(ssl.PROTOCOL_TLS_SERVER).wrap_socket, fake_connection.server, server_side=True
        )
        fake_connection.client = encrypted(ssl.PROTOCOL_TLS_CLIENT).wrap_socket(
            fake_connection.client
        )
        fake_connection.server = wrapping.result(60)
    connection = RedisConnection(fake_connection)
    with fake_connection.client, fake_connection.server:
        assert not connection.has_message(0)
        fake_connection.server.sendall(b":1\r\n:2\r\n:3\r\n")
        assert connection.receive() == 1
        assert not connection.has_ended()
        assert connection.has_message(0)
        assert asyncio.run(asyncio.wait_for(connection.areceive(), 60)) == 2
        assert connection.receive() == 3
        assert not connection.has_message(0)
