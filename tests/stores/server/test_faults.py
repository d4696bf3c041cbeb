"""Faults of lock servers, and of the network before them, and what their clients make of them."""

from __future__ import annotations

import asyncio
import re
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from django_distlock import (
    LockBackendUnavailable,
    aacquire_lock,
    acquire_lock,
    clocks,
    distributed_lock,
)
from django_distlock.backends.server import listening
from django_distlock.backends.server.listening import listener
from tests.support.concurrency import run, until
from tests.support.holders import acquire, renewed_since
from tests.support.lock_servers import (
    ALIAS,
    host_and_port,
    is_unused,
    locks_at,
    locks_of,
    start_careful_lock_server,
    start_lock_server,
    waiting,
    workers_at,
)
from tests.support.lossy_proxy import LossyProxy, chunks

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator
    from concurrent.futures import ThreadPoolExecutor
    from pathlib import Path

    from django_distlock import Lease
    from django_distlock.backends.server import ServerBackend
    from tests.support.servers import Server

pytestmark = [pytest.mark.needs("lock_server"), pytest.mark.once]
SOON = 1.0
"""Seconds that a call may take beyond its budget, on a busy machine."""


@pytest.fixture
def store(spare_lock_server: Server) -> Iterator[ServerBackend]:
    """Let the locks be there; at the end nobody has one, nor waits."""
    with locks_of(spare_lock_server) as running:
        yield running
        until(lambda: is_unused(running))


def take(**arguments: Any) -> int | None:
    """Wait for the lock, and give it back at once; return the token."""
    with distributed_lock("a", backend=ALIAS, **{"timeout": 60, **arguments}) as lease:
        return lease.token


async def take_in_task() -> int | None:
    """Do so in a task."""
    async with distributed_lock("a", backend=ALIAS, timeout=60) as lease:
        return lease.token


# Servers that end, and come back


def test_killed_server_lets_holders_keep_what_they_have(
    threads: ThreadPoolExecutor, lost: dict[Lease, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And grants nothing to others until all had time to say so; who waits goes on to."""
    monkeypatch.setattr(listening, "SAFETY", 0.2)  # he tries now and then, in vain
    with start_careful_lock_server("--max-ttl", "6") as server, locks_of(server, ttl=6) as store:
        lease = acquire(ALIAS)
        token = lease.token or 0
        waits = [threads.submit(take), threads.submit(lambda: run(take_in_task()))]
        until(lambda: waiting(store) == 2)
        server.kill()
        with pytest.raises(LockBackendUnavailable):
            acquire_lock("b", backend=ALIAS)
        server.start()
        renewed = renewed_since([lease])
        with pytest.raises(LockBackendUnavailable, match="Nothing is granted"):
            acquire_lock("b", backend=ALIAS, timeout=30)
        until(renewed)
        assert store.status()["grace"] > 0
        [lock] = store.held()
        assert lock.token == lease.token == token
        assert acquire_lock("a", backend=ALIAS) is None
        until(lambda: waiting(store) == 2)
        until(lambda: store.status()["grace"] == 0)
        with distributed_lock("b", backend=ALIAS) as other:
            assert (other.token or 0) > token
        assert lease.held
        assert not any(each.done() for each in waits)
        assert lease.release() is True
        assert all((each.result(30) or 0) > token for each in waits)
        assert not lost


def test_server_that_stops_in_order_goes_on_where_it_was(
    threads: ThreadPoolExecutor, lost: dict[Lease, str]
) -> None:
    """It grants at once what is free, and nothing that is held."""
    with start_careful_lock_server() as server, locks_of(server) as store:
        lease = acquire(ALIAS)
        waits = [threads.submit(take), threads.submit(lambda: run(take_in_task()))]
        until(lambda: waiting(store) == 2)
        server.restart()
        with distributed_lock("b", backend=ALIAS) as other:
            assert (other.token or 0) > (lease.token or 0)
        assert acquire_lock("a", backend=ALIAS) is None
        lease.renew()
        until(lambda: waiting(store) == 2)
        assert lease.release() is True
        assert all((each.result(30) or 0) > (lease.token or 0) for each in waits)
        assert not lost


def test_lease_that_is_not_renewed_is_released_after_a_kill() -> None:
    """While nothing is granted: the server hears of it for the first time."""
    with start_careful_lock_server() as server, locks_of(server) as store:
        lease = acquire(ALIAS, renew=False)
        server.kill()
        server.start()
        assert store.status()["locks"] == 0
        assert lease.release() is True
        assert not [lock for lock in store.held() if lock.holder]


def test_wait_that_ends_while_the_server_is_down_ends_so(threads: ThreadPoolExecutor) -> None:
    """Nobody can say that the lock is held."""
    with start_careful_lock_server() as server, locks_of(server) as store:
        lease = acquire(ALIAS, renew=False)
        wait = threads.submit(take, timeout=1)
        until(lambda: waiting(store) == 1)
        server.kill()
        with pytest.raises(LockBackendUnavailable, match="refused"):
            wait.result(30)
        lease.leave_behind()
        with suppress(LockBackendUnavailable):
            lease.release()
        server.start()


def test_many_processes_lose_no_increment_as_the_server_is_killed(tmp_path: Path) -> None:
    """And restarted: none holds the lock that another one has; their tokens rise."""
    file = tmp_path / "counter"
    file.write_text("0")
    with start_careful_lock_server("--max-ttl", "5") as server:
        with workers_at(server, 8, "count_anyway", ALIAS, str(file), "25", "5") as workers:
            until(lambda: int(file.read_text() or 0) >= 50)
            server.kill()
            server.start()
            grants = sorted(tuple(grant) for result in workers.results() for grant in result)
    assert file.read_text() == "200"
    tokens = [token for _, token in grants]
    assert len(tokens) == 200
    assert tokens == sorted(set(tokens))


def test_many_processes_lose_no_increment_as_connections_are_reset(
    spare_lock_server: Server, store: ServerBackend, lock_server_proxy: LossyProxy, tmp_path: Path
) -> None:
    """Each of them, sooner or later."""
    file = tmp_path / "counter"
    file.write_text("0")
    lock_server_proxy.reset_connections(1, 10_000, within=40)
    address = f"127.0.0.1:{lock_server_proxy.port}"
    command = "count_anyway", ALIAS, str(file), "25", "2"
    with workers_at(spare_lock_server, 8, *command, address=address) as workers:
        grants = sorted(tuple(grant) for result in workers.results() for grant in result)
    assert lock_server_proxy.resets > 20
    assert file.read_text() == "200"
    tokens = [token for _, token in grants]
    assert tokens == sorted(set(tokens))


# Servers that answer nothing


def test_server_that_answers_nothing_is_unavailable_in_time(spare_lock_server: Server) -> None:
    """And what it does later leaves no lock."""
    with locks_of(spare_lock_server, store_timeout=0.5) as store:
        lease = acquire(ALIAS, "mine")
        with spare_lock_server.paused():
            for action in (  # by a warm connection, and then by new ones
                lambda: acquire_lock("a", backend=ALIAS),
                lambda: acquire_lock("b", backend=ALIAS),
                lambda: run(aacquire_lock("b", backend=ALIAS)),
                lambda: [*store.held()],
                lambda: store.force_release("mine", 1),
                lease.renew,
                lease.release,
            ):
                before = clocks.monotonic()
                with pytest.raises(LockBackendUnavailable):
                    action()
                assert clocks.monotonic() - before < 1 + SOON
        assert acquire(ALIAS, "c").release()
        assert lease.release()
        until(lambda: is_unused(store))


def test_late_answer_is_nobodys(spare_lock_server: Server, threads: ThreadPoolExecutor) -> None:
    """Who asks next has another connection."""
    with locks_of(spare_lock_server, store_timeout=1) as store:
        assert acquire(ALIAS).release()
        with spare_lock_server.paused():
            with pytest.raises(LockBackendUnavailable):
                acquire_lock("a", backend=ALIAS)
            asked = threads.submit(store.status)
            time.sleep(0.1)  # it is sent, but not answered
        assert "limits" in asked.result(30)
        until(lambda: is_unused(store))


def test_waiter_outlasts_a_pause_of_the_server(
    spare_lock_server: Server,
    threads: ThreadPoolExecutor,
    monkeypatch: pytest.MonkeyPatch,
    lost: dict[Lease, str],
) -> None:
    """Though by then nobody listens to it any more."""
    monkeypatch.setattr(listening, "SAYS_EVERY", 0.1)
    with locks_of(spare_lock_server, store_timeout=1.5) as store:
        lease = acquire(ALIAS)
        waits = [threads.submit(take), threads.submit(lambda: run(take_in_task()))]
        until(lambda: waiting(store) == 2)
        listened = listener(store.server)
        with spare_lock_server.paused():
            until(lambda: listened._wire is None)
        assert not any(each.done() for each in waits)
        until(lambda: waiting(store) == 2 and listened._known.done())
        assert lease.release()
        assert all(each.result(30) for each in waits)
        until(lambda: is_unused(store))
        assert not lost


class ListenersProxy(LossyProxy):
    """Loses the first ping of who listens, and passes nothing on any more on that connection.

    The server's end stays open; or it `forgets` it: that is closed, but the client isn't told.
    """

    forgets = False
    listeners = 0

    def _pass_on(self, client: socket.socket, server: socket.socket, reset: int | None) -> None:
        listens = silent = False
        for source, data in chunks(client, server):
            if source is client and re.search(rb'"process":"[0-9a-f]{32}"}', data):
                self.listeners += 1
                listens = self.listeners == 1
            if listens and b'"ping"' in data:
                silent = True
                if self.forgets:
                    server.close()
                    assert not client.recv(65536)  # when the client closes it
                    return
            if not silent:
                (client if source is server else server).sendall(data)


@pytest.mark.parametrize("forgets", [False, True])
def test_listener_notices_that_nothing_comes_any_more(
    spare_lock_server: Server,
    store: ServerBackend,
    threads: ThreadPoolExecutor,
    monkeypatch: pytest.MonkeyPatch,
    forgets: bool,
) -> None:
    """As when a firewall drops the connection; whoever waits is heard again."""
    monkeypatch.setattr(listening, "SAYS_EVERY", 0.1)
    with ListenersProxy(*host_and_port(spare_lock_server)) as proxy:
        proxy.forgets = forgets
        with locks_at(spare_lock_server, proxy.port, store_timeout=1.5):
            lease = acquire(ALIAS)
            wait = threads.submit(take)
            until(lambda: proxy.listeners == 2 and waiting(store) == 1)
            assert lease.release()
            assert wait.result(30)


# Connections that end


def test_server_closes_idle_connections_and_the_next_call_just_works(
    threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While those who wait keep theirs, and their places."""
    # Who looks after the places now and then needs a connection, too.
    monkeypatch.setattr(listening.Listener, "_catch_up", lambda _: None)
    with (
        start_lock_server("--idle", "0.7", "--handshake", "1") as server,
        locks_of(server) as store,
    ):
        lease = acquire(ALIAS)
        wait = threads.submit(take)
        until(lambda: waiting(store) == 1)
        wire = listener(store.server)._wire
        for _ in range(2):
            until(lambda: all(each.has_ended() for each in store.server._idle))
            lease.renew()
        until(lambda: all(each.has_ended() for each in store.server._idle))
        run(lease.arenew())
        assert waiting(store) == 1
        assert listener(store.server)._wire is wire
        assert lease.release()
        assert wait.result(30)


def test_listener_whose_connection_is_lost_makes_another_one(
    spare_lock_server: Server,
    store: ServerBackend,
    lock_server_proxy: LossyProxy,
    threads: ThreadPoolExecutor,
) -> None:
    """Who waits keeps waiting, in the order in which they came."""
    with locks_at(spare_lock_server, lock_server_proxy.port) as mine:
        lease = acquire(ALIAS)
        waits = []
        for number in range(5):
            waits.append(threads.submit(take))
            until(lambda number=number: waiting(store) == number + 1)  # type: ignore[misc]
        for _ in range(3):
            wire = listener(mine.server)._wire
            assert wire is not None
            wire.cut()
            until(lambda wire=wire: listener(mine.server)._wire not in (wire, None))  # type: ignore[misc]
        until(lambda: waiting(store) == 5)
        assert lease.release()
        tokens = [each.result(30) or 0 for each in waits]
    assert tokens == sorted(tokens)


def test_lost_reply_of_a_grant_finds_the_grant(
    spare_lock_server: Server, store: ServerBackend, lock_server_proxy: LossyProxy
) -> None:
    """The second try is the same owner's, and not refused by its own grant."""
    with locks_at(spare_lock_server, lock_server_proxy.port):
        lock_server_proxy.lose_replies(b'"acquire"', 1)
        lease = acquire(ALIAS)
        assert lock_server_proxy.losses == 0
        [lock] = store.held()
        assert lock.token == lease.token
        assert acquire_lock("a", backend=ALIAS) is None
        assert lease.release() is True


def test_lost_reply_of_a_release_is_a_release(
    spare_lock_server: Server, store: ServerBackend, lock_server_proxy: LossyProxy
) -> None:
    """The second request finds nothing to release, and tells that from a loss."""
    with locks_at(spare_lock_server, lock_server_proxy.port):
        lease = acquire(ALIAS)
        lock_server_proxy.lose_replies(b'"release"', 1)
        assert lease.release() is True
        assert lock_server_proxy.losses == 0


def test_release_can_be_tried_again(
    spare_lock_server: Server, store: ServerBackend, lock_server_proxy: LossyProxy
) -> None:
    """Though both requests were lost."""
    with locks_at(spare_lock_server, lock_server_proxy.port):
        lease = acquire(ALIAS)
        lock_server_proxy.lose_requests(b'"release"', 2)
        with pytest.raises(LockBackendUnavailable):
            lease.release()
        assert store.status()["locks"] == 1
        assert lease.release() is True


@pytest.mark.parametrize("what", ["requests", "replies"])
@pytest.mark.parametrize("release_on_disconnect", [False, True])
def test_acquisition_without_answer_leaves_no_lock(
    spare_lock_server: Server,
    store: ServerBackend,
    lock_server_proxy: LossyProxy,
    what: str,
    release_on_disconnect: bool,
) -> None:
    """What may have been granted is given back."""
    ways: list[Callable[[], object]] = [
        lambda: acquire_lock("a", backend=ALIAS),
        lambda: run(aacquire_lock("a", backend=ALIAS)),
    ]
    with locks_at(
        spare_lock_server, lock_server_proxy.port, release_on_disconnect=release_on_disconnect
    ):
        for acquire_it in ways:
            getattr(lock_server_proxy, f"lose_{what}")(b'"acquire"', 2)
            with pytest.raises(LockBackendUnavailable):
                acquire_it()
            assert lock_server_proxy.losses == 0
            until(lambda: is_unused(store))


def test_task_that_is_cancelled_before_the_answer_leaves_no_lock(
    spare_lock_server: Server, store: ServerBackend
) -> None:
    """It is given back on the same connection, which is closed when that was answered."""

    async def main() -> None:
        with locks_of(spare_lock_server) as mine:
            lease = await aacquire_lock("b", backend=ALIAS)
            assert lease is not None
            with spare_lock_server.paused():
                trying = asyncio.create_task(aacquire_lock("a", backend=ALIAS))
                await asyncio.sleep(0.05)
                trying.cancel()
                await asyncio.sleep(0.05)
            before = clocks.monotonic()
            with pytest.raises(asyncio.CancelledError):
                await trying
            assert clocks.monotonic() - before < SOON  # nothing else is waited for
            assert not await asyncio.to_thread(lambda: [*mine.held("a")])
            assert await lease.arelease()

    run(main())


def test_many_resets_never_let_two_in(
    spare_lock_server: Server,
    store: ServerBackend,
    lock_server_proxy: LossyProxy,
    threads: ThreadPoolExecutor,
) -> None:
    """Of four threads, all of whose connections are reset sooner or later."""
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
                lease = acquire_lock("a", backend=ALIAS, timeout=30, ttl=2)
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
        until(lambda: is_unused(store))
