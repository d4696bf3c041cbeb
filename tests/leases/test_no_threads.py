"""No thread can be started: in a process that ends, or at the system's limit."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest

from django_distlock import (
    LockBackendUnavailable,
    aacquire_lock,
    acquire_lock,
    clocks,
    lock_backends,
)
from django_distlock.backends.redis import servers as redis_servers
from django_distlock.backends.redis.nodes import Moved
from django_distlock.backends.sockets.calls import IN_LOOP
from django_distlock.leases.request import new_owner
from tests.support.concurrency import run
from tests.support.databases import committed
from tests.support.holders import acquire
from tests.support.lock_servers import locks_of as locks_of_server
from tests.support.redis_stores import locks_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.servers import Server

STORES = [
    "memory",
    "default",
    pytest.param("postgresql", marks=pytest.mark.needs("postgresql")),
    *(
        pytest.param(name, marks=[pytest.mark.needs(name), pytest.mark.once])
        for name in ("mariadb", "memcached", "redis", "lock_server")
    ),
]
QUEUES = STORES[-2:]
"""Those that tell who waits, by a thread."""


@pytest.fixture
def threadless(no_backgrounds: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin without threads: neither background threads nor listeners."""
    monkeypatch.setattr("django_distlock.backends.listening.listeners", {})


@pytest.fixture
def unused_store(request: pytest.FixtureRequest, threadless: None) -> Iterator[str]:
    """Return the alias of a store without connections and threads."""
    alias: str = request.param
    if alias == "redis":
        with locks_of(request.getfixturevalue("redis_server")):
            yield alias
    elif alias == "lock_server":
        with locks_of_server(request.getfixturevalue("spare_lock_server")):
            yield alias
    else:
        lock_backends[alias].close()
        yield alias


def on_each_of(stores: list[Any]) -> pytest.MarkDecorator:
    """Run the test on each of these stores, before it is used."""
    return pytest.mark.parametrize("unused_store", stores, indirect=True)


async def acquire_and_release(alias: str) -> bool:
    """Do so in an event loop."""
    lease = await aacquire_lock("1234collectPayment", backend=alias)
    return lease is not None and await lease.arelease()


@contextmanager
def no_threads() -> Iterator[None]:
    """Prevent threads from starting in the block: executors have none, and their work waits.

    After the block threads can start: all the executors' work is done.
    """
    error, submit = RuntimeError("can't start new thread"), ThreadPoolExecutor.submit
    with ThreadPoolExecutor(1) as without_thread:

        def submit_in_vain(executor: ThreadPoolExecutor, *work: Any, **arguments: Any) -> Any:
            return submit(without_thread, *work, **arguments)

        with (
            mock.patch.object(threading.Thread, "start", side_effect=error),
            mock.patch.object(ThreadPoolExecutor, "submit", submit_in_vain),
        ):
            yield
        without_thread.submit(int).result(60)


def is_contended(alias: str) -> bool:
    """Try at the store itself."""
    return not lock_backends[alias].acquire("1234collectPayment", new_owner(), 1, "")


@committed
@on_each_of(STORES)
def test_basic_calls_need_no_thread(unused_store: str, caplog: pytest.LogCaptureFixture) -> None:
    """Only renewal is missing."""
    with no_threads():
        lease = acquire(unused_store)
        assert is_contended(unused_store)
        lease.renew()
        assert lease.release()
        lock_backends[unused_store].close()
        assert acquire(unused_store, renew=False).release()
    assert "No thread could be started: leases end without being renewed" in caplog.text


@committed
@on_each_of(QUEUES)
@pytest.mark.parametrize("is_async", [False, True])
def test_waiter_without_a_thread_polls(unused_store: str, is_async: bool) -> None:
    """Nothing can wake it."""
    store = lock_backends[unused_store]
    held = store.acquire("1234collectPayment", new_owner(), 60, "")
    assert held
    token = held.token
    assert token is not None
    assert is_contended(unused_store)  # connects for async code, which needs a thread
    name, asked = "aacquire" if is_async else "acquire", 0
    ask = getattr(type(store), name)

    def release_at_third_try(*arguments: Any, **options: Any) -> Any:
        nonlocal asked
        asked += 1
        if asked == 3:
            assert store.force_release("1234collectPayment", token)
        return ask(*arguments, **options)

    with no_threads(), mock.patch.object(type(store), name, release_at_third_try):
        if is_async:
            lease = asyncio.run(
                aacquire_lock("1234collectPayment", timeout=60, backend=unused_store)
            )
        else:
            lease = acquire_lock("1234collectPayment", timeout=60, backend=unused_store)
    assert lease
    assert lease.release()


@pytest.mark.once
@pytest.mark.needs("lock_server")
@pytest.mark.usefixtures("threadless")
def test_lease_that_is_to_end_with_a_connection_needs_a_thread(spare_lock_server: Server) -> None:
    """A thread has to listen on that connection."""
    with locks_of_server(spare_lock_server, release_on_disconnect=True):
        with no_threads(), pytest.raises(LockBackendUnavailable, match="can't start new thread"):
            acquire_lock("1234collectPayment", backend="lock_server")
        assert acquire("lock_server").release()


@committed
@on_each_of(STORES[1:])
def test_async_call_that_needs_a_thread_is_unavailable(unused_store: str) -> None:
    """It isn't made later, when threads can start: that lock would have no holder."""
    with no_threads():
        with pytest.raises(LockBackendUnavailable, match="can't start new thread"):
            asyncio.run(aacquire_lock("1234collectPayment", backend=unused_store))
    assert run(acquire_and_release(unused_store))


def test_memory_needs_no_thread_for_async_code() -> None:
    """Its calls never block."""
    with no_threads():
        assert asyncio.run(acquire_and_release("memory"))


def test_node_of_a_cluster_is_not_looked_for_without_a_thread(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The failed call has its own error."""
    client = mock.Mock()
    cluster = redis_servers.Cluster(client, 1)
    with no_threads():
        cluster.suspect()
    assert "The slots of a Redis Cluster can't be looked up" in caplog.text
    client.nodes_manager.initialize.assert_not_called()


def test_async_code_that_a_cluster_sends_elsewhere_needs_a_thread() -> None:
    """Without one it would block its event loop."""
    cluster = redis_servers.Cluster(mock.Mock(), 1)

    async def ask(node: Any) -> None:
        raise Moved

    async def ask_without_threads() -> None:
        with no_threads():
            await redis_servers.at_node(
                IN_LOOP, cluster, "1234collectPayment", clocks.monotonic() + 60, ask
            )

    with pytest.raises(LockBackendUnavailable, match="can't start new thread"):
        asyncio.run(ask_without_threads())


def test_error_in_a_thread_is_not_taken_for_a_lack_of_threads(scripted: Any) -> None:
    """The store's error is raised."""
    scripted.answer("acquire", RuntimeError("a bug"))
    with pytest.raises(RuntimeError, match="a bug"):
        run(aacquire_lock("1234collectPayment"))


def test_error_after_a_call_in_a_thread_is_not_taken_for_a_lack_of_threads(
    scripted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call was made, so its grant is undone."""
    broken = mock.Mock()
    broken.close_all.side_effect = RuntimeError("a bug")
    monkeypatch.setattr("django_distlock.concurrency.executors.connections", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        asyncio.run(aacquire_lock("1234collectPayment"))
    assert scripted.calls == ["acquire", "release"]
