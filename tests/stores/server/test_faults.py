"""Faults of lock servers, and of the network before them, and what their clients make of them."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest

from django_distlock import (
    LockBackendUnavailable,
    aacquire_lock,
    acquire_lock,
    clocks,
    distributed_lock,
)
from django_distlock.backends.server import listening
from django_distlock.server import requests
from tests.support.concurrency import run, until
from tests.support.holders import acquire, due_now, renewed_since
from tests.support.lock_client import Serving
from tests.support.lock_servers import (
    ALIAS,
    MOVED_CLOCK,
    PATIENCE,
    is_unused,
    locks_at,
    locks_of,
    move_clock,
    start_careful_lock_server,
    waiting,
    workers_at,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import ThreadPoolExecutor
    from pathlib import Path

    from django_distlock import Lease
    from django_distlock.backends.server import ServerBackend
    from django_distlock.backends.server.listening import QueuedPlace
    from django_distlock.server.service import Service
    from tests.support.lock_server_proxy import LockServerProxy
    from tests.support.moved_clock import MovedClock
    from tests.support.servers import Server

pytestmark = [pytest.mark.needs("lock_server"), pytest.mark.once]


def take(**arguments: Any) -> int | None:
    """Wait for the lock, and give it back at once; return the token."""
    with distributed_lock(
        "1234collectPayment", backend=ALIAS, **{"timeout": 60, **arguments}
    ) as lease:
        return lease.token


async def take_in_task() -> int | None:
    """Do so in a task."""
    async with distributed_lock("1234collectPayment", backend=ALIAS, timeout=60) as lease:
        return lease.token


# Servers that end, and come back


def renew_now(lease: Lease) -> None:
    """Let the background renew it, and wait until it has."""
    renewed = renewed_since([lease])
    due_now([lease])
    until(renewed)


def test_killed_server_lets_holders_keep_what_they_have(
    threads: ThreadPoolExecutor,
    lost: dict[Lease, str],
    joined: list[QueuedPlace],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And grants nothing to others until all had time to say so; who waits goes on to."""
    monkeypatch.setattr(listening, "SAFETY", 0.2)  # he tries now and then, in vain
    limits = "--max-ttl=1000", "--idle=100000"
    with (
        start_careful_lock_server(*limits, settings=MOVED_CLOCK) as server,
        locks_of(server, ttl=1000) as store,
    ):
        lease = acquire(ALIAS)
        token = lease.token or 0
        waits = [threads.submit(take), threads.submit(lambda: run(take_in_task()))]
        until(lambda: len(joined) == 2)
        server.kill()
        with pytest.raises(LockBackendUnavailable):
            acquire_lock("5678collectPayment", backend=ALIAS)
        server.start()
        with pytest.raises(LockBackendUnavailable, match="Nothing is granted"):
            acquire_lock("5678collectPayment", backend=ALIAS, timeout=30)
        renew_now(lease)
        assert store.status()["grace"] > 0
        [lock] = store.held()
        assert lock.token == lease.token == token
        assert acquire_lock("1234collectPayment", backend=ALIAS) is None
        until(lambda: waiting(store) == 2)
        move_clock(server.directory, 600)
        renew_now(lease)
        assert store.status()["grace"] > 0
        move_clock(server.directory, 1100)
        assert store.status()["grace"] == 0
        with distributed_lock("5678collectPayment", backend=ALIAS) as other:
            assert (other.token or 0) > token
        assert lease.held
        assert not any(each.done() for each in waits)
        assert lease.release() is True
        assert all((each.result(30) or 0) > token for each in waits)
        assert not lost


def test_server_that_stops_in_order_goes_on_where_it_was(
    threads: ThreadPoolExecutor, lost: dict[Lease, str], joined: list[QueuedPlace]
) -> None:
    """It grants at once what is free, and nothing that is held."""
    with start_careful_lock_server() as server, locks_of(server) as store:
        lease = acquire(ALIAS, ttl=1000)
        waits = [threads.submit(take), threads.submit(lambda: run(take_in_task()))]
        until(lambda: len(joined) == 2)
        server.restart()
        with distributed_lock("5678collectPayment", backend=ALIAS) as other:
            assert (other.token or 0) > (lease.token or 0)
        assert acquire_lock("1234collectPayment", backend=ALIAS) is None
        lease.renew()
        until(lambda: waiting(store) == 2)
        assert lease.release() is True
        assert all((each.result(30) or 0) > (lease.token or 0) for each in waits)
        assert not lost


def test_lease_that_is_not_renewed_is_released_after_a_kill() -> None:
    """While nothing is granted: the server hears of it for the first time."""
    with start_careful_lock_server() as server, locks_of(server) as store:
        lease = acquire(ALIAS, ttl=1000, renew=False)
        server.kill()
        server.start()
        assert store.status()["locks"] == 0
        assert lease.release() is True
        assert not [lock for lock in store.held() if lock.holder]


def test_wait_that_ends_while_the_server_is_down_ends_so(
    threads: ThreadPoolExecutor,
    joined: list[QueuedPlace],
    moved_clock: MovedClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nobody can say that the lock is held."""
    monkeypatch.setattr(listening, "SAFETY", 0.1)
    with start_careful_lock_server() as server, locks_of(server):
        lease = acquire(ALIAS, ttl=1000, renew=False)
        wait = threads.submit(take, timeout=100)
        until(lambda: len(joined) == 1)
        server.kill()
        moved_clock.advance(100)
        with pytest.raises(LockBackendUnavailable, match=r"refused|no answer"):
            wait.result(30)
        lease.mark_unreleased()
        with suppress(LockBackendUnavailable):
            lease.release()
        server.start()


def test_many_processes_lose_no_increment_as_the_server_is_killed(tmp_path: Path) -> None:
    """And restarted: none holds the lock that another one has; their tokens rise."""
    file = tmp_path / "counter"
    file.write_text("0")
    with start_careful_lock_server("--max-ttl", "5") as server:
        with workers_at(server, 4, "count_anyway", ALIAS, str(file), "50", "5") as workers:
            until(lambda: int(file.read_text() or 0) >= 50)
            server.kill()
            server.start()
            grants = sorted(tuple(grant) for result in workers.results() for grant in result)
    assert file.read_text() == "200"
    tokens = [token for _, token in grants]
    assert len(tokens) == 200
    assert tokens == sorted(set(tokens))


def test_many_processes_lose_no_increment_as_connections_are_reset(
    spare_lock_server: Server,
    lock_server_store: ServerBackend,
    lock_server_proxy: LockServerProxy,
    tmp_path: Path,
) -> None:
    """Each of them, sooner or later."""
    file = tmp_path / "counter"
    file.write_text("0")
    lock_server_proxy.reset_connections(1, 10_000, within=40)
    address = f"127.0.0.1:{lock_server_proxy.port}"
    command = "count_anyway", ALIAS, str(file), "25", "10"
    with workers_at(spare_lock_server, 4, *command, address=address) as workers:
        grants = sorted(tuple(grant) for result in workers.results() for grant in result)
    assert lock_server_proxy.resets > 20
    assert file.read_text() == "100"
    tokens = [token for _, token in grants]
    assert tokens == sorted(set(tokens))


# Servers that answer nothing


def test_server_that_answers_nothing_is_unavailable_in_time(spare_lock_server: Server) -> None:
    """And what it does later leaves no lock."""
    with locks_of(spare_lock_server) as patient:
        lease = acquire(ALIAS, "mine", ttl=1000)
        with locks_of(spare_lock_server, store_timeout=0.2) as store:
            warm(store)
            with spare_lock_server.paused():
                for action in (  # by a warm connection, and then by new ones
                    lambda: acquire_lock("1234collectPayment", backend=ALIAS),
                    lambda: acquire_lock("5678collectPayment", backend=ALIAS),
                    lambda: run(aacquire_lock("5678collectPayment", backend=ALIAS)),
                    lambda: [*store.held()],
                    lambda: store.force_release("mine", 1),
                    lease.renew,
                    lease.release,
                ):
                    before = clocks.monotonic()
                    with pytest.raises(LockBackendUnavailable):
                        action()
                    assert clocks.monotonic() - before < 5
        assert acquire(ALIAS, "9012collectPayment").release()
        assert lease.release()
        until(lambda: is_unused(patient))


def warm(store: ServerBackend) -> None:
    """Ask the server until it has answered in time."""
    answers: list[object] = []

    def has_answered() -> bool:
        with suppress(LockBackendUnavailable):
            answers.append(store.status())
        return bool(answers)

    until(has_answered)


def test_late_answer_is_nobodys(
    spare_lock_server: Server, lock_server_proxy: LockServerProxy, threads: ThreadPoolExecutor
) -> None:
    """Who asks next has another connection."""
    with locks_at(spare_lock_server, lock_server_proxy.port) as store:
        assert acquire(ALIAS).release()
        assert lock_server_proxy.connections == 1
        with spare_lock_server.paused():
            with mock.patch.object(store.time_budget(), "seconds", 0.1):
                with pytest.raises(LockBackendUnavailable, match=r"no answer|timed out"):
                    acquire_lock("1234collectPayment", backend=ALIAS)
            asked = threads.submit(store.status)
            until(lambda: lock_server_proxy.connections == 2)
        assert "limits" in asked.result(30)
        until(lambda: is_unused(store))


def test_waiter_outlasts_a_pause_of_the_server(
    spare_lock_server: Server,
    threads: ThreadPoolExecutor,
    joined: list[QueuedPlace],
    lost: dict[Lease, str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Though by then nobody listens to it any more."""
    monkeypatch.setattr(listening, "SAYS_EVERY", 0.1)
    with locks_of(spare_lock_server) as store:
        lease = acquire(ALIAS)
        waits = [threads.submit(take), threads.submit(lambda: run(take_in_task()))]
        until(lambda: len(joined) == 2)
        with spare_lock_server.paused(), mock.patch.object(store.server, "timeout", 0.1):
            until(lambda: "can't be listened to" in caplog.text)
        assert not any(each.done() for each in waits)
        until(lambda: waiting(store) == 2)
        assert lease.release()
        assert all(each.result(30) for each in waits)
        until(lambda: is_unused(store))
        assert not lost


@pytest.mark.parametrize("forgets", [False, True])
def test_listener_notices_that_nothing_comes_any_more(
    spare_lock_server: Server,
    lock_server_store: ServerBackend,
    lock_server_proxy: LockServerProxy,
    threads: ThreadPoolExecutor,
    joined: list[QueuedPlace],
    monkeypatch: pytest.MonkeyPatch,
    forgets: bool,
) -> None:
    """As when a firewall drops the connection; whoever waits is heard again."""
    monkeypatch.setattr(listening, "SAYS_EVERY", 0.1)
    with locks_at(spare_lock_server, lock_server_proxy.port) as mine:
        lease = acquire(ALIAS)
        wait = threads.submit(take)
        until(lambda: len(joined) == 1)
        listeners = lock_server_proxy.listeners
        with mock.patch.object(mine.server, "timeout", 0.3):
            lock_server_proxy.silence_listener(forgets=forgets)
            until(lambda: lock_server_proxy.listeners > listeners)
        until(lambda: waiting(lock_server_store) == 1)
        assert lease.release()
        assert wait.result(30)


# Connections that end


@pytest.fixture
def pings(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Return the pings that servers of this process have answered."""
    found: list[object] = []
    ping = requests.ACTIONS["ping"]

    def answer(service: Service, request: dict[str, Any]) -> dict[str, Any]:
        found.append(request)
        return ping(service, request)

    monkeypatch.setitem(requests.ACTIONS, "ping", answer)
    return found


def test_server_closes_idle_connections_and_the_next_call_just_works() -> None:
    """In a thread or a task."""
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


def test_who_waits_keeps_the_connection_on_which_nothing_is_said(
    threads: ThreadPoolExecutor,
    joined: list[QueuedPlace],
    pings: list[object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And the place: the listener pings three times as often as it has to."""
    monkeypatch.setattr(listening, "SAYS_EVERY", 3600)
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
    """Who waits keeps waiting, in the order in which they came."""
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
    """The second request finds nothing to release, and tells that from a loss."""
    with locks_at(spare_lock_server, lock_server_proxy.port):
        lease = acquire(ALIAS)
        lock_server_proxy.lose_replies(b'"release"', 1)
        assert lease.release() is True
        assert lock_server_proxy.losses == 0


def test_release_can_be_tried_again(
    spare_lock_server: Server, lock_server_store: ServerBackend, lock_server_proxy: LockServerProxy
) -> None:
    """Though both requests were lost."""
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
    """What may have been granted is given back."""
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
    """It is given back on the same connection, which is closed when that was answered."""

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
    """Of four threads, all of whose connections are reset sooner or later."""
    monkeypatch.setattr(listening, "SAFETY", 0.2)
    monkeypatch.setattr(listening, "PAUSE", 0.01)
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
