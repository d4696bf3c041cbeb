"""A call to a store ends within `store_timeout`, however many requests it is made of."""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from django_distlock import (
    LockBackendUnavailable,
    aacquire_lock,
    acquire_lock,
    clocks,
    lock_backends,
)
from django_distlock.acquisitions import new_owner
from django_distlock.leases import Extension
from tests.support.concurrency import run, until
from tests.support.holders import acquire
from tests.support.lock_servers import locks_of as locks_of_lock_server
from tests.support.lossy_proxy import LossyProxy, chunks
from tests.support.memcached_stores import leading_to
from tests.support.ports import HOST
from tests.support.redis_servers import place
from tests.support.redis_stores import locks_at as locks_at_redis
from tests.support.redis_stores import locks_of as locks_of_redis

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from django_distlock import Lease
    from tests.support.servers import Server

TIMEOUT = 1.0
"""Seconds that a store has; a call that took two of them would take twice as long."""
BOUND = 1.9 * TIMEOUT

SERVERS = {
    "redis": "redis_server",
    "lock_server": "spare_lock_server",
    "memcached": "memcached_server",
    "pylibmc": "memcached_server",
}
STORES = [
    pytest.param("redis", marks=pytest.mark.needs("redis")),
    pytest.param("lock_server", marks=pytest.mark.needs("lock_server")),
    pytest.param("memcached", marks=pytest.mark.needs("memcached")),
    pytest.param("pylibmc", marks=pytest.mark.needs("pylibmc")),
]


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest) -> Iterator[tuple[str, Server]]:
    """Return the alias of a store, and its server."""
    alias: str = request.param
    name = SERVERS[alias]
    server: Server = request.getfixturevalue(name)
    if alias == "redis":
        ready: Any = locks_of_redis(server, store={"store_timeout": TIMEOUT})
    elif alias == "lock_server":
        ready = locks_of_lock_server(server, store_timeout=TIMEOUT)
    else:
        ready = leading_to(server.settings["PORT"], alias, store_timeout=TIMEOUT)
    with ready:
        yield alias, server


@contextmanager
def in_time() -> Iterator[None]:
    """See that the store is unavailable, and that it is known in time."""
    began = clocks.monotonic()
    with pytest.raises(LockBackendUnavailable):
        yield
    assert clocks.monotonic() - began < BOUND


@pytest.mark.once
@pytest.mark.parametrize("is_async", [False, True])
def test_every_call_to_a_server_that_is_stopped_ends_in_time(
    store: tuple[str, Server], is_async: bool
) -> None:
    """By a connection that is open, or by a new one."""
    alias, server = store
    for semaphore, is_warm in ("x", True), ("y", False):
        lease = acquire(alias, semaphore, ttl=60, renew=False)
        for call in calls_to(alias, lease, is_async):
            until(lambda: answers(alias))
            if not is_warm:
                lock_backends[alias].close()
            with server.paused(), in_time():
                call()
        until(lambda: answers(alias))
        lease.release()
    until(lambda: is_free(alias, "a") and is_free(alias, "b"))


def calls_to(alias: str, lease: Lease, is_async: bool) -> list[Callable[[], object]]:
    """Return each kind of call, the release last: whether it was carried out isn't known then."""
    options: Any = {"backend": alias, "ttl": 2}
    if is_async:
        return [
            lambda: run(aacquire_lock("a", **options)),
            lambda: run(aacquire_lock("b", timeout=30, **options)),
            lambda: run(lease.arenew()),
            lambda: run(lease.arelease()),
        ]
    return [
        lambda: acquire_lock("a", **options),
        lambda: acquire_lock("b", timeout=30, **options),
        lease.renew,
        lambda: lock_backends[alias].renew([lease, lease, lease]),
        lease.release,
    ]


def answers(alias: str) -> bool:
    """Tell whether the server is back."""
    try:
        lock_backends[alias].renew([Extension("nobody's", new_owner(), 1)])
    except LockBackendUnavailable:
        return False
    return True


def is_free(alias: str, name: str) -> bool:
    """Tell whether nothing is left of what was asked for meanwhile."""
    lease = acquire_lock(name, backend=alias)
    return lease is not None and lease.release()


@contextmanager
def silent_address() -> Iterator[tuple[str, int]]:
    """Return where nobody answers to a connection: its queue is full."""
    with socket.socket() as listener, ExitStack() as queued:
        listener.bind((HOST, 0))
        listener.listen(0)
        place: tuple[str, int] = listener.getsockname()
        for _ in range(3):
            waits = queued.enter_context(socket.socket())
            waits.setblocking(False)
            waits.connect_ex(place)
        yield place


@pytest.mark.needs("lock_server")
def test_silent_address_leaves_the_others_their_part_of_the_time(
    spare_lock_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of those that a name has."""
    with (
        silent_address() as silent,
        locks_of_lock_server(spare_lock_server, store_timeout=2) as store,
    ):
        places = [silent, silent, place(spare_lock_server)]

        def getaddrinfo(*arguments: Any, **options: Any) -> Any:
            return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", where) for where in places]

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        began = clocks.monotonic()
        assert acquire("lock_server").release()
        assert clocks.monotonic() - began < 1.9 * store.store_timeout
        places.clear()
        store.close()
        with pytest.raises(LockBackendUnavailable, match="has no address"):
            acquire_lock("a", backend="lock_server")


class DribblingProxy(LossyProxy):
    """Passes answers on byte by byte, from when it is told to on."""

    pause = 0.0
    """Seconds before each."""

    def _pass_on(self, client: socket.socket, server: socket.socket, reset: int | None) -> None:
        for source, data in chunks(client, server):
            if source is not server:
                server.sendall(data)
                continue
            for byte in data:
                time.sleep(self.pause)
                client.sendall(bytes([byte]))


@pytest.mark.needs("redis")
def test_answer_that_comes_byte_by_byte_is_too_late(redis_server: Server) -> None:
    """Though each is in time."""
    with DribblingProxy(*place(redis_server)) as proxy:
        with locks_at_redis(proxy.port, store={"store_timeout": 0.5}):
            lease = acquire("redis", renew=False)
            proxy.pause = 0.1
            began = clocks.monotonic()
            with pytest.raises(LockBackendUnavailable):
                acquire_lock("b", backend="redis")  # of more than forty bytes
            assert clocks.monotonic() - began < 2
            proxy.pause = 0
        assert lease.held
