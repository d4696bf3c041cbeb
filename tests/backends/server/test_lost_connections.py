"""Connections to lock servers that end, and replies that are lost."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from django_distlock import LockBackendUnavailable, aacquire_lock, acquire_lock, clocks
from django_distlock.backends.server import listening, places
from django_distlock.server import requests
from tests.support.concurrency import run, until
from tests.support.holders import acquire
from tests.support.lock_client import Serving
from tests.support.lock_server_holders import take
from tests.support.lock_servers import ALIAS, PATIENCE, is_unused, locks_at, waiting

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import ThreadPoolExecutor

    from django_distlock import Lease
    from django_distlock.backends.server import ServerBackend
    from django_distlock.backends.server.places import QueuedPlace
    from django_distlock.server.service import Service
    from tests.support.lock_server_proxy import LockServerProxy
    from tests.support.servers import Server

pytestmark = [pytest.mark.needs("lock_server"), pytest.mark.once]


@pytest.fixture
def pings(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Collect the pings that servers of this process have answered."""
    found: list[object] = []
    ping = requests.ACTIONS["ping"]

    def answer(service: Service, request: dict[str, Any]) -> dict[str, Any]:
        found.append(request)
        return ping(service, request)

    monkeypatch.setitem(requests.ACTIONS, "ping", answer)
    return found


def test_server_closes_idle_connections_and_the_next_call_just_works() -> None:
    """The next call may be in a thread or a task."""
    with Serving(idle=30, handshake=10) as running, running.locks():
        lease = acquire(ALIAS)
        connections = running.service.admission.open
        running.let_wait(10)
        for renew in (lease.renew, lambda: run(lease.arenew()), lease.renew):
            assert len(connections) == 1
            running.let_wait(30)
            assert len(connections) == 0
            renew()
            running.let_wait(10)
        assert lease.release()


def test_waiting_process_keeps_its_silent_connection(
    threads: ThreadPoolExecutor,
    joined: list[QueuedPlace],
    pings: list[object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The process keeps its place, too: the listener pings three times as often as needed."""
    monkeypatch.setattr(listening, "PING_EVERY", 3600)
    with Serving(idle=0.3, handshake=10) as running, running.locks():
        lease = acquire(ALIAS)
        wait = threads.submit(take)
        until(lambda: len(joined) == 1)
        [process] = running.service.processes.by_name.values()
        connection = process.connection
        running.let_wait(10)
        for _ in range(3):
            pings.clear()
            until(lambda: bool(pings))
            running.let_wait(0.3)
        assert process.connection is connection
        assert list(running.service.processes.by_name.values()) == [process]
        assert len(running.service.table.waiters) == 1
        assert lease.release()
        assert wait.result(30)


def test_listener_whose_connection_is_lost_makes_another_one(
    spare_lock_server: Server,
    lock_server_store: ServerBackend,
    lock_server_proxy: LockServerProxy,
    threads: ThreadPoolExecutor,
) -> None:
    """Waiters keep waiting, in the order of joining."""
    with locks_at(spare_lock_server, lock_server_proxy.port):
        lease = acquire(ALIAS)
        waits = []
        for number in range(5):
            waits.append(threads.submit(take))
            until(lambda number=number: waiting(lock_server_store) == number + 1)  # type: ignore[misc]
        for number in range(3):
            assert lock_server_proxy.listeners == number + 1
            lock_server_proxy.cut_listener()
            until(lambda number=number: lock_server_proxy.listeners == number + 2)  # type: ignore[misc]
        until(lambda: waiting(lock_server_store) == 5)
        assert lease.release()
        tokens = [each.result(30) or 0 for each in waits]
    assert tokens == sorted(tokens)


def test_lost_reply_of_a_grant_finds_the_grant(
    spare_lock_server: Server, lock_server_store: ServerBackend, lock_server_proxy: LockServerProxy
) -> None:
    """The second try is the same owner's, and not refused by its own grant."""
    with locks_at(spare_lock_server, lock_server_proxy.port):
        lock_server_proxy.lose_replies(b'"acquire"', 1)
        lease = acquire(ALIAS)
        assert lock_server_proxy.losses == 0
        [lock] = lock_server_store.held()
        assert lock.token == lease.token
        assert acquire_lock("1234collectPayment", backend=ALIAS) is None
        assert lease.release() is True


def test_lost_reply_of_a_release_is_a_release(
    spare_lock_server: Server, lock_server_store: ServerBackend, lock_server_proxy: LockServerProxy
) -> None:
    """The second request finds nothing to release, and that does not count as a loss."""
    with locks_at(spare_lock_server, lock_server_proxy.port):
        lease = acquire(ALIAS)
        lock_server_proxy.lose_replies(b'"release"', 1)
        assert lease.release() is True
        assert lock_server_proxy.losses == 0


def test_release_can_be_tried_again(
    spare_lock_server: Server, lock_server_store: ServerBackend, lock_server_proxy: LockServerProxy
) -> None:
    """Even if both requests were lost."""
    with locks_at(spare_lock_server, lock_server_proxy.port):
        lease = acquire(ALIAS)
        lock_server_proxy.lose_requests(b'"release"', 2)
        with pytest.raises(LockBackendUnavailable):
            lease.release()
        assert lock_server_store.status()["locks"] == 1
        assert lease.release() is True


@pytest.mark.parametrize("what", ["requests", "replies"])
@pytest.mark.parametrize("release_on_disconnect", [False, True])
def test_acquisition_without_answer_leaves_no_lock(
    spare_lock_server: Server,
    lock_server_store: ServerBackend,
    lock_server_proxy: LockServerProxy,
    what: str,
    release_on_disconnect: bool,
) -> None:
    """A possible grant is released."""
    ways: list[Callable[[], object]] = [
        lambda: acquire_lock("1234collectPayment", backend=ALIAS),
        lambda: run(aacquire_lock("1234collectPayment", backend=ALIAS)),
    ]
    with locks_at(
        spare_lock_server, lock_server_proxy.port, release_on_disconnect=release_on_disconnect
    ):
        for acquire_it in ways:
            getattr(lock_server_proxy, f"lose_{what}")(b'"acquire"', 2)
            with pytest.raises(LockBackendUnavailable):
                acquire_it()
            assert lock_server_proxy.losses == 0
            until(lambda: is_unused(lock_server_store))


def test_task_that_is_cancelled_before_the_answer_leaves_no_lock(
    spare_lock_server: Server,
    lock_server_store: ServerBackend,
    lock_server_proxy: LockServerProxy,
) -> None:
    """A possible grant is released on the same connection, which is then closed."""

    async def said(marker: bytes, times: int) -> None:
        await asyncio.to_thread(until, lambda: lock_server_proxy.heard(marker) == times)

    async def main() -> None:
        with locks_at(spare_lock_server, lock_server_proxy.port) as mine:
            lease = await aacquire_lock("5678collectPayment", backend=ALIAS)
            assert lease is not None
            with spare_lock_server.paused():
                trying = asyncio.create_task(aacquire_lock("1234collectPayment", backend=ALIAS))
                await said(b'"acquire"', 2)
                trying.cancel()
                await said(b'"release"', 1)
            before = clocks.monotonic()
            with pytest.raises(asyncio.CancelledError):
                await trying
            assert clocks.monotonic() - before < PATIENCE / 2  # nothing else is waited for
            assert not await asyncio.to_thread(lambda: [*mine.held("1234collectPayment")])
            assert await lease.arelease()

    run(main())


def test_many_resets_never_let_two_in(
    spare_lock_server: Server,
    lock_server_store: ServerBackend,
    lock_server_proxy: LockServerProxy,
    threads: ThreadPoolExecutor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Four threads use connections that are all reset sooner or later."""
    monkeypatch.setattr(places, "SAFETY", 0.2)
    monkeypatch.setattr("django_distlock.backends.listening.FIRST_PAUSE", 0.01)
    inside: list[str] = []

    def release(lease: Lease) -> None:
        released = False
        while not released:
            with suppress(LockBackendUnavailable):
                released = lease.release()

    def work(name: str) -> int:
        granted = 0
        while granted < 30:
            with suppress(LockBackendUnavailable):
                lease = acquire_lock("1234collectPayment", backend=ALIAS, timeout=60, ttl=10)
                assert lease is not None
                inside.append(name)
                time.sleep(0)
                assert inside == [name]
                inside.remove(name)
                release(lease)
                granted += 1
        return granted

    lock_server_proxy.reset_connections(1, 10_000, within=25)
    with locks_at(spare_lock_server, lock_server_proxy.port):
        assert sum(threads.map(work, "abcd")) == 120
        assert lock_server_proxy.resets > 20
        lock_server_proxy.reset_connections(0, 0)
        until(lambda: is_unused(lock_server_store))
