"""Requests for which the lock server has to know this process."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from django_distlock import LockBackendUnavailable, acquire_lock, clocks
from django_distlock.backends.server import ServerBackend, listening
from django_distlock.backends.server.listening import Listener
from django_distlock.records import LeaseClaim
from tests.support.concurrency import run
from tests.support.holders import acquire
from tests.support.lock_server_command import SECRET
from tests.support.lock_servers import (
    ALIAS,
    PATIENCE,
    host_and_port,
    locks_at,
    locks_of,
    start_lock_server,
    waiting,
)
from tests.support.lossy_proxy import HoldingProxy
from tests.support.ports import HOST

if TYPE_CHECKING:
    from tests.support.servers import Server


@pytest.mark.needs("lock_server")
@pytest.mark.parametrize("option", [True, False])
def test_unreachable_server_is_reported_at_once_where_the_listener_is_needed(
    option: bool, unused_port: int
) -> None:
    """And not only when the timeout is over."""
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


@pytest.mark.needs("lock_server")
def test_paused_server_is_reported_in_time_where_the_listener_is_needed() -> None:
    """Even if it is the first for which this process would listen."""
    with start_lock_server() as server, locks_of(server, store_timeout=0.3) as store:
        with server.paused():
            before = clocks.monotonic()
            with pytest.raises(LockBackendUnavailable):
                store.join("1234collectPayment", "owner", "", print)
            assert clocks.monotonic() - before < 5


@pytest.mark.needs("lock_server")
def test_slow_connection_takes_no_longer_than_the_budget(lock_server: Server) -> None:
    """Even if each of its steps is in time."""
    with HoldingProxy(*host_and_port(lock_server)) as proxy:
        proxy.delay = 0.35
        with locks_at(lock_server, proxy.port, store_timeout=0.4):
            before = clocks.monotonic()
            with pytest.raises(LockBackendUnavailable, match=r"timed out|no answer"):
                acquire_lock("1234collectPayment", backend=ALIAS)
            assert clocks.monotonic() - before < 5


@pytest.mark.needs("lock_server")
def test_process_that_the_server_does_not_know_listens_again(lock_server: Server) -> None:
    """It then repeats the request, in a thread or a task."""

    async def acquire_in_task() -> None:
        assert await store.aacquire(
            "5678collectPayment", "owner", 1000, "", deadline=store.new_deadline()
        )

    with locks_of(lock_server, release_on_disconnect=True) as store:
        heard = Listener.of(store.server)
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


@pytest.mark.needs("lock_server")
def test_process_that_the_server_forgets_repeatedly_gets_an_error(
    lock_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gives up after a few times."""

    async def bind() -> None:
        await heard.abind({"do": "acquire"}, clocks.monotonic() + PATIENCE)

    monkeypatch.setattr(listening, "TRIES", 0)
    with locks_of(lock_server) as store:
        heard = Listener.of(store.server)
        with pytest.raises(LockBackendUnavailable, match="keeps losing the connection"):
            store.join("1234collectPayment", "owner", "", print)
        with pytest.raises(LockBackendUnavailable, match="keeps losing the connection"):
            run(bind())
