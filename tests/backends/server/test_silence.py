"""Lock servers that answer nothing."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING
from unittest import mock

import pytest

from django_distlock import LockBackendUnavailable, aacquire_lock, acquire_lock, clocks
from django_distlock.backends.server import listening
from tests.support.concurrency import run, until
from tests.support.holders import acquire
from tests.support.lock_server_holders import take, take_in_task
from tests.support.lock_servers import ALIAS, is_unused, locks_at, locks_of, waiting

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

    from django_distlock import Lease
    from django_distlock.backends.server import ServerBackend
    from django_distlock.backends.server.places import QueuedPlace
    from tests.support.lock_server_proxy import LockServerProxy
    from tests.support.servers import Server

pytestmark = [pytest.mark.needs("lock_server"), pytest.mark.once]


def test_server_that_answers_nothing_is_unavailable_in_time(spare_lock_server: Server) -> None:
    """What it does later leaves no lock."""
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
    """Send requests until the server has answered in time."""
    answers: list[object] = []

    def has_answered() -> bool:
        with suppress(LockBackendUnavailable):
            answers.append(store.status())
        return bool(answers)

    until(has_answered)


def test_late_answer_is_discarded(
    spare_lock_server: Server, lock_server_proxy: LockServerProxy, threads: ThreadPoolExecutor
) -> None:
    """The next request has another connection."""
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
    """Even if its process no longer listens by then."""
    monkeypatch.setattr(listening, "PING_EVERY", 0.1)
    with locks_of(spare_lock_server) as store:
        lease = acquire(ALIAS)
        waits = [threads.submit(take), threads.submit(lambda: run(take_in_task()))]
        until(lambda: len(joined) == 2)
        with spare_lock_server.paused(), mock.patch.object(store.server, "timeout", 0.1):
            until(lambda: "can't listen" in caplog.text)
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
    """As when a firewall drops the connection; waiters join again."""
    monkeypatch.setattr(listening, "PING_EVERY", 0.1)
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
