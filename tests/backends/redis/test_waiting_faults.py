"""Waiters for a lock in Redis when connections, servers and queues are lost."""

from __future__ import annotations

import asyncio
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from django_distlock import LockBackendUnavailable, aacquire_lock, acquire_lock, distributed_lock
from django_distlock.backends.redis import scripts
from django_distlock.backends.redis.nodes import Node
from django_distlock.backends.sockets.connections import ServerError
from django_distlock.leases.outcomes import mark_unreleased
from tests.support.concurrency import elsewhere, run, until
from tests.support.holders import acquire
from tests.support.lossy_proxy import LossyProxy, chunks
from tests.support.ports import HOST
from tests.support.redis_looks import say_when_looked_at
from tests.support.redis_servers import connect, place
from tests.support.redis_stores import (
    ALIAS,
    hurry,
    key_of,
    locks_at,
    locks_of,
    name_of,
    waiting,
)
from tests.support.redis_waiters import join, take, waiters_queued

if TYPE_CHECKING:
    import socket
    from concurrent.futures import Future, ThreadPoolExecutor

    from django_distlock.backends.redis.backend import RedisBackend
    from tests.support.servers import Server

pytestmark = [pytest.mark.needs("redis"), pytest.mark.once]


@pytest.mark.usefixtures("redis_store", "only_when_notified")
def test_waiter_is_woken_though_the_listening_connection_was_lost(
    redis_server: Server, threads: ThreadPoolExecutor
) -> None:
    """The queue stays as it was."""
    lease = acquire(ALIAS)
    waits = []
    for number in range(5):
        waits.append(threads.submit(take))
        until(partial(waiters_queued, redis_server, number + 1))
    with connect(redis_server) as client:
        client.client_kill_filter(_type="pubsub")
    assert lease.release()
    assert all(each.result(30) for each in waits)
    until(lambda: waiting(redis_server) == 0)


class ForgettingProxy(LossyProxy):
    """Loses the server's end of the first listening connection, without the client noticing."""

    forgets = 1

    def _pass_on(self, client: socket.socket, server: socket.socket, reset: int | None) -> None:
        for source, data in chunks(client, server):
            if self.forgets and b"SUBSCRIBE" in data:
                self.forgets -= 1
                server.sendall(data)
                client.sendall(server.recv(65536))
                server.close()
                assert not client.recv(65536)  # ended when the client closes the connection
                return
            (client if source is server else server).sendall(data)


def test_process_that_the_server_has_lost_listens_again(
    redis_server: Server, threads: ThreadPoolExecutor
) -> None:
    """Its only sign is that it was dropped from the queue."""
    with (
        ForgettingProxy(*place(redis_server)) as proxy,
        locks_at(proxy.port),
        connect(redis_server) as client,
    ):
        lease = acquire(ALIAS)
        wait = threads.submit(take)
        until(lambda: waiting(redis_server) == 1 and not client.pubsub_channels())
        assert lease.release()  # no process listens
        until(lambda: wait.done() or len(client.pubsub_channels()) == 1)
        assert wait.result(30)
        with distributed_lock("1234collectPayment", backend=ALIAS):
            wait = threads.submit(take)
            until(lambda: waiting(redis_server) == 1 and len(client.pubsub_channels()) == 1)
        assert wait.result(30)


def test_waiter_that_could_not_leave_leaves_later(
    redis_server: Server, threads: ThreadPoolExecutor
) -> None:
    """Otherwise its offers would expire, and the others of its process would come later."""
    with LossyProxy(*place(redis_server)) as proxy, locks_at(proxy.port):
        lease = acquire(ALIAS)
        stays = threads.submit(take)
        until(lambda: waiting(redis_server) == 1)
        proxy.lose_requests(scripts.LEAVE.digest.encode(), 1)
        assert (
            elsewhere(lambda: acquire_lock("1234collectPayment", backend=ALIAS, timeout=0.3))
            is None
        )
        assert proxy.losses == 0
        until(lambda: waiting(redis_server) == 1)
        assert not stays.done()
        assert lease.release()
        assert stays.result(30)


def test_task_that_is_cancelled_before_it_could_leave_leaves_later(
    redis_server: Server,
    redis_store: RedisBackend,
    threads: ThreadPoolExecutor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It still waited for its turn to ask the server."""

    async def leave_and_be_cancelled() -> None:
        waits_for_turn = asyncio.Event()

        async def wait_for_turn(*arguments: Any) -> list[Any]:
            waits_for_turn.set()
            return await asyncio.Future()

        monkeypatch.setattr(Node, "aask_all", wait_for_turn)
        leaving = redis_store.aleave(leaves, False, deadline=redis_store.new_deadline())
        task = asyncio.create_task(leaving)
        await waits_for_turn.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    lease = acquire(ALIAS)
    stays = threads.submit(take)
    until(lambda: waiting(redis_server) == 1)
    leaves = join(redis_store, "1234collectPayment", "owner")
    assert waiting(redis_server) == 2
    run(leave_and_be_cancelled())
    until(lambda: waiting(redis_server) == 1)
    assert lease.release()
    assert stays.result(30)


@pytest.mark.usefixtures("only_when_notified")
def test_waiter_gets_an_error_when_the_server_is_killed(
    redis_server: Server, redis_store: RedisBackend, threads: ThreadPoolExecutor
) -> None:
    """New waiters wait as usual when it is back."""

    async def take_in_task() -> None:
        await aacquire_lock("1234collectPayment", backend=ALIAS, timeout=100)

    mark_unreleased(acquire(ALIAS, renew=False))
    waits: list[Future[Any]] = [threads.submit(take) for _ in range(5)]
    waits.append(threads.submit(lambda: run(take_in_task())))
    until(lambda: waiting(redis_server) == 6)
    redis_server.kill()
    try:
        for each in waits:
            with pytest.raises(LockBackendUnavailable):
                each.result(60)
    finally:
        redis_server.start()
    with distributed_lock("5678collectPayment", backend=ALIAS):
        wait = threads.submit(take, "5678collectPayment")
        until(lambda: waiting(redis_server, "5678collectPayment") == 1)
    assert wait.result(30)


@pytest.mark.usefixtures("only_when_notified")
def test_waiter_gets_an_error_when_the_server_does_not_answer(
    redis_server: Server, threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within the time of a call, and that until the next look at the queue."""
    with locks_of(redis_server, store={"store_timeout": 20}):
        lease = acquire(ALIAS, renew=False)
        waits = [threads.submit(take) for _ in range(5)]
        until(lambda: waiting(redis_server) == 5)
        with redis_server.paused(), monkeypatch.context() as patch:
            hurry(patch, scripts.LOOK)
            for each in waits:
                with pytest.raises(LockBackendUnavailable):
                    each.result(60)
        assert lease.release()
        until(lambda: waiting(redis_server) == 0)
        assert acquire(ALIAS, timeout=30).release()


def test_failed_listener_is_logged_only_if_somebody_waits(
    redis_server: Server,
    redis_store: RedisBackend,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A server without waiters that can't be listened to causes no log line."""
    monkeypatch.setattr("django_distlock.backends.listening.FIRST_PAUSE", 0)
    assert redis_store.acquire("1234collectPayment", "holder", 60, "")
    waiter = join(redis_store, "1234collectPayment", "owner")
    ask_all = Node.ask_all

    def refuse(*arguments: Any) -> list[Any]:
        raise LockBackendUnavailable("it is down")

    def refuse_to_let_leave(node: Node, requests: Any, *arguments: Any) -> list[Any]:
        ask = refuse if name_of(requests[0]) == scripts.LEAVE.digest else ask_all
        return ask(node, requests, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Node, "ask_all", refuse_to_let_leave)
        with pytest.raises(LockBackendUnavailable):
            waiter.leave(granted=False)
        until(lambda: not listens(redis_server))
    assert "can't listen" not in caplog.text


def listens(server: Server) -> bool:
    """Return whether a thread of this process listens to the server."""
    name = f"django_distlock listener: Redis at {HOST}:{server.port}"
    return any(thread.name == name for thread in threading.enumerate())


def test_waiter_granted_the_lock_as_the_server_fails_need_not_leave_later(
    redis_store: RedisBackend, asked: list[Any]
) -> None:
    """The grant has removed it from the queue."""
    waiter = join(redis_store, "1234collectPayment", "owner")
    assert redis_store.acquire("1234collectPayment", "owner", 60, "")
    assert redis_store.acquire("5678collectPayment", "holder", 60, "")
    stays = join(redis_store, "5678collectPayment", "stays")  # so that the thread continues
    look_twice(asked)  # by then a waiter that could not leave earlier has left
    waiter.failure = LockBackendUnavailable("it was down for a moment")
    waiter.leave(granted=True)
    assert scripts.LEAVE.digest not in look_twice(asked)
    stays.leave(granted=False)


def look_twice(asked: list[Any]) -> list[Any]:
    """Wait for a look at the queues that begins after this; return the requests until its end."""
    seen: list[Any] = []
    for _ in range(2):  # one may be under way
        asked.clear()
        until(lambda: scripts.LOOK.digest in asked)
        seen += asked
    return seen


def test_new_waiter_gets_an_error_when_the_server_does_not_answer(redis_server: Server) -> None:
    """Even if it is the first for which this process would listen."""
    with locks_of(redis_server, store={"store_timeout": 0.3}) as store, redis_server.paused():
        with pytest.raises(LockBackendUnavailable, match="can't listen"):
            store.join("1234collectPayment", "owner", "", print)


@pytest.mark.usefixtures("redis_store", "only_when_notified")
def test_waiter_rejoins_when_the_queue_is_lost(
    redis_server: Server, threads: ThreadPoolExecutor
) -> None:
    """Whether only the queue is lost, or all data: then the lock is free."""
    lease = acquire(ALIAS)
    waits = [threads.submit(take) for _ in range(5)]
    until(lambda: waiting(redis_server) == 5)
    with connect(redis_server) as client:
        client.delete(f"{key_of()}:queue")
        until(lambda: waiting(redis_server) == 5)
        client.flushall()
    assert all(each.result(30) for each in waits)
    assert lease.release() is False


@pytest.mark.usefixtures("redis_store")
def test_waiter_gets_the_servers_error_about_the_queue(
    redis_server: Server, threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The queue can't be read any more, for an unknown time."""
    lease = acquire(ALIAS)
    wait = threads.submit(take)
    until(lambda: waiting(redis_server) == 1)
    say_when_looked_at(monkeypatch, ServerError("LOADING it reads its disk", "LOADING"))
    with pytest.raises(LockBackendUnavailable, match="LOADING"):
        wait.result(30)
    assert lease.release()
