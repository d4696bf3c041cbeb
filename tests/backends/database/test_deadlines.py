"""The time that a database has to answer: packets may vanish silently."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from django_distlock import Lease, LockBackendUnavailable, acquire_lock, lock_backends
from django_distlock.backends.database import connections as own
from django_distlock.backends.database.deadlines import limit
from django_distlock.records import LockQuery
from tests.support.concurrency import elsewhere, until, used_elsewhere
from tests.support.databases import (
    committed,
    noting_connections,
    on_each_server,
    pool_of,
    through_proxy,
)
from tests.support.holders import acquire
from tests.support.servers import Server

pytestmark = [committed, pytest.mark.once]

StoreTimeout = Callable[[str, float], None]

SHORT = 0.3
"""Seconds for a call that gets no answer. A connection has two of them: libpq's shortest wait."""
LONG = 60.0
"""Seconds for a call that gets one, on a busy machine."""
HANG = 40.0
"""Seconds that no call takes that ends in its time, even on a busy machine."""


@contextmanager
def in_time() -> Iterator[None]:
    """Fail if the block takes longer than a call may."""
    began = time.monotonic()
    yield
    assert time.monotonic() - began < HANG


def fail_in_time(call: Callable[[], object]) -> LockBackendUnavailable:
    """Call something that must fail soon, in another thread; return the error."""
    with in_time(), pytest.raises(LockBackendUnavailable) as caught:
        elsewhere(call)
    return caught.value


def test_drivers_keep_their_own_time_limits() -> None:
    """PyMySQL and psycopg 2 get the deadline when they connect."""
    driver = SimpleNamespace()
    limit(driver, lambda: 0.0)
    assert vars(driver) == {}


@on_each_server
def test_new_connection_is_not_waited_for_longer_than_the_store_timeout(
    alias: str, store_timeout: StoreTimeout
) -> None:
    """The connection is accepted, and then gets no answer."""
    with through_proxy(alias) as proxy:
        own.close_own_connections()
        store_timeout(alias, SHORT)
        with proxy.swallowing():
            error = fail_in_time(lambda: acquire_lock("1234collectPayment", backend=alias))
            assert not error.reply_lost
        store_timeout(alias, LONG)
        with in_time():
            assert acquire(alias).release()


@on_each_server
def test_swallowed_statement_is_unavailable_and_the_next_call_works_at_once(
    alias: str, store_timeout: StoreTimeout
) -> None:
    """It uses none of the other connections, which are dead as well, though unnoticed."""
    with through_proxy(alias) as proxy:
        one, two = pool_of(alias).all
        with used_elsewhere(one):
            acquire(alias, "by the second").release()
        assert one.is_open
        assert two.is_open
        store_timeout(alias, SHORT)
        with proxy.swallowing():
            began = time.monotonic()
            error = fail_in_time(lambda: acquire_lock("1234collectPayment", backend=alias))
            assert time.monotonic() - began >= SHORT
            # These drivers count whole seconds, and have other messages.
            assert f"no answer in {SHORT} seconds" in str(error)
            fail_in_time(lambda: acquire_lock("1234collectPayment", backend=alias, timeout=0.1))
        store_timeout(alias, LONG)
        with in_time():
            lease = acquire(alias, "by the first")
            with used_elsewhere(one):
                acquire(alias, "by the second").release()
        assert lease.release()


@on_each_server
@pytest.mark.parametrize("action", ["renew", "release"])
def test_all_calls_end_in_time(alias: str, action: str, store_timeout: StoreTimeout) -> None:
    """The lease can be released when the database is back."""
    with through_proxy(alias) as proxy:
        store_timeout(alias, LONG)
        lease = acquire(alias, renew=False)
        store_timeout(alias, SHORT)
        with proxy.swallowing():
            error = fail_in_time(getattr(lease, action))
        assert action == "renew" or not error.reply_lost  # it was asked twice
        store_timeout(alias, LONG)
        with in_time():
            assert lease.release()


@on_each_server
@pytest.mark.parametrize(
    "ask",
    [
        pytest.param(lambda store: store.page(LockQuery()), id="page"),
        pytest.param(lambda store: list(store.held()), id="held"),
        pytest.param(lambda store: store.find("1234collectPayment"), id="find"),
    ],
)
def test_operators_are_answered_in_time(
    alias: str, ask: Callable[[Any], object], store_timeout: StoreTimeout
) -> None:
    """So that the admin's page can say that the store doesn't answer."""
    with through_proxy(alias) as proxy:
        acquire(alias).release()
        store_timeout(alias, SHORT)
        with proxy.swallowing():
            fail_in_time(lambda: ask(lock_backends[alias]))
        store_timeout(alias, LONG)
        with in_time():
            ask(lock_backends[alias])


@on_each_server
def test_stopped_server_is_unavailable(
    alias: str, servers: dict[str, Server], store_timeout: StoreTimeout
) -> None:
    """Its kernel accepts and acknowledges."""
    acquire(alias).release()
    store_timeout(alias, SHORT)
    with servers[alias].paused():
        fail_in_time(lambda: acquire_lock("1234collectPayment", backend=alias))
        fail_in_time(lambda: acquire_lock("1234collectPayment", backend=alias))
    store_timeout(alias, LONG)
    with in_time():
        assert acquire(alias, "as before").release()


@on_each_server
def test_connections_in_use_are_waited_for_within_the_time(
    alias: str, store_timeout: StoreTimeout
) -> None:
    """Nothing was sent, so the connections stay usable."""
    one, two = pool_of(alias).all
    for busy in ([], [one]):
        with ExitStack() as stack:
            for each in busy:
                stack.enter_context(used_elsewhere(each))
            acquire(alias).release()
    store_timeout(alias, 0.1)
    with noting_connections(alias) as made:
        with used_elsewhere(one), used_elsewhere(two):
            error = fail_in_time(lambda: acquire_lock("1234collectPayment", backend=alias))
        assert "2 connections for locks have been in use" in str(error)
        assert not error.reply_lost
        store_timeout(alias, LONG)
        acquire(alias).release()
    assert made == []


@on_each_server
def test_loss_is_reported_at_the_end_of_the_ttl(
    alias: str, lost: dict[Lease, str], store_timeout: StoreTimeout
) -> None:
    """The loss doesn't wait for the renewal, which takes much longer here."""
    store_timeout(alias, LONG)
    with through_proxy(alias) as proxy:
        leases = [acquire(alias, f"for {ttl} s", ttl=ttl) for ttl in (0.3, 0.5, 0.7)]
        with proxy.swallowing():
            with in_time():
                until(lambda: len(lost) == 3)
    assert set(lost) == set(leases)


@on_each_server
def test_statement_is_waited_for_without_poll(alias: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """eventlet removes it."""
    own.close_own_connections()
    monkeypatch.delattr("select.poll")
    assert acquire(alias).release()
    own.close_own_connections()
