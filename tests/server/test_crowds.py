"""Many connections to a lock server, and many requests at once."""

from __future__ import annotations

import threading
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

import psutil
import pytest

from django_distlock.server import connection
from tests.support.concurrency import until
from tests.support.lock_client import LockClient, Serving, endpoint_of, friend, line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.servers import Server

pytestmark = pytest.mark.needs("lock_server")


def test_crowd_of_idle_and_slow_connections_does_not_block_others(roomy: Server) -> None:
    """A thousand are silent, half of them authenticated; fifty send a byte now and then."""
    endpoint = endpoint_of(roomy)
    with ExitStack() as connected, friend(endpoint) as client:
        for connect in (LockClient, friend):
            for _ in range(500):
                connected.enter_context(connect(endpoint))
        slow = [connected.enter_context(LockClient(endpoint)) for _ in range(50)]
        with trickling(slow):
            for _ in range(200):
                assert client.is_served()
            assert client.ask("status")["connections"] == 1_051
            with friend(endpoint) as newcomer:
                assert newcomer.is_served()
    with friend(endpoint) as client:
        until(lambda: client.ask("status")["connections"] == 1)


@contextmanager
def trickling(clients: list[LockClient]) -> Iterator[None]:
    """Send a byte now and then on these connections in the block; at least three each."""
    stop = threading.Event()

    def trickle() -> None:
        sent = 0
        while sent < 3 or not stop.wait(0.01):
            for client in clients:
                client.send(b" ")
            sent += 1

    thread = threading.Thread(target=trickle)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(60)
        assert not thread.is_alive()


def test_oldest_unauthenticated_connection_makes_room_for_a_new_one(
    tight: Server, tight_client: LockClient
) -> None:
    """Authenticated ones never do; a dropped one gets the reason."""
    endpoint = endpoint_of(tight)
    with ExitStack() as connected:
        friends = [tight_client, *(connected.enter_context(friend(endpoint)) for _ in range(2))]
        strangers = [connected.enter_context(LockClient(endpoint)) for _ in range(7)]
        for stranger in strangers:
            assert "challenge" in stranger.message()
        newcomers = [connected.enter_context(LockClient(endpoint)) for _ in range(3)]
        newcomers[0].introduce()
        assert [each.last_word() for each in strangers[:3]] == ["handshake"] * 3
        strangers[3].send(line(strangers[3].hello("")))
        assert strangers[3].last_word() == "secret"
        assert not any(each.has_something() for each in strangers[4:])
        assert all(each.is_served() for each in [*friends, newcomers[0]])


def test_authenticated_clients_are_not_dropped_for_newcomers(
    tight: Server, tight_client: LockClient
) -> None:
    """Newcomers get an error as long as there is no room."""
    endpoint = endpoint_of(tight)
    with ExitStack() as connected:
        friends = [tight_client, *(connected.enter_context(friend(endpoint)) for _ in range(9))]
        for _ in range(3):
            refused = connected.enter_context(LockClient(endpoint))
            assert refused.last_word() == "connections"
        assert all(each.is_served() for each in friends)
        assert tight_client.ask("status")["connections"] == 10
        friends.pop().close()
        until(lambda: tight_client.ask("status")["connections"] == 9)
        friends.append(connected.enter_context(friend(endpoint)))
        assert all(each.is_served() for each in friends)


def test_rejected_client_that_stays_takes_no_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It has time to read the reason, unless there are too many."""
    monkeypatch.setattr(connection, "CLOSE_TIMEOUT", 60)
    with Serving(max_connections=3) as running, ExitStack() as connected:
        endpoint = running.endpoint
        friends = [connected.enter_context(friend(endpoint)) for _ in range(3)]
        for _ in range(10):
            refused = connected.enter_context(LockClient(endpoint))
            assert refused.last_word() == "connections"
            assert len(running.service.admission.closing) <= 3
        friends.pop().close()
        until(lambda: len(running.service.admission.open) == 2)
        friends.append(connected.enter_context(friend(endpoint)))
        assert all(each.is_served() for each in friends)
        connected.close()
        until(lambda: not running.service.admission.closing)


@pytest.fixture
def full(roomy: Server) -> Iterator[LockClient]:
    """Return a client of a server with a thousand locks, a listing of which is long."""
    names = [f"{number:04}".ljust(255, "x") for number in range(1_000)]
    with friend(endpoint_of(roomy)) as client:
        for name in names:
            client.acquire(name, holder="h" * 900)
        yield client
        for name in names:
            client.release(name)


def test_client_that_does_not_read_is_disconnected(roomy: Server, full: LockClient) -> None:
    """Before its answers take much memory; others are served in the meantime."""
    running = roomy.executor.process
    assert running is not None
    process = psutil.Process(running.pid)
    before = process.memory_info().rss
    with friend(endpoint_of(roomy)) as client:
        cut_off = threading.Event()

        def ask() -> None:
            with suppress(ConnectionError):
                while True:
                    client.send(line({"do": "held"}) * 10_000)
            cut_off.set()

        thread = threading.Thread(target=ask)
        thread.start()
        until(lambda: full.is_served() and cut_off.is_set())
        thread.join(60)
    assert process.memory_info().rss - before < 150_000_000
    until(lambda: full.ask("status")["connections"] == 1)


def test_client_with_many_requests_lets_others_have_their_turn(
    roomy: Server, full: LockClient
) -> None:
    """Another client's request doesn't wait behind thousands."""
    with friend(endpoint_of(roomy)) as client:
        last = {"do": "acquire", "semaphore": "1234collectPayment", "owner": "slow", "ttl": 60}
        client.send(line({"do": "held", "limit": 1}) * 5_000 + line(last))
        client.message()
        assert full.acquire("1234collectPayment", "quick")
        for _ in range(4_999):
            assert len(client.message()["locks"]) == 1
        assert client.message()["token"] is None
        full.release("1234collectPayment", "quick")


def test_client_that_leaves_during_many_requests_does_no_harm(full: LockClient) -> None:
    """By closing, by garbage at the end, and by the stop of the server."""
    with Serving() as running, friend(running.endpoint) as other:
        with friend(running.endpoint) as gone:
            gone.send(line({"do": "held"}) * 5_000)
        with friend(running.endpoint) as client:
            client.send(line({"do": "held"}) * 5_000 + b"?\n")
            for _ in range(5_000):
                assert client.message()["locks"] == []
            assert client.last_word() == "frame"
        assert other.is_served()
        other.send(line({"do": "held"}) * 5_000)
        other.message()
        running.call(running.service.stop)
        while "error" not in (found := other.message()):
            assert "locks" in found
        assert found["error"] == "closing"
        assert other.read() is None
