"""The orderly stop of a lock server: all clients are notified, and nothing is lost."""

from __future__ import annotations

import json
import threading
from contextlib import ExitStack, suppress
from typing import Any

import pytest

from tests.support.lock_client import ONE, LockClient, Serving, endpoint_of, friend, line
from tests.support.lock_servers import start_lock_server, state_file

pytestmark = pytest.mark.needs("lock_server")


def test_all_clients_are_notified_of_the_stop() -> None:
    """With and without a listening process, before the handshake, and during a request."""
    with start_lock_server() as running, ExitStack() as connected:
        endpoint = endpoint_of(running)
        clients = [connected.enter_context(friend(endpoint, process)) for process in (ONE, None)]
        stranger = connected.enter_context(LockClient(endpoint))
        assert "challenge" in stranger.message()
        clients[1].acquire("1234collectPayment", bound=ONE)
        clients[1].send(b'{"do":')
        running.stop()
        assert [each.last_word() for each in (*clients, stranger)] == ["closing"] * 3
        # Leases bound to a process are saved, too: it will listen to the next server.
        assert [lock[0] for lock in saved(running.directory)] == ["1234collectPayment"]


def saved(directory: Any) -> list[list[Any]]:
    """Return the locks that the server has saved."""
    found: list[list[Any]] = json.loads(state_file(directory).read_text())["locks"]
    return found


def test_nothing_is_answered_that_was_not_saved() -> None:
    """A lock that was granted before the stop is held after the next start."""
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


def test_client_that_connects_during_the_stop_is_notified() -> None:
    """It is not accepted."""
    with Serving() as running:
        running.call(running.service.stop)
        with LockClient(running.endpoint) as client:
            assert client.last_word() == "closing"


def test_client_that_leaves_during_the_stop_does_not_harm_others() -> None:
    """The connection may be gone after the message, before the server closes it."""
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


def test_aborted_connection_gets_no_message() -> None:
    """Even if its connection is still there when the server stops."""
    with Serving() as running, friend(running.endpoint) as client:
        [connection] = running.service.admission.open

        def stop() -> None:
            connection.abort()
            running.service.stop()

        running.call(stop)
        assert client.read() is None
