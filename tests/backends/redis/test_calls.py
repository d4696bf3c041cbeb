"""Calls to Redis that are undone, interrupted or cancelled."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from django_distlock import (
    LockBackendUnavailable,
    acquire_lock,
)
from django_distlock.backends.redis import scripts
from django_distlock.backends.redis.nodes import Node
from django_distlock.backends.redis.protocol import RedisConnection
from django_distlock.leases.outcomes import mark_unreleased
from django_distlock.leases.request import new_owner
from django_distlock.records import LeaseClaim
from tests.support.concurrency import Interrupted, run, until
from tests.support.holders import acquire
from tests.support.lossy_proxy import HoldingProxy
from tests.support.ports import HOST
from tests.support.redis_servers import (
    connect,
    place,
)
from tests.support.redis_stores import (
    ALIAS,
    connections,
    hurry,
    is_locked,
    key_of,
    locks_at,
    locks_of,
    name_of,
    why_not,
)

if TYPE_CHECKING:
    from django_distlock.backends.redis import RedisBackend
    from tests.support.moved_clock import MovedClock
    from tests.support.servers import Server


pytestmark = [pytest.mark.needs("redis"), pytest.mark.once]


# Calls that are undone


def test_late_acquisition_is_undone(
    redis_server: Server, redis_store: RedisBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of many that the server does after the client has stopped waiting."""

    def try_it(number: int) -> None:
        with pytest.raises(LockBackendUnavailable):
            acquire_lock(str(number), backend=ALIAS)

    with locks_of(redis_server, store={"store_timeout": 20}), connect(redis_server) as client:
        with ThreadPoolExecutor(10) as threads:
            for lease in threads.map(lambda number: acquire(ALIAS, str(number)), range(10)):
                assert lease.release()
            client.flushall()
            with redis_server.paused(), monkeypatch.context() as patch:
                hurry(patch)
                [*threads.map(try_it, range(10))]
        until(lambda: bool(client.keys("*:token")))  # the server did some
        until(lambda: not any(is_locked(redis_server, str(number)) for number in range(10)))


def test_late_request_removes_no_lock(redis_server: Server, moved_clock: MovedClock) -> None:
    """The network delays an acquisition and its undo: there is no second try."""
    with HoldingProxy(*place(redis_server)) as proxy:
        with locks_at(proxy.port, store={"store_timeout": 1}) as store:

            def connect_in_less_time() -> bool:
                """Leave an idle connection that was opened by a call with a short time budget."""
                store.close()
                grant = None
                with suppress(LockBackendUnavailable), store.time_budget():
                    moved_clock.advance(0.15)
                    grant = store.acquire("5678collectPayment", "owner", 60, "")
                return bool(grant)

            until(connect_in_less_time)
            proxy.marker = b"{1234collectPayment}"
            with pytest.raises(LockBackendUnavailable):
                acquire_lock("1234collectPayment", backend=ALIAS)
            proxy.may_go_on.set()
            assert proxy.delivered.wait(60)
            assert not is_locked(redis_server)


def test_acquisition_that_cannot_be_undone_may_have_been_carried_out(
    redis_store: RedisBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second try finds the grant, whose undo could not be sent."""
    send, sent = RedisConnection.send, list[Any]()

    def send_once(connection: RedisConnection, requests: Any) -> None:
        if sent:
            raise BrokenPipeError
        sent.append(requests)
        send(connection, requests)

    assert redis_store.acquire(
        "5678collectPayment", "one", 60, ""
    )  # a connection is there, and the script
    with monkeypatch.context() as patch:
        patch.setattr(RedisConnection, "send", send_once)
        patch.setattr(RedisConnection, "receive", raises(TimeoutError()))
        with pytest.raises(LockBackendUnavailable, match=r"no answer in 2 seconds") as caught:
            redis_store.acquire("1234collectPayment", "one", 60, "")
    assert caught.value.reply_lost
    until(lambda: not redis_store.acquire("1234collectPayment", "other", 60, ""))
    assert redis_store.acquire("1234collectPayment", "one", 60, "")


def raises(error: BaseException) -> Any:
    """Return a function that raises the error."""

    def fail(*arguments: Any) -> None:
        raise error

    return fail


# Calls that end without an answer


def test_async_call_that_gets_no_answer_is_unavailable(unused_port: int) -> None:
    """As a sync call is."""
    with locks_at(unused_port) as store, pytest.raises(LockBackendUnavailable) as caught:
        run(store.aacquire("1234collectPayment", new_owner(), 1, "", deadline=store.new_deadline()))
    assert str(caught.value).startswith(f"Redis at {HOST}:{unused_port}: ")
    assert not caught.value.reply_lost


def test_call_that_is_interrupted_leaves_no_connection_to_use(
    redis_server: Server, redis_store: RedisBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its unread answer would count as the answer to the next call."""
    assert acquire(ALIAS, renew=False).release()
    assert connections(redis_server) == 1
    with monkeypatch.context() as patch:
        patch.setattr(RedisConnection, "receive", raises(Interrupted()))
        with pytest.raises(Interrupted):
            redis_store.acquire("1234collectPayment", "one", 60, "")
    until(lambda: connections(redis_server) == 0)
    assert not redis_store.acquire("1234collectPayment", "other", 60, "")
    assert redis_store.acquire("1234collectPayment", "one", 60, "")


def sent_by_task(patch: pytest.MonkeyPatch) -> asyncio.Event:
    """Return an event that is set when a task has sent a request and waits for the answer."""
    receive, waits = RedisConnection.areceive, asyncio.Event()

    async def announce_and_receive(connection: RedisConnection) -> Any:
        waits.set()
        return await receive(connection)

    patch.setattr(RedisConnection, "areceive", announce_and_receive)
    return waits


def test_release_by_a_task_that_is_cancelled_is_carried_out(
    redis_server: Server, redis_store: RedisBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was sent, and there is nothing to undo."""
    claim = LeaseClaim("1234collectPayment", new_owner(), 60)

    async def main() -> None:
        waits = sent_by_task(monkeypatch)
        with redis_server.paused():
            deadline = redis_store.new_deadline()
            releasing = asyncio.create_task(redis_store.arelease(claim, deadline=deadline))
            await asyncio.wait_for(waits.wait(), 60)
            releasing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await releasing

    assert acquire(ALIAS).release()  # the server knows the script
    assert redis_store.acquire(claim.semaphore, claim.owner, 60, "")
    asyncio.run(main())
    until(lambda: not is_locked(redis_server))


def test_cancelled_release_that_fails_is_logged(
    redis_server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Otherwise nobody would know."""

    async def main() -> None:
        waits = sent_by_task(monkeypatch)
        with redis_server.paused():
            releasing = asyncio.create_task(lease.arelease())
            await asyncio.wait_for(waits.wait(), 60)
            releasing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await releasing
        assert "A task was cancelled; what it asked a lock's store for failed" in caplog.text

    with locks_of(redis_server):
        lease = acquire(ALIAS, renew=False)
    with locks_of(redis_server, store={"store_timeout": 0.3}):
        until(lambda: not why_not("5678collectPayment"))
        run(main())
    mark_unreleased(lease)


def test_lock_that_ends_while_locks_are_listed_is_not(
    redis_server: Server, redis_store: RedisBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its key is found, but its value is gone by then."""
    ask_all = Node.ask_all
    with connect(redis_server) as client:
        leases = [acquire(ALIAS, name) for name in "abc"]

        def delete_and_ask(node: Node, requests: Any, *arguments: Any) -> Any:
            if name_of(requests[0]) == scripts.DESCRIBE.digest:
                client.delete(key_of("b"))
            return ask_all(node, requests, *arguments)

        monkeypatch.setattr(Node, "ask_all", delete_and_ask)
        assert [lock.semaphore for lock in redis_store.held()] == ["a", "c"]
        assert [lease.release() for lease in leases] == [True, False, True]
