"""The lock server's backend: its settings, and what it makes of what a server says."""

from __future__ import annotations

import asyncio
import select
import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trustme

from django_distlock import (
    InvalidLockBackend,
    LockBackendUnavailable,
    acquire_lock,
    clocks,
    distributed_lock,
)
from django_distlock.backends.server import ServerBackend, listening
from django_distlock.backends.server.listening import listener
from django_distlock.checks import check_deployment, check_lock_backends
from django_distlock.records import LeaseClaim
from django_distlock.server.listings import PAGE
from django_distlock.server.protocol import VERSION, decode, encode, prove
from tests.support.concurrency import run
from tests.support.holders import acquire
from tests.support.lock_servers import (
    ALIAS,
    PATIENCE,
    host_and_port,
    locks_at,
    locks_by,
    locks_of,
    options_of,
    start_lock_server,
    waiting,
    write_secret,
)
from tests.support.lossy_proxy import HoldingProxy
from tests.support.ports import HOST
from tests.support.processes import forked

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.servers import Server

needs_server = pytest.mark.needs("lock_server")
needs_tls = pytest.mark.needs("lock_server_tls")
SECRET = "sixteen letters."


@pytest.fixture
def lock_server(servers: dict[str, Server]) -> Server:
    """Return the server that runs for all tests."""
    return servers["lock_server"]


@pytest.fixture
def tls_lock_server(servers: dict[str, Server]) -> Server:
    """Return the one that speaks TLS."""
    return servers["lock_server_tls"]


def why_not(server: Server, **options: Any) -> str:
    """Return why no lock can be had there by these options."""
    with locks_of(server, **options), pytest.raises(LockBackendUnavailable) as error:
        acquire_lock("1234collectPayment", backend=ALIAS)
    return str(error.value)


# Settings


@pytest.mark.parametrize(
    ("address", "written"),
    [
        ("127.0.0.1:7433", "127.0.0.1:7433"),
        ("[::1]:7433", "[::1]:7433"),
        ("localhost:1", "localhost:1"),
        ("unix:/run/locks", "unix:/run/locks"),
    ],
)
def test_address_has_several_forms(address: str, written: str) -> None:
    """All of them on this machine, so that they need no TLS."""
    backend = ServerBackend(ALIAS, address=address, secret=SECRET)
    assert str(backend.address) == written
    assert str(backend.server) == f"The lock server at {written}"
    assert not backend.tls


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give either secret, a text, or secret_file"),
        ({"secret": SECRET, "secret_file": "a"}, "give either secret, a text, or secret_file"),
        ({"secret": "short"}, "the secret has 5 bytes, but needs 16"),
        ({"secret": 1234}, "secret is a text"),
        ({"secret_file": "/nowhere"}, "No such file or directory: '/nowhere'"),
        ({"secret_file": "/"}, "Is a directory: '/'"),
        ({"secret": SECRET, "address": 7433}, "an address is a text such as"),
        ({"secret": SECRET, "address": "localhost"}, "'localhost' is none of"),
        ({"secret": SECRET, "address": "::1:7433"}, "stands in brackets"),
        ({"secret": SECRET, "address": "10.0.0.1:7433"}, "not on this machine: give tls"),
        ({"secret": SECRET, "address": "unix:/a", "tls": True}, "a unix socket needs no TLS"),
        ({"secret": SECRET, "address": "unix:/a", "tls_ca": "/a"}, "a unix socket needs no TLS"),
        ({"secret": SECRET, "tls_ca": "/nowhere"}, "tls_ca, '/nowhere', can't be used"),
        ({"secret": SECRET, "tls_ca": __file__}, "can't be used: .*NO_CERTIFICATE"),
        ({"secret": SECRET, "store_timeout": 0}, "store_timeout"),
        ({"secret": SECRET, "ttl": None}, "ServerBackend has no unlimited ttl"),
    ],
)
def test_wrong_settings_are_refused(options: dict[str, Any], message: str) -> None:
    """By the name of the setting; and the secret isn't shown."""
    with pytest.raises(InvalidLockBackend, match=rf"^DISTLOCK\['lock_server'\]: .*{message}") as e:
        ServerBackend(ALIAS, **options)
    assert SECRET not in str(e.value)


def test_secret_file_may_end_its_line(tmp_path: Path) -> None:
    """As editors do."""
    file = write_secret(tmp_path / "secret", f"{SECRET}\n".encode())
    assert ServerBackend(ALIAS, secret_file=str(file)).secret == SECRET.encode()


def test_secret_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    """By the name of the setting."""
    file = write_secret(tmp_path / "secret", SECRET.encode())
    file.chmod(0o644)
    message = rf"^DISTLOCK\['lock_server'\]: secret_file: .* chmod 600 {file}\.$"
    with pytest.raises(InvalidLockBackend, match=message):
        ServerBackend(ALIAS, secret_file=str(file))


def test_elsewhere_is_spoken_to_by_tls() -> None:
    """With the system's authorities, unless others are given."""
    assert ServerBackend(ALIAS, address="10.0.0.1:7433", secret=SECRET, tls=True).tls


@needs_server
@pytest.mark.parametrize(("ttl", "ids"), [(600, []), (600.5, ["distlock.E004"])])
def test_ttl_beyond_the_servers_is_told_by_the_checks_of_a_deployment(
    ttl: float, ids: list[str]
) -> None:
    """Only then: a plain check asks no server."""
    with start_lock_server("--max-ttl", "600") as running, locks_of(running, ttl=ttl):
        errors = [*check_deployment()]
        assert [error.id for error in errors] == ids
        if errors:
            assert errors[0].is_serious()
            assert errors[0].msg.startswith(
                f"DISTLOCK['lock_server']: The lock server at {HOST}:{running.port} grants 600 "
                "seconds at most, but ttl is 600.5:"
            )
            assert str(errors[0].hint).endswith("with --max-ttl 600.5.")
        assert [*check_lock_backends()] == []


def test_deployment_check_of_a_server_that_is_not_there_says_nothing(unused_port: int) -> None:
    """It need not run yet where a site is checked."""
    address = f"{HOST}:{unused_port}"
    with locks_by({"address": address, "secret": SECRET, "ttl": 1e6, "store_timeout": 0.5}):
        assert [*check_deployment()] == []


@needs_server
def test_wrong_secret_is_no_lock(lock_server: Server) -> None:
    """And says so."""
    assert "The secret is not the server's" in why_not(lock_server, secret=SECRET, secret_file=None)


@needs_tls
def test_wrong_secret_by_tls_is_no_lock(tls_lock_server: Server) -> None:
    """Nor an open socket."""
    assert "The secret is not the server's" in why_not(
        tls_lock_server, secret=SECRET, secret_file=None
    )


@needs_tls
def test_server_of_another_authority_is_not_trusted(
    tls_lock_server: Server, tmp_path: Path
) -> None:
    """It isn't told anything."""
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(other)
    assert "certificate verify failed" in why_not(tls_lock_server, tls_ca=str(other))


@needs_tls
def test_server_by_another_name_is_not_trusted(tls_lock_server: Server) -> None:
    """Its certificate is for another one."""
    address = f"localhost:{host_and_port(tls_lock_server)[1]}"
    assert "certificate is not valid for 'localhost'" in why_not(tls_lock_server, address=address)


@needs_tls
def test_server_that_is_spoken_to_without_tls_is_unavailable(tls_lock_server: Server) -> None:
    """It waits, and so do we, for a moment."""
    address = options_of(tls_lock_server)["address"]
    with locks_of(tls_lock_server, address=address, tls_ca=None, store_timeout=0.2):
        with pytest.raises(LockBackendUnavailable, match=r"timed out|no answer"):
            acquire_lock("1234collectPayment", backend=ALIAS)


@needs_server
@needs_tls
def test_server_without_tls_is_unavailable_by_tls(
    lock_server: Server, tls_lock_server: Server
) -> None:
    """In plain words at least."""
    assert "SSL" in why_not(lock_server, tls_ca=options_of(tls_lock_server)["tls_ca"])


def test_handshake_has_no_time_left_after_a_slow_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Which has taken all of it."""
    now = clocks.monotonic()
    with socket.create_server((HOST, 0)) as listening_socket:

        def later_when_connected() -> float:
            return now + 10 * len(select.select([listening_socket], [], [], 0)[0])

        monkeypatch.setattr(clocks, "monotonic", later_when_connected)
        address = f"{HOST}:{listening_socket.getsockname()[1]}"
        store = ServerBackend(ALIAS, address=address, secret=SECRET, tls=True)
        with pytest.raises(TimeoutError):
            store.server.connect(2)


def test_unix_socket_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    """As is a server that is down."""
    backend = ServerBackend(ALIAS, address=f"unix:{tmp_path}/none", secret=SECRET)
    with pytest.raises(LockBackendUnavailable, match="No such file or directory"):
        backend.acquire("1234collectPayment", "owner", 60, "")


@needs_server
def test_ttl_beyond_the_servers_is_refused_with_the_limit() -> None:
    """It is no outage, and nobody's lock."""
    with start_lock_server("--max-ttl", "100") as server, locks_of(server) as store:
        with pytest.raises(ValueError, match=r"ttl is from 0\.001 to 100 seconds, not 100\.5"):
            acquire_lock("1234collectPayment", backend=ALIAS, ttl=100.5)
        assert acquire(ALIAS, ttl=100).release()
        assert store.status()["locks"] == 0


@needs_server
def test_server_with_too_many_connections_is_unavailable() -> None:
    """And says why; who has one goes on."""
    with start_lock_server("--max-connections", "1") as server, locks_of(server):
        lease = acquire(ALIAS)
        with locks_of(server, store_timeout=PATIENCE + 1):  # so it has connections of its own
            with pytest.raises(LockBackendUnavailable, match="1 connections are open"):
                acquire_lock("1234collectPayment", backend=ALIAS)
        with locks_of(server):
            assert lease.release()


@needs_server
def test_renewals_fit_into_the_servers_frames() -> None:
    """However small these are."""
    with start_lock_server("--max-frame", "600") as server, locks_of(server) as store:
        leases = [acquire(ALIAS, f"lock {number}") for number in range(10)]
        for renewals in (store.renew(leases), run(renew(store, leases))):
            assert [renewals[lease.owner].renewed for lease in leases] == [True] * 10
        assert all(lease.release() for lease in leases)


async def renew(store: ServerBackend, leases: list[Any]) -> dict[str, Any]:
    """Renew in an event loop."""
    return await store.arenew(leases, deadline=store.new_deadline())


@needs_server
@pytest.mark.parametrize("release_on_disconnect", [True, False])
def test_nothing_to_renew_is_not_asked(lock_server: Server, release_on_disconnect: bool) -> None:
    """Or it is answered at once."""
    with locks_of(lock_server, release_on_disconnect=release_on_disconnect) as store:
        assert store.renew([]) == {}
        assert run(renew(store, [])) == {}


@needs_server
def test_holder_is_shortened_to_what_the_server_takes(lock_server: Server) -> None:
    """It is for people, who know what is meant."""
    with (
        locks_of(lock_server) as store,
        distributed_lock("1234collectPayment", backend=ALIAS, label="\ud800" * 200),
    ):
        [lock] = store.held("1234collectPayment", limit=1)
        assert len(lock.holder) == 1000
        assert lock.holder.startswith(r"\ud800")
        assert lock.holder.endswith("…")


@needs_server
def test_more_locks_are_listed_than_fit_into_a_page(lock_server: Server) -> None:
    """In the order of their semaphores, all of them or the first ones."""
    names = [f"many {number:04}" for number in range(PAGE + 100)]
    acquire_all = [
        {"do": "acquire", "semaphore": name, "owner": name, "ttl": 60, "holder": ""}
        for name in names
    ]
    release_all = [{"do": "release", "semaphore": name, "owner": name} for name in names]
    with locks_of(lock_server) as store:
        store.server.ask_several(acquire_all, clocks.monotonic() + 30)
        assert [lock.semaphore for lock in store.held("many")] == names
        assert [lock.semaphore for lock in store.held("many", PAGE + 1)] == names[: PAGE + 1]
        assert [lock.semaphore for lock in store.held("many", 2)] == names[:2]
        store.server.ask_several(release_all, clocks.monotonic() + 30)


@needs_server
def test_force_release_of_what_is_held_no_more_is_told_to_nobody(
    lock_server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """The operator came too late."""
    with locks_of(lock_server) as store:
        assert not store.force_release("1234collectPayment", 1)
    assert not caplog.records


# What a server says


@contextmanager
def conversations(*answers: list[dict[str, Any]], proves: bool = True) -> Iterator[ServerBackend]:
    """Let there be a server that says these things to requests, on one connection each.

    Nothing at all in the place of what is empty.
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
    """The server hasn't seen the request."""
    with conversations([IDLE], [PONG]) as store:
        assert store.status() == PONG


def test_connection_that_is_closed_at_that_moment_is_replaced_for_tasks() -> None:
    """Likewise."""

    async def ask(store: ServerBackend) -> dict[str, Any]:
        return await store.server.aask({"do": "status"}, clocks.monotonic() + PATIENCE)

    with conversations([IDLE], [PONG]) as store:
        assert asyncio.run(ask(store)) == PONG


def test_last_words_are_the_answer_to_all_that_was_asked() -> None:
    """So that all of it is asked again."""
    requests: list[dict[str, Any]] = [{"do": "status"}] * 2
    with conversations([IDLE, {}], [PONG, PONG]) as store:
        assert store.server.ask_several(requests, clocks.monotonic() + PATIENCE) == [PONG, PONG]


def test_connection_with_last_words_is_not_used_again() -> None:
    """Though its end may come later."""
    closing = {"error": "closing", "text": "The server stops."}
    with conversations([closing, {}], [PONG]) as store:
        with pytest.raises(LockBackendUnavailable, match="The server stops"):
            store.status()
        assert store.status() == PONG


def test_server_that_does_not_know_the_secret_is_not_trusted() -> None:
    """Whatever it says."""
    with conversations([], proves=False) as store:
        with pytest.raises(LockBackendUnavailable, match="doesn't know the secret"):
            store.status()


@pytest.mark.parametrize(
    ("greeting", "message"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n", "that is no lock server: not JSON"),
        (b"[]\n", "that is no lock server: not a JSON object"),
        (b'{"distlock":2,"challenge":"c"}\n', "it doesn't speak version 1"),
        (b'{"distlock":1}\n', "it doesn't speak version 1"),
        (b"", "the server closed the connection"),
    ],
)
def test_what_is_no_lock_server_of_ours_is_unavailable(greeting: bytes, message: str) -> None:
    """And told nothing."""

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


@needs_server
def test_connection_waits_for_nothing_after_its_handshake(lock_server: Server) -> None:
    """The server speaks first: that is no answer."""
    with locks_of(lock_server) as store:
        wire = store.server.connect(PATIENCE)
        assert wire.outstanding == 0
        wire.close()


# What needs the server to know this process


@needs_server
@pytest.mark.parametrize("option", [True, False])
def test_who_needs_the_listener_of_a_server_that_is_down_is_told_at_once(
    option: bool, unused_port: int
) -> None:
    """Not only when his time is over."""
    address = f"{HOST}:{unused_port}"
    store = ServerBackend(
        ALIAS, address=address, secret=SECRET, release_on_disconnect=option, store_timeout=30
    )

    async def ask() -> None:
        await store.aacquire("1234collectPayment", "owner", 0.1, "", deadline=store.new_deadline())

    before = clocks.monotonic()
    with pytest.raises(LockBackendUnavailable, match="Connection refused"):
        store.acquire("1234collectPayment", "owner", 0.1, "")
    with pytest.raises(LockBackendUnavailable, match="Connection refused"):
        store.join("1234collectPayment", "owner", "", print)
    with pytest.raises(LockBackendUnavailable, match="Connection refused"):
        asyncio.run(ask())
    assert clocks.monotonic() - before < 15


@needs_server
def test_who_needs_the_listener_of_a_server_that_is_paused_is_told_in_time() -> None:
    """Also if he is the first for whom this process would listen."""
    with start_lock_server() as server, locks_of(server, store_timeout=0.3) as store:
        with server.paused():
            before = clocks.monotonic()
            with pytest.raises(LockBackendUnavailable):
                store.join("1234collectPayment", "owner", "", print)
            assert clocks.monotonic() - before < 5


@needs_server
def test_slow_connection_takes_no_longer_than_the_budget(lock_server: Server) -> None:
    """Though each of its steps would be in time."""
    with HoldingProxy(*host_and_port(lock_server)) as proxy:
        proxy.delay = 0.35
        with locks_at(lock_server, proxy.port, store_timeout=0.4):
            before = clocks.monotonic()
            with pytest.raises(LockBackendUnavailable, match=r"timed out|no answer"):
                acquire_lock("1234collectPayment", backend=ALIAS)
            assert clocks.monotonic() - before < 5


@needs_server
def test_process_that_the_server_does_not_know_listens_anew(lock_server: Server) -> None:
    """And then asks again, in a thread or a task."""

    async def acquire_in_task() -> None:
        assert await store.aacquire(
            "5678collectPayment", "owner", 1000, "", deadline=store.new_deadline()
        )

    with locks_of(lock_server, release_on_disconnect=True) as store:
        heard = listener(store.server)
        lease = acquire(ALIAS, ttl=1000, renew=False)
        heard.process = "0" * 32
        waits = store.join("1234collectPayment", "owner", "", print)
        assert waits
        assert waiting(store) == 1
        waits.leave(granted=False)
        heard.process = "1" * 32
        run(acquire_in_task())
        lease.release()
        assert store.release(LeaseClaim("5678collectPayment", "owner", 1000))


@needs_server
def test_process_that_the_server_forgets_again_and_again_is_told(
    lock_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gives up after a few times."""

    async def bind() -> None:
        await heard.abind({"do": "acquire"}, clocks.monotonic() + PATIENCE)

    monkeypatch.setattr(listening, "TRIES", 0)
    with locks_of(lock_server) as store:
        heard = listener(store.server)
        with pytest.raises(LockBackendUnavailable, match="loses the connection"):
            store.join("1234collectPayment", "owner", "", print)
        with pytest.raises(LockBackendUnavailable, match="loses the connection"):
            run(bind())


# Forks


@needs_server
def test_forked_child_has_connections_of_its_own(lock_server: Server) -> None:
    """Both sides ask at the same time, each many times, and each gets its own answers."""

    def work() -> None:
        for number in range(300):
            name = f"{threading.get_native_id()} {number}"
            with distributed_lock(name, backend=ALIAS, renew=False) as lease:
                assert lease.semaphore == name
                assert acquire_lock("1234collectPayment", backend=ALIAS) is None

    with locks_of(lock_server):
        lease = acquire(ALIAS)
        assert acquire_lock("1234collectPayment", backend=ALIAS) is None
        with forked(work):
            work()
        assert lease.release()
