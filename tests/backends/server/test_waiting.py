"""What is particular to a lock server's waiters. tests/contract has the tests for all stores."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING
from unittest import mock

import pytest

from django_distlock import LockBackendUnavailable, aacquire_lock, acquire_lock, distributed_lock
from django_distlock.backends.server import listening, places
from django_distlock.records import LeaseClaim
from tests.support.concurrency import elsewhere, run, until
from tests.support.holders import acquire, holding
from tests.support.lock_client import endpoint_of, friend
from tests.support.lock_server_proxy import LockServerProxy
from tests.support.lock_servers import (
    ALIAS,
    flawless_lock_server,
    host_and_port,
    listens,
    locks_at,
    locks_of,
    waiting,
)
from tests.support.lossy_proxy import HoldingProxy, LossyProxy

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

    from django_distlock.backends.server import ServerBackend
    from tests.support.servers import Server

pytestmark = pytest.mark.needs("lock_server")


def test_task_that_is_cancelled_as_it_joins_leaves_nothing(
    patient_lock_server: Server, patient_lock_server_store: ServerBackend
) -> None:
    """Though the server receives the join later: the leave is sent after that."""

    async def main(proxy: HoldingProxy) -> None:
        with locks_at(patient_lock_server, proxy.port) as behind:
            lease = await aacquire_lock("1234collectPayment", backend=ALIAS)
            assert lease is not None
            # When this is answered, the listener has begun: it doesn't say "join" by itself.
            first = await asyncio.to_thread(
                behind.join, "1234collectPayment", "first", "", lambda: None
            )
            proxy.marker = b'"join"'
            cancelled = asyncio.create_task(
                aacquire_lock("1234collectPayment", backend=ALIAS, timeout=30)
            )
            await asyncio.to_thread(until, lambda: proxy.marker == b"")
            proxy.may_go_on.set()  # when the connection ends
            with mock.patch.object(behind.server, "timeout", 0.1):
                cancelled.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await cancelled
            assert await asyncio.to_thread(proxy.delivered.wait, 30)
            await asyncio.to_thread(until, lambda: waiting(patient_lock_server_store) == 1)
            assert await lease.arelease()
            await asyncio.to_thread(first.leave, granted=False)

    with HoldingProxy(*host_and_port(patient_lock_server)) as proxy:
        run(main(proxy))


def test_attempt_that_is_undone_late_takes_nothing_from_a_later_one(
    patient_lock_server: Server,
    patient_lock_server_store: ServerBackend,
    threads: ThreadPoolExecutor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The server receives it, and its undoing, when the waiter holds the lock by another attempt.

    The simulation has found it: the lock was granted to the next waiter, too.
    """
    monkeypatch.setattr(places, "SAFETY", 0.1)
    store = patient_lock_server_store
    with (
        HoldingProxy(*host_and_port(patient_lock_server)) as proxy,
        locks_at(patient_lock_server, proxy.port) as behind,
    ):
        first = store.acquire("1234collectPayment", "first", 60, "first")
        assert first
        waits = threads.submit(acquire, ALIAS, timeout=60)
        until(lambda: waiting(store) == 1)
        proxy.marker = b'"acquire"'
        with mock.patch.object(behind.server, "timeout", 0.2):
            assert store.release(LeaseClaim("1234collectPayment", "first", 60))
            lease = waits.result(60)
        proxy.may_go_on.set()
        assert proxy.delivered.wait(30)
        lease.renew()
        assert not store.acquire("1234collectPayment", "second", 60, "second")
        assert lease.release()


def test_waiter_that_could_not_leave_leaves_later(
    patient_lock_server: Server,
    patient_lock_server_store: ServerBackend,
    threads: ThreadPoolExecutor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before it is offered the lock: here that offer would never expire."""
    monkeypatch.setattr(listening, "PING_EVERY", 3600)
    store = patient_lock_server_store
    with (
        LossyProxy(*host_and_port(patient_lock_server)) as proxy,
        locks_at(patient_lock_server, proxy.port),
    ):
        lease = acquire(ALIAS)
        proxy.lose_requests(b'"leave"', 1)
        assert (
            elsewhere(lambda: acquire_lock("1234collectPayment", backend=ALIAS, timeout=0.1))
            is None
        )
        assert proxy.losses == 0
        stays = threads.submit(acquire, ALIAS, timeout=30)
        until(lambda: waiting(store) == 2)
        assert lease.release()
        assert stays.result(30).release()


def test_waiter_that_could_not_leave_is_removed_without_an_offer(
    patient_lock_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The listening thread repeats the leave if that fails, too, and drops no other message."""
    monkeypatch.setattr(listening, "PING_EVERY", 0.1)
    with (
        LockServerProxy(*host_and_port(patient_lock_server)) as proxy,
        locks_at(patient_lock_server, proxy.port) as store,
    ):
        lease = acquire(ALIAS)
        waits = store.join("1234collectPayment", "owner", "", print)
        assert waits
        proxy.lose_requests(b'"leave"', 3)
        with pytest.raises(LockBackendUnavailable):
            waits.leave(granted=False)
        until(lambda: waiting(store) == 0)
        assert proxy.losses == 0
        assert proxy.listeners == 1
        assert lease.release()


def test_waiter_that_released_an_offer_joins_again(
    patient_lock_server_store: ServerBackend,
    threads: ThreadPoolExecutor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Like a waiter whose attempt was answered too late, and that keeps waiting."""
    monkeypatch.setattr(listening, "PING_EVERY", 0.1)
    store = patient_lock_server_store
    lease = acquire(ALIAS)
    offers: list[int] = []
    waits = store.join("1234collectPayment", "owner", "", lambda: offers.append(1))
    assert lease.release()
    until(lambda: len(offers) == 1)
    successor = threads.submit(acquire, ALIAS, timeout=30)
    until(lambda: waiting(store) == 2)
    assert store.acquire("1234collectPayment", "owner", 60, "")
    [held] = store.held()
    assert store.force_release(
        "1234collectPayment", held.token or 0
    )  # it has left the queue by then
    lease = successor.result(30)
    until(lambda: waiting(store) == 1)
    assert lease.release()
    until(lambda: len(offers) == 2)
    assert waits
    waits.leave(granted=False)


def test_waiter_that_joined_again_as_it_was_granted_the_lock_leaves_the_queue(
    patient_lock_server_store: ServerBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise it would be offered the lock once more, after having released it."""
    monkeypatch.setattr(listening, "PING_EVERY", 0.1)
    store = patient_lock_server_store
    waits = store.join("1234collectPayment", "owner", "", print)
    assert waits
    assert store.acquire("1234collectPayment", "owner", 1000, "")
    until(lambda: waiting(store) == 1)
    waits.leave(granted=True)
    until(lambda: waiting(store) == 0)
    [lock] = store.held()
    assert store.force_release("1234collectPayment", lock.token or 0)


def test_process_that_the_server_forgets_joins_again(
    patient_lock_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over another connection: the open one is of no use."""
    monkeypatch.setattr(listening, "PING_EVERY", 0.1)
    with (
        LockServerProxy(*host_and_port(patient_lock_server)) as proxy,
        locks_at(patient_lock_server, proxy.port) as store,
    ):
        offered = threading.Event()
        lease = acquire(ALIAS)
        waits = store.join("1234collectPayment", "owner", "", offered.set)
        assert waits
        assert proxy.listeners == 1
        forget(patient_lock_server, store)
        until(lambda: proxy.listeners == 2 and waiting(store) == 1)
        assert lease.release()
        assert offered.wait(30)
        waits.leave(granted=False)


def test_process_that_the_server_forgets_makes_itself_known_once_for_all(
    patient_lock_server: Server, threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next request finds out; earlier ones wait with it."""
    monkeypatch.setattr(listening, "PING_EVERY", 3600)
    with (
        LockServerProxy(*host_and_port(patient_lock_server)) as proxy,
        locks_at(patient_lock_server, proxy.port) as store,
    ):
        with holding(ALIAS):
            first = store.join("1234collectPayment", "first", "", print)
            assert first
            forget(patient_lock_server, store)
            until(lambda: waiting(store) == 0)
            owners = [f"owner {number}" for number in range(8)]
            places = list(
                threads.map(
                    lambda owner: store.join("1234collectPayment", owner, "", print), owners
                )
            )
            until(lambda: waiting(store) == 9)
            assert proxy.listeners == 2
            for place in (first, *places):
                assert place
                place.leave(granted=False)


def forget(server: Server, store: ServerBackend) -> None:
    """Make the server forget this process, whose connection to it stays open."""
    process = listening.Listener.of(store.server).process
    friend(endpoint_of(server), process).close()


def test_listener_ends_when_nobody_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its connection is closed, too."""
    monkeypatch.setattr("django_distlock.backends.listening.IDLE", 0)
    monkeypatch.setattr(listening, "PING_EVERY", 0.1)
    # A server of its own: at another one, an earlier test's listener may wait for an answer.
    with flawless_lock_server() as server, locks_of(server) as store:
        with distributed_lock("1234collectPayment", backend=ALIAS):
            assert (
                elsewhere(lambda: acquire_lock("1234collectPayment", backend=ALIAS, timeout=0.1))
                is None
            )
        until(lambda: store.status()["processes"] == 0 and not listens(store))
