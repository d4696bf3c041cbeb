"""The time that a database has to answer: its packets may vanish without a word."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from django_distlock import Lease, LockBackendUnavailable, acquire_lock
from django_distlock.backends.database import connections as own
from tests.support.concurrency import elsewhere, until, used_elsewhere
from tests.support.databases import committed, on_each_server, pool_of, through_proxy
from tests.support.holders import acquire
from tests.support.servers import Server

pytestmark = committed

BUSY = 6.0
"""Seconds that are more than a budget of two on a busy machine, and less than a hang."""


@contextmanager
def in_time() -> Iterator[None]:
    """Fail if the block takes longer than a call may."""
    began = time.monotonic()
    yield
    assert time.monotonic() - began < BUSY


def fail_in_time(call: Callable[[], object]) -> LockBackendUnavailable:
    """Call in another thread what has to fail, and soon; return how."""
    with in_time(), pytest.raises(LockBackendUnavailable) as caught:
        elsewhere(call)
    return caught.value


@on_each_server
def test_new_connection_is_not_waited_for_longer_than_the_store_timeout(alias: str) -> None:
    """It is accepted, and then hears nothing."""
    with through_proxy(alias) as proxy:
        own.close_own_connections()
        with proxy.swallowing():
            error = fail_in_time(lambda: acquire_lock("a", backend=alias))
            assert not error.reply_lost
        with in_time():
            assert acquire(alias).release()


@on_each_server
def test_swallowed_statement_is_unavailable_and_the_next_call_works_at_once(alias: str) -> None:
    """Not on the connections that are dead as well, though nobody was told so."""
    with through_proxy(alias) as proxy:
        one, two = pool_of(alias).all
        with used_elsewhere(one):
            acquire(alias, "by the second").release()
        assert one._opened is not None
        assert two._opened is not None
        with proxy.swallowing():
            error = fail_in_time(lambda: acquire_lock("a", backend=alias))
            assert "no answer in 2 seconds" in str(error)
            fail_in_time(lambda: acquire_lock("a", backend=alias, timeout=0.1))
        with in_time():
            lease = acquire(alias, "b")
            with used_elsewhere(one):
                acquire(alias, "c").release()
        assert lease.release()


@on_each_server
@pytest.mark.parametrize("action", ["renew", "release"])
def test_all_calls_end_in_time(alias: str, action: str) -> None:
    """The lease can be released when the database is back."""
    with through_proxy(alias) as proxy:
        lease = acquire(alias, renew=False)
        with proxy.swallowing():
            error = fail_in_time(getattr(lease, action))
        assert action == "renew" or not error.reply_lost  # it was asked twice
        with in_time():
            assert lease.release()


@on_each_server
def test_stopped_server_is_unavailable(alias: str, servers: dict[str, Server]) -> None:
    """Its kernel accepts and acknowledges."""
    acquire(alias).release()
    with servers[alias].paused():
        fail_in_time(lambda: acquire_lock("a", backend=alias))
        fail_in_time(lambda: acquire_lock("a", backend=alias))
    with in_time():
        assert acquire(alias, "b").release()


@on_each_server
def test_connections_in_use_are_waited_for_within_the_time(
    alias: str, store_timeout: Callable[[str, float], None]
) -> None:
    """Nothing was sent."""
    store_timeout(alias, 0.2)
    acquire(alias).release()
    one, two = pool_of(alias).all
    with used_elsewhere(one), used_elsewhere(two):
        error = fail_in_time(lambda: acquire_lock("a", backend=alias))
    assert "2 connections for locks have been in use" in str(error)
    assert not error.reply_lost
    assert one._is_sound


@on_each_server
def test_deadline_is_kept_to_a_fraction_of_a_second(
    alias: str, store_timeout: Callable[[str, float], None]
) -> None:
    """Where the drivers count whole ones."""
    store_timeout(alias, 0.2)
    with through_proxy(alias) as proxy, proxy.swallowing():
        began = time.monotonic()
        with pytest.raises(LockBackendUnavailable, match=r"no answer in 0\.2 seconds"):
            acquire_lock("a", backend=alias)
        assert 0.2 <= time.monotonic() - began < 1


@on_each_server
def test_loss_is_told_at_the_end_of_the_ttl(
    alias: str, lost: dict[Lease, str], store_timeout: Callable[[str, float], None]
) -> None:
    """Whatever a renewal waits for: this one does for much longer."""
    store_timeout(alias, 30)
    with through_proxy(alias) as proxy, in_time():
        leases = [acquire(alias, f"{ttl}", ttl=ttl) for ttl in (1, 1.5, 2)]
        with proxy.swallowing():
            until(lambda: len(lost) == 3)
    assert set(lost) == set(leases)


@pytest.fixture
def store_timeout(settings: Any) -> Iterator[Callable[[str, float], None]]:
    """Let a store have another time."""

    def change(alias: str, seconds: float) -> None:
        options = settings.DISTLOCK[alias]["OPTIONS"] | {"store_timeout": seconds}
        settings.DISTLOCK = settings.DISTLOCK | {
            alias: settings.DISTLOCK[alias] | {"OPTIONS": options}
        }
        own.close_own_connections()

    yield change
    own.close_own_connections()


@on_each_server
def test_statement_is_waited_for_without_poll(alias: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows has select() alone."""
    own.close_own_connections()
    monkeypatch.delattr("select.poll")
    assert acquire(alias).release()
    own.close_own_connections()
