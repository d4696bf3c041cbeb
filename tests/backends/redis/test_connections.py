"""Connections to Redis for locks: how many there are, and what shares them."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from django.core.cache import caches
from redis import Redis

from django_distlock import acquire_lock, distributed_lock
from tests.support.concurrency import elsewhere, until
from tests.support.holders import acquire, due_now
from tests.support.processes import forked
from tests.support.redis_servers import connect, place
from tests.support.redis_stores import (
    ALIAS,
    DJANGO,
    DJANGO_REDIS,
    client_path,
    commands,
    connections,
    locks_by,
    locks_of,
    on_each_library,
    waiting,
)

if TYPE_CHECKING:
    from tests.support.moved_clock import MovedClock
    from tests.support.servers import Server

pytestmark = pytest.mark.needs("redis")


@pytest.mark.once
def test_threads_have_a_connection_each_at_most(redis_server: Server) -> None:
    """None is left after close()."""

    def work(number: int) -> int:
        for _ in range(20):
            with distributed_lock(str(number), backend=ALIAS, renew=False):
                pass
        return number

    with locks_of(redis_server) as store:
        with ThreadPoolExecutor(50) as threads:
            assert sum(threads.map(work, range(50))) == sum(range(50))
        assert 1 <= connections(redis_server) <= 50
        store.close()
        until(lambda: connections(redis_server) == 0)


@pytest.mark.once
def test_idle_process_has_no_connection(
    redis_server: Server, moved_clock: MovedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither for locks nor to listen."""
    monkeypatch.setattr("django_distlock.concurrency.background.IDLE", 0.1)
    monkeypatch.setattr("django_distlock.backends.listening.IDLE", 0.1)
    with locks_of(redis_server):
        lease = acquire(ALIAS)
        assert (
            elsewhere(lambda: acquire_lock("1234collectPayment", backend=ALIAS, timeout=0.05))
            is None
        )
        assert lease.release()
        moved_clock.advance(60)
        due_now([lease])  # so that the thread looks at the clock
        until(lambda: connections(redis_server) == 0)


@pytest.mark.parametrize(
    ("library", "options"),
    [
        (DJANGO, {"max_connections": 2}),
        (DJANGO_REDIS, {"CONNECTION_POOL_KWARGS": {"max_connections": 2}}),
        (
            DJANGO_REDIS,
            {
                "CONNECTION_POOL_CLASS": "redis.BlockingConnectionPool",
                "CONNECTION_POOL_KWARGS": {"max_connections": 2, "timeout": 0.1},
            },
        ),
    ],
)
def test_connections_of_locks_are_none_of_the_caches(
    redis_server: Server, library: str, options: dict[str, Any]
) -> None:
    """However many there were or are: the cache's pool has its own limit."""
    with locks_of(redis_server, library=library, options=options) as store:
        for _ in range(5):
            assert acquire(ALIAS).release()
            store.close()
        caches[ALIAS].set("a", 1)
        assert caches[ALIAS].get("a") == 1


@pytest.mark.once
def test_connections_that_the_server_has_closed_are_not_used(redis_server: Server) -> None:
    """The server may close idle connections: no action fails because of it."""
    with locks_of(redis_server) as store, connect(redis_server) as client:
        lease = acquire(ALIAS)
        answers = []
        for action in (
            lease.renew,
            lambda: len([*store.held()]),
            lambda: acquire_lock("1234collectPayment", backend=ALIAS),
            lambda: store.force_release("1234collectPayment", 1),
            lease.release,
        ):
            client.client_kill_filter(_type="normal", skipme=True)
            answers.append(action())
        assert answers == [None, 1, None, False, True]


@on_each_library
def test_end_of_a_request_closes_no_locks_connection(
    redis_server: Server, library: str, settings: Any
) -> None:
    """Even if the caches are closed then."""
    settings.DJANGO_REDIS_CLOSE_CONNECTION = True
    with locks_of(redis_server, library=library):
        lease = acquire(ALIAS)
        caches[ALIAS].set("a", 1)
        with ThreadPoolExecutor(1) as thread:
            waits = thread.submit(acquire, ALIAS, timeout=60)
            until(lambda: waiting(redis_server) == 1)
            caches.close_all()  # as Django does then
            with commands(redis_server) as seen:
                assert lease.release()
                assert waits.result(30).release()
    assert not seen["subscribe"]
    assert seen["hello"] <= 1  # if both happen at the same time


# Threads and forks


def test_forked_child_has_connections_of_its_own(redis_server: Server) -> None:
    """Both sides ask at the same time, each many times, and each gets its own answers."""

    def work() -> None:
        for number in range(100):
            with distributed_lock(f"{os.getpid()} {number}", backend=ALIAS, renew=False) as lease:
                assert lease.semaphore == f"{os.getpid()} {number}"
                assert acquire_lock("1234collectPayment", backend=ALIAS) is None

    def work_elsewhere() -> None:
        try:
            assert acquire_lock("1234collectPayment", backend=ALIAS) is None
            assert clients(redis_server) - known
        finally:
            client.set("go on", 1)
        work()

    with locks_of(redis_server), Redis(*place(redis_server)) as client:
        lease = acquire(ALIAS)
        assert acquire_lock("1234collectPayment", backend=ALIAS) is None
        assert client.ping()  # otherwise it would connect in the meantime
        known = clients(redis_server)
        with forked(work_elsewhere):
            until(lambda: bool(client.exists("go on")))
            work()
        assert lease.release()


def clients(server: Server) -> set[str]:
    """Return the ids of the server's connections, except the one that asks."""
    with connect(server) as client:
        return {each["id"] for each in client.client_list()} - {str(client.client_id())}


# Stores in one place


@pytest.mark.once
def test_stores_in_one_place_share_their_connections(redis_server: Server) -> None:
    """The threads of a process share them, but not with stores of another time budget."""

    def use() -> int:
        assert acquire(ALIAS, renew=False).release()
        return connections(redis_server)

    with locks_of(redis_server):
        assert use() == 1
        assert elsewhere(use) == 1
        with locks_of(redis_server):
            assert use() == 1
        # A store that is dropped closes its connections.
        assert use() == 1
        with locks_of(redis_server, store={"store_timeout": 1.9}):
            assert use() == 2
        until(lambda: connections(redis_server) == 1)
        with locks_of(redis_server, TIMEOUT=5):
            assert use() == 2
        until(lambda: connections(redis_server) == 1)
        path = client_path(lambda: Redis(*place(redis_server)))
        with locks_by(client=path):
            assert use() == 2
            with locks_by(client=path):
                assert use() == 2
