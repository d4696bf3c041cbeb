"""The Redis servers, and the proxy with faults, that other tests rely on."""

from __future__ import annotations

import asyncio
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from django.core.cache import caches
from redis import Redis, RedisCluster
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as NotConnected
from redis.exceptions import MovedError, OutOfMemoryError, ReadOnlyError
from redis.exceptions import TimeoutError as TimedOut
from redis.retry import Retry

from django_distlock.backends.redis.wire import RedisWire, code_of
from django_distlock.backends.wires import ServerError
from tests.support.concurrency import until
from tests.support.ports import HOST
from tests.support.redis_servers import (
    SENTINEL_NAME,
    SLOTS,
    connect,
    fill,
    place,
    start_redis,
    start_redis_replica,
    start_sentinel,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.lossy_proxy import LossyProxy
    from tests.support.redis_servers import Cluster
    from tests.support.servers import Server

pytestmark = pytest.mark.needs("redis", "redis_cluster")
NO_RETRY = Retry(NoBackoff(), 0)


@pytest.fixture(scope="module")
def own_server() -> Iterator[Server]:
    """Run a server that tests may kill."""
    with start_redis("maxmemory-policy noeviction") as running:
        yield running


@pytest.fixture
def redis_server(own_server: Server) -> Server:
    """Return it, empty."""
    with connect(own_server) as client:
        client.flushall()
        client.config_set("maxmemory", 0)
    return own_server


# Servers


def test_cluster_shares_its_slots_among_three_masters(redis_cluster: Cluster) -> None:
    """And a node redirects, when asked for what another one has."""
    nodes = [place(node) for node in redis_cluster.nodes]
    keys = [f"key {number}" for number in range(20)]
    with closing(RedisCluster(*nodes[0])) as client:
        slots: Any = client.cluster_slots()
        assert {tuple(owners["primary"]) for owners in slots.values()} == set(nodes)
        assert sum(last - first + 1 for first, last in slots) == SLOTS
        for key in keys:
            client.set(key, f"value of {key}")
        assert [client.get(key) for key in keys] == [f"value of {key}".encode() for key in keys]
        with connect(redis_cluster.nodes[0]) as node:
            for key in keys:
                expected = place_of(client, key)
                assert moved_to(node, key) == (None if expected == nodes[0] else expected)
        assert {place_of(client, key) for key in keys} == set(nodes)


def place_of(client: RedisCluster, key: str) -> tuple[str, int]:
    """Return where the client thinks that the key is."""
    node = client.get_node_from_key(key)  # type: ignore[no-untyped-call]
    return (node.host, node.port)


def moved_to(node: Redis, key: str) -> tuple[str, int] | None:
    """Delete the key at this very node, or return where that refers to."""
    try:
        node.delete(key)
    except MovedError as error:
        return (error.host, error.port)
    return None


def test_node_that_was_killed_comes_back_with_its_slots(redis_cluster: Cluster) -> None:
    """Empty."""
    node = redis_cluster.nodes[-1]
    with connect(node) as client:
        [key] = [key for key in map(str, range(20)) if moved_to(client, key) is None][:1]
        client.set(key, "a")
    node.kill()
    with pytest.raises(NotConnected):
        connect(node).ping()
    node.start()
    redis_cluster.wait()
    with connect(node) as client:
        assert client.get(key) is None


def test_replica_gets_what_its_master_is_told_and_can_be_promoted(redis_server: Server) -> None:
    """Before it has got what the master is told next, say a grant."""
    with connect(redis_server) as master, start_redis_replica(redis_server) as replica_server:
        with connect(replica_server) as replica:
            master.set("a", "1")
            assert master.wait(1, 10_000) == 1
            assert replica.get("a") == "1"
            with pytest.raises(ReadOnlyError):
                replica.set("a", "2")
            replica.replicaof("NO", "ONE")
            master.set("b", "1")
            replica.set("a", "2")
            assert (replica.get("b"), master.get("a")) == (None, "1")


def test_sentinel_tells_who_is_master_and_promotes_its_replica(redis_server: Server) -> None:
    """Once the master is dead."""
    with (
        start_redis_replica(redis_server) as replica,
        start_sentinel(redis_server) as sentinel_server,
    ):
        with connect(sentinel_server) as sentinel:

            def is_master(which: Server) -> bool:
                address = sentinel.sentinel_get_master_addr_by_name(SENTINEL_NAME)
                return bool(address == place(which))

            assert is_master(redis_server)
            redis_server.kill()
            until(lambda: is_master(replica))
    redis_server.start()


def test_killed_server_comes_back_empty_at_its_port(redis_server: Server) -> None:
    """As it does in production, unless it is told to keep what it has on disk."""
    with connect(redis_server) as client:
        client.set("a", "1")
        redis_server.kill()
        with pytest.raises(NotConnected):
            client.get("a")
        redis_server.start()
        assert client.get("a") is None


def test_paused_server_answers_nothing_until_it_goes_on(redis_server: Server) -> None:
    """And then what it was asked meanwhile."""
    with Redis(*place(redis_server), socket_timeout=0.1, retry=NO_RETRY) as client:
        client.set("a", "1")
        with redis_server.paused(), pytest.raises(TimedOut):
            client.incr("a")
        until(lambda: client.get("a") == b"2")


def test_paused_server_can_be_killed(redis_server: Server) -> None:
    """It need not go on for that."""
    with redis_server.paused():
        redis_server.kill()
    redis_server.start()


def test_server_can_be_full(redis_server: Server) -> None:
    """It refuses whatever needs memory."""
    with connect(redis_server) as client:
        client.config_set("maxmemory", 1)
        with pytest.raises(OutOfMemoryError):
            client.set("a", "1")


def test_server_is_filled(redis_server: Server) -> None:
    """By any command, in any of its databases."""
    fill(redis_server, 20_001, "SET", "other:#", "x", db=1)
    fill(redis_server, 10, "HSET", "lock:{#}", "owner", "#-#", "token", "7", db=1)
    with connect(redis_server, db=1) as client:
        assert client.dbsize() == 20_011
        assert client.get("other:20001") == "x"
        assert client.hgetall("lock:{10}") == {"owner": "10-10", "token": "7"}


@pytest.mark.parametrize("alias", ["redis", "django_redis_cache"])
def test_caches_of_both_libraries_are_at_the_server(alias: str) -> None:
    """Apart: each in a database of its own."""
    caches[alias].set("a", alias)
    assert caches[alias].get("a") == alias
    others = {"redis", "django_redis_cache"} - {alias}
    assert [caches[other].get("a") for other in others] == [None]
    assert caches[alias].make_key("a") == "site:1:a"
    caches[alias].delete("a")


# Faults between client and server


def increase(proxy: LossyProxy) -> str:
    """Ask for one more, by a connection of its own; tell what came of it."""
    with Redis(port=proxy.port, retry=NO_RETRY) as client:
        try:
            return str(client.incr("a"))
        except NotConnected:
            return "cut"


def test_proxy_loses_replies(redis_server: Server, redis_proxy: LossyProxy) -> None:
    """The request was carried out."""
    redis_proxy.lose_replies(b"INCR", 2)
    assert [increase(redis_proxy) for _ in range(3)] == ["cut", "cut", "3"]
    assert (redis_proxy.losses, redis_proxy.connections) == (0, 3)


def test_proxy_loses_requests(redis_server: Server, redis_proxy: LossyProxy) -> None:
    """They were not carried out."""
    redis_proxy.lose_requests(b"INCR", 2)
    assert [increase(redis_proxy) for _ in range(3)] == ["cut", "cut", "1"]
    assert (redis_proxy.losses, redis_proxy.connections) == (0, 3)


def test_proxy_resets_a_share_of_the_connections(
    redis_server: Server, redis_proxy: LossyProxy
) -> None:
    """The same ones for a seed, and so many at most; some requests were carried out, some not."""
    outcomes = []
    for seed in (1, 1, 2):
        redis_proxy.reset_connections(0.3, 10, within=2, seed=seed)
        outcomes.append([increase_by_hand(redis_proxy) for _ in range(50)])
    assert outcomes[0] == outcomes[1] != outcomes[2]
    assert [outcome.count("reset") for outcome in outcomes] == [10, 10, 10]
    assert (redis_proxy.resets, redis_proxy.connections) == (30, 150)
    with connect(redis_server) as client:
        assert 120 < int(client.get("a") or 0) < 150


def increase_by_hand(proxy: LossyProxy) -> str:
    """Ask for one more in a single chunk, and tell what comes: an end of file is no reset."""
    with socket.create_connection((HOST, proxy.port)) as client:
        client.sendall(b"INCR a\r\n")
        try:
            assert client.recv(64).startswith(b":")
        except ConnectionResetError:
            return "reset"
    return "done"


def test_proxy_outlives_its_server(redis_server: Server, redis_proxy: LossyProxy) -> None:
    """It refuses, as the server would, until that is back."""
    redis_server.kill()
    assert increase(redis_proxy) == "cut"
    redis_server.start()
    assert increase(redis_proxy) == "1"


def test_proxy_leaves_nothing_open(redis_proxy: LossyProxy) -> None:
    """Once a client has gone, and at its end."""
    with Redis(port=redis_proxy.port) as client:
        client.ping()
        assert redis_proxy.open == 1
    until(lambda: redis_proxy.open == 0)
    with socket.create_connection((HOST, redis_proxy.port)) as left:
        until(lambda: redis_proxy.open == 1)
        redis_proxy.__exit__()
        assert left.recv(1) == b""
    assert redis_proxy.open == 0


# What servers answer


class Connection:
    """What redis-py would open: one end of a pair of sockets, whose other end is the server's."""

    def __init__(self) -> None:
        self._sock, self.server = socket.socketpair()

    def disconnect(self) -> None:
        self._sock.close()


@pytest.fixture
def connection() -> Iterator[Connection]:
    """Return a connection to a server that says what the test says."""
    found = Connection()
    with found._sock, found.server:
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
def test_answer_is_understood_wherever_it_is_cut(
    connection: Connection, sent: bytes, expected: Any
) -> None:
    """The network may deliver it in any two pieces."""
    wire = RedisWire(connection)
    for cut in range(1, len(sent)):
        wire.outstanding = 1
        connection.server.sendall(sent[:cut])
        assert wire.hears(60)
        assert receive_in_time(wire) is MORE
        assert wire.outstanding == 1
        connection.server.sendall(sent[cut:])
        assert wire.receive() == expected
        assert wire.outstanding == 0
        assert not wire.has_ended()


MORE = object()


def receive_in_time(wire: Any) -> Any:
    """Return the answer, or MORE if it isn't all there."""
    wire._socket.settimeout(0)
    try:
        return wire.receive()
    except BlockingIOError:
        return MORE
    finally:
        wire._socket.settimeout(None)


def test_answers_are_understood_byte_by_byte(connection: Connection) -> None:
    """One after the other, though nothing is between them; by async code as well."""
    text = b"".join(sent for sent, _ in ANSWERS)
    expected = [answer for _, answer in ANSWERS]
    wire = RedisWire(connection)
    found = []
    for at in range(len(text)):
        connection.server.sendall(text[at : at + 1])
        answer = receive_in_time(wire)
        if answer is not MORE:
            found.append(answer)
    assert found == expected
    connection.server.sendall(text)
    assert [wire.receive() for _ in expected] == expected

    async def receive_all() -> list[Any]:
        receiving = asyncio.create_task(receive_each())
        for at in range(len(text)):
            connection.server.sendall(text[at : at + 1])
            await asyncio.sleep(0)
        return await receiving

    async def receive_each() -> list[Any]:
        return [await wire.areceive() for _ in expected]

    assert asyncio.run(receive_all()) == expected


@pytest.mark.parametrize("sent", ERRORS)
def test_errors_are_answers(connection: Connection, sent: bytes) -> None:
    """Also among others; the first word tells them apart."""
    wire = RedisWire(connection)
    connection.server.sendall(sent + b"*2\r\n:1\r\n" + sent)
    alone, [one, among] = wire.receive(), wire.receive()
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
def test_word_that_tells_what_an_error_is_about(text: str, code: str) -> None:
    """In the texts of Redis 7.0 and 6.2."""
    assert code_of(text) == code


def test_who_listens_is_told(connection: Connection) -> None:
    """And others aren't."""
    wire = RedisWire(connection)
    connection.server.sendall(PUSH + b":1\r\n" + PUSH + b":1\r\n")
    assert wire.receive() == 1
    wire.is_told = True
    assert wire.receive() == [b"invalidate", [b"a"]]
    assert wire.hears(0)
    assert wire.receive() == 1
    assert not wire.hears(0)


@pytest.mark.parametrize(
    "sent", [b",1.5\r\n", b"#t\r\n", b"(1\r\n", b"HTTP/1.1 400\r\n", b"*1\r\n,1\r\n", b"\r\n"]
)
def test_what_is_no_answer_is_an_error(connection: Connection, sent: bytes) -> None:
    """Of types that Redis doesn't use for what is asked here, or of what is no Redis."""
    wire = RedisWire(connection)
    connection.server.sendall(sent)
    with pytest.raises(OSError, match=r"^not an answer of Redis: "):
        wire.receive()


def test_end_of_a_connection_is_an_error(connection: Connection) -> None:
    """Whether or not part of an answer has come."""
    wire = RedisWire(connection)
    connection.server.sendall(b"$5\r\nab")
    connection.server.close()
    assert wire.has_ended()
    with pytest.raises(ConnectionResetError, match="the server closed the connection"):
        wire.receive()
    wire.close()
    assert connection._sock.fileno() == -1


def test_commands_are_sent_as_bytes_of_any_length(connection: Connection) -> None:
    """All at once."""
    wire = RedisWire(connection)
    wire.send([("SET", "ä", 1), ("GET", b"\xff")])
    assert wire.outstanding == 2
    assert connection.server.recv(1_000) == (
        b"*3\r\n$3\r\nSET\r\n$2\r\n\xc3\xa4\r\n$1\r\n1\r\n*2\r\n$3\r\nGET\r\n$1\r\n\xff\r\n"
    )


def test_idle_connection_that_says_something_is_not_used(connection: Connection) -> None:
    """It would be taken for an answer."""
    wire = RedisWire(connection)
    assert not wire.has_ended()
    connection.server.sendall(b":1\r\n")
    assert wire.has_ended()


def encrypted(side: int) -> ssl.SSLContext:
    """Return what needs no certificate."""
    context = ssl.SSLContext(side)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("AECDH-AES128-SHA:@SECLEVEL=0")
    return context


def test_answer_that_tls_has_read_already_is_not_waited_for(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The socket itself has nothing more to read then."""
    monkeypatch.setattr("django_distlock.backends.wires.CHUNK", 4)
    with ThreadPoolExecutor(1) as thread:
        wrapping = thread.submit(
            encrypted(ssl.PROTOCOL_TLS_SERVER).wrap_socket, connection.server, server_side=True
        )
        connection._sock = encrypted(ssl.PROTOCOL_TLS_CLIENT).wrap_socket(connection._sock)
        connection.server = wrapping.result(60)
    wire = RedisWire(connection)
    with connection._sock, connection.server:
        assert not wire.hears(0)
        connection.server.sendall(b":1\r\n:2\r\n:3\r\n")
        assert wire.receive() == 1
        assert not wire.has_ended()
        assert wire.hears(0)
        assert asyncio.run(asyncio.wait_for(wire.areceive(), 60)) == 2
        assert wire.receive() == 3
        assert not wire.hears(0)
