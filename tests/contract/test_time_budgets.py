"""A call to a store ends within `store_timeout`, however many requests it makes."""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest

from django_distlock import (
    LockBackendUnavailable,
    aacquire_lock,
    acquire_lock,
    clocks,
    lock_backends,
)
from django_distlock.leases.request import new_owner
from django_distlock.records import LeaseClaim
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

TIMEOUT = 0.3
"""Seconds that a call has. One that took that long twice would do so each time that it is made."""
BOUND = 1.9 * TIMEOUT
JOBS = map("job {}".format, count())
"""Semaphores that nobody has had before."""

SERVERS = {
    "redis": "redis_server",
    "lock_server": "spare_lock_server",
    "memcached": "memcached_server",
}
STORES = [
    pytest.param("redis", marks=pytest.mark.needs("redis")),
    pytest.param("lock_server", marks=pytest.mark.needs("lock_server")),
    pytest.param("memcached", marks=pytest.mark.needs("memcached")),
]


@pytest.fixture(params=STORES)
def timed_store(request: pytest.FixtureRequest) -> Iterator[tuple[str, Server]]:
    """Return the alias of a store with this time limit, and its server."""
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


@pytest.mark.once
@pytest.mark.parametrize("is_warm", [True, False], ids=["by an open connection", "by a new one"])
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_every_call_to_a_server_that_is_stopped_ends_in_time(
    timed_store: tuple[str, Server], is_async: bool, is_warm: bool
) -> None:
    """However many requests it makes. A machine that stalls is late now and then, not always."""
    alias, server = timed_store
    for call in calls_to(alias, is_async):
        until(partial(is_in_time, alias, server, call, is_warm))


def is_in_time(alias: str, server: Server, call: Callable[[Lease], object], is_warm: bool) -> bool:
    """Return whether the call raises LockBackendUnavailable within twice its time."""
    until(lambda: answers(alias))
    in_time = False
    with suppress(LockBackendUnavailable):  # this machine stalls
        lease = acquire(alias, next(JOBS), ttl=60, renew=False)
        if not is_warm:
            lock_backends[alias].close()
        with server.paused():
            began = clocks.monotonic()
            with pytest.raises(LockBackendUnavailable):
                call(lease)
            in_time = clocks.monotonic() - began < BOUND
    return in_time


def calls_to(alias: str, is_async: bool) -> list[Callable[[Lease], object]]:
    """Return each kind of call, some of which are about a lease."""
    options: Any = {"backend": alias, "ttl": 2}
    if is_async:
        return [
            lambda _: run(aacquire_lock(next(JOBS), **options)),
            lambda _: run(aacquire_lock(next(JOBS), timeout=30, **options)),
            lambda lease: run(lease.arenew()),
            lambda lease: run(lease.arelease()),
        ]
    return [
        lambda _: acquire_lock(next(JOBS), **options),
        lambda _: acquire_lock(next(JOBS), timeout=30, **options),
        lambda lease: lease.renew(),
        lambda lease: lock_backends[alias].renew([lease, lease, lease]),
        lambda lease: lease.release(),
    ]


def answers(alias: str) -> bool:
    """Return whether the server is back."""
    try:
        lock_backends[alias].renew([LeaseClaim("nobody's", new_owner(), 1)])
    except LockBackendUnavailable:
        return False
    return True


@contextmanager
def silent_address() -> Iterator[tuple[str, int]]:
    """Return an address where connections get no answer: its backlog is full."""
    with socket.socket() as listener, ExitStack() as queued:
        listener.bind((HOST, 0))
        listener.listen(0)
        place: tuple[str, int] = listener.getsockname()
        for _ in range(3):
            waits = queued.enter_context(socket.socket())
            waits.setblocking(False)
            waits.connect_ex(place)
        yield place


@pytest.mark.once
@pytest.mark.needs("lock_server")
def test_silent_address_leaves_the_others_their_part_of_the_time(
    spare_lock_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the addresses that a name has."""
    with (
        silent_address() as silent,
        locks_of_lock_server(spare_lock_server, store_timeout=2 * TIMEOUT) as store,
    ):
        places = [silent, silent, place(spare_lock_server)]

        def getaddrinfo(*arguments: Any, **options: Any) -> Any:
            return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", where) for where in places]

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        until(lambda: answers("lock_server"))  # in a third of that time, unless the machine stalls
        places.clear()
        store.close()
        with pytest.raises(LockBackendUnavailable, match="has no address"):
            acquire_lock("report", backend="lock_server")


class DribblingProxy(LossyProxy):
    """Passes answers on byte by byte, with a pause that the test sets."""

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


@pytest.mark.once
@pytest.mark.needs("redis")
def test_answer_that_comes_byte_by_byte_is_too_late(redis_server: Server) -> None:
    """Even if each byte is in time: all forty take ten times as long as a call may."""
    with DribblingProxy(*place(redis_server)) as proxy:
        with locks_at_redis(proxy.port, store={"store_timeout": 0.5}):
            until(lambda: answers("redis"))
            proxy.pause = 0.125
            with pytest.raises(LockBackendUnavailable):
                acquire_lock("report", backend="redis")
            proxy.pause = 0
