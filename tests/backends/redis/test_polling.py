"""Waiters for a lock in Redis that can't be woken have to poll."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from django_distlock import distributed_lock
from django_distlock.backends.redis import places
from django_distlock.backends.sockets.connections import ServerError
from tests.support.concurrency import run, until
from tests.support.holders import acquire
from tests.support.redis_looks import say_when_looked_at
from tests.support.redis_servers import connect
from tests.support.redis_stores import (
    ALIAS,
    key_of,
    locks_at,
    waiting,
)
from tests.support.redis_waiters import join, take, user

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

    from django_distlock.backends.redis.backend import RedisBackend
    from tests.support.servers import Server

pytestmark = [pytest.mark.needs("redis"), pytest.mark.once]


def test_waiter_polls_when_its_process_may_no_longer_listen(
    redis_server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """As when the user's right to subscribe is withdrawn during the wait."""
    with user(redis_server, "downgraded") as location, connect(redis_server) as client:
        with locks_at("", location=location) as store:
            lease = acquire(ALIAS)
            woken = threading.Event()
            waiter = join(store, "1234collectPayment", "owner", woken.set)
            client.execute_command("ACL SETUSER downgraded resetchannels")
            until(lambda: waiter.polls)
            assert woken.wait(30)
            assert waiter.patience == places.POLL_INTERVAL
            assert "forbids SUBSCRIBE" in caplog.text
            waiter.leave(granted=False)
            assert lease.release()


def test_user_without_the_right_to_subscribe_polls(
    redis_server: Server, threads: ThreadPoolExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    """Its waiters still get the lock."""

    async def take_in_task() -> int | None:
        async with distributed_lock("1234collectPayment", backend=ALIAS, timeout=100) as lease:
            return lease.token

    with user(redis_server, "modest", "resetchannels") as location:
        with locks_at("", location=location):
            lease = acquire(ALIAS)
            waits: list[Future[Any]] = [
                threads.submit(take),
                threads.submit(lambda: run(take_in_task())),
            ]
            until(lambda: "forbids SUBSCRIBE" in caplog.text)
            assert lease.release()
            assert all(each.result(60) for each in waits)
            many = [threads.submit(take) for _ in range(50)]
            assert all(each.result(60) for each in many)
            assert caplog.text.count("forbids SUBSCRIBE") == 1


def test_waiter_polls_after_the_slot_has_moved(
    redis_server: Server,
    redis_store: RedisBackend,
    threads: ThreadPoolExecutor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The cluster's node that has the lock by then knows nothing of the queue."""
    lease = acquire(ALIAS)
    place = join(redis_store, "1234collectPayment", "owner")
    wait = threads.submit(take)
    until(lambda: waiting(redis_server) == 2)
    say_when_looked_at(monkeypatch, ServerError("MOVED 1 127.0.0.1:1", "MOVED"))
    until(lambda: place.polls)
    assert place.patience == places.POLL_INTERVAL
    place.leave(granted=False)
    with connect(redis_server) as client:
        client.delete(f"{key_of()}:queue")
    assert lease.release()
    assert wait.result(30)
