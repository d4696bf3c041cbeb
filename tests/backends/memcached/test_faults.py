"""Faults of Memcached servers that keep locks, and of the network before them."""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from django_distlock import (
    Lease,
    LockBackendUnavailable,
    LockLost,
    acquire_lock,
    clocks,
    lock_backends,
)
from django_distlock.records import Released
from tests.support.concurrency import until
from tests.support.error_pages import SECRET, page_of_lost_reply
from tests.support.holders import acquire, due_now
from tests.support.memcached_stores import (
    leading_to,
    on_memcached,
    through_proxy,
)
from tests.support.scripted_memcached import ScriptedServer

if TYPE_CHECKING:
    from django_distlock.backends.memcached import MemcachedBackend
    from tests.support.servers import Server

pytestmark = [on_memcached, pytest.mark.once]

# Restarts


def test_restarted_server_has_lost_the_lock_and_the_holder_learns_of_it(
    alias: str, spare_memcached: Server, lost: dict[Lease, str]
) -> None:
    """Its successor is left alone, though Memcached counts its changes from 1 again."""
    lease = acquire(alias, renew=False)
    background = acquire(alias, "renewed in the background")
    spare_memcached.kill()
    spare_memcached.start()
    successor = acquire(alias)
    with pytest.raises(LockLost):
        lease.renew()
    assert lease.release() is False
    assert lock_backends[alias].release(lease) is Released.NOT_HELD
    due_now([background])
    until(lambda: background in lost)  # the signal comes after the change of its state
    assert set(lost) == {lease, background}
    assert acquire_lock("1234collectPayment", backend=alias) is None
    assert successor.release()


def test_release_finds_the_lock_gone_after_a_restart(alias: str, spare_memcached: Server) -> None:
    """A request on a connection that was cut is repeated on a new one."""
    lease = acquire(alias, renew=False)
    spare_memcached.kill()
    spare_memcached.start()
    assert lease.release() is False
    assert lease.lost


# Busy is not down


def test_dead_server_is_not_taken_for_a_held_lock(alias: str, spare_memcached: Server) -> None:
    """Peer defects 3, 16 and 20: it is an error, not None, and no call waits for it."""
    lease = acquire(alias, renew=False)
    assert acquire_lock("1234collectPayment", backend=alias) is None
    spare_memcached.kill()
    began = clocks.monotonic()
    for timeout in (0, 30, 30):
        with pytest.raises(LockBackendUnavailable) as caught:
            acquire_lock("5678collectPayment", timeout=timeout, backend=alias)
        assert str(caught.value).startswith(f"DISTLOCK[{alias!r}]: ")
    with pytest.raises(LockBackendUnavailable):
        lease.renew()
    with pytest.raises(LockBackendUnavailable):
        lease.release()
    assert clocks.monotonic() - began < 30
    assert lease.held
    spare_memcached.start()
    assert lease.release() is False
    assert acquire(alias).release()


def test_hanging_server_is_unavailable_and_loses_no_lease(
    alias: str, spare_memcached: Server
) -> None:
    """On an open connection and on new ones: the lease's state is unknown, not lost."""
    lease = acquire(alias, renew=False)
    port = spare_memcached.port
    with leading_to(port, alias, store_timeout=0.3) as hasty:
        until(lambda: answers(hasty))
        with spare_memcached.paused():
            for reply_lost in (True, False):
                with pytest.raises(LockBackendUnavailable) as caught:
                    hasty.acquire("another", "owner", 60, "")
                assert caught.value.reply_lost is reply_lost
            with pytest.raises(LockBackendUnavailable):
                hasty.release(lease)
            with pytest.raises(LockBackendUnavailable):
                hasty.renew([lease])
            assert lease.held
        until(lambda: answers(hasty))
    assert lease.release()


def answers(store: MemcachedBackend) -> bool:
    """Return whether the server answers; if so, a connection is open."""
    with suppress(LockBackendUnavailable):
        return bool(store.acquire("another", "owner", 60, ""))
    return False


def test_listener_that_never_answers_is_unavailable(alias: str) -> None:
    """The first request changes nothing, so its reply doesn't matter."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with leading_to(listener.getsockname()[1], alias, store_timeout=0.3) as store:
            assert not answers(store)
            began = clocks.monotonic()
            with pytest.raises(LockBackendUnavailable) as caught:
                store.acquire("1234collectPayment", "owner", 60, "")
    assert clocks.monotonic() - began < 30
    assert not caught.value.reply_lost


def test_server_that_makes_no_sense_is_unavailable(alias: str) -> None:
    """It says that the entry exists, and that it doesn't: that is not a held lock."""
    with ScriptedServer(gets=(0, "END\r\n"), add=(0, "NOT_STORED\r\n")) as server:
        with leading_to(server.port, alias) as store:
            with pytest.raises(LockBackendUnavailable, match="10 times") as caught:
                store.acquire("1234collectPayment", "owner", 60, "")
    assert not caught.value.reply_lost
    assert server.asked == ["gets", *["add", "gets"] * 10]


def test_server_that_has_no_memory_left_is_unavailable(alias: str) -> None:
    """It says so where it doesn't evict."""
    full = "SERVER_ERROR out of memory storing object\r\n"
    with ScriptedServer(gets=(0, "END\r\n"), add=(0, full)) as server:
        with leading_to(server.port, alias) as store:
            with pytest.raises(LockBackendUnavailable) as caught:
                store.acquire("1234collectPayment", "owner", 60, "")
    assert not caught.value.reply_lost


# Lost requests and replies


def test_lost_reply_of_a_grant_finds_the_grant(alias: str) -> None:
    """The server has granted, but the reply was lost: the client retries as the same owner."""
    with through_proxy(alias) as proxy:
        assert acquire(alias, "warm up").release()
        proxy.lose_replies(b"add ", 1)
        lease = acquire(alias)
        assert proxy.losses == 0
        assert acquire_lock("1234collectPayment", backend=alias) is None
        assert lease.release()


def test_grant_is_released_after_two_lost_replies(alias: str) -> None:
    """Unavailable, and the semaphore is free at once."""
    with through_proxy(alias) as proxy:
        proxy.lose_replies(b"add ", 2)
        with pytest.raises(LockBackendUnavailable):
            acquire_lock("1234collectPayment", backend=alias)
        assert proxy.losses == 0
        assert acquire(alias).release()


def test_lost_reply_of_a_release_is_a_release(alias: str) -> None:
    """The second request finds nothing to release, and that does not count as a loss."""
    with through_proxy(alias) as proxy:
        lease = acquire(alias)
        proxy.lose_replies(b"cas ", 1)
        assert lease.release() is True
        assert proxy.losses == 0
        assert acquire(alias).release()


def test_connection_that_was_cut_is_replaced(alias: str) -> None:
    """Silently, if the cut is noticed before anything is changed."""
    with through_proxy(alias) as proxy:
        lease = acquire(alias)
        proxy.lose_requests(b"gets ", 1)
        assert lease.release() is True
        assert proxy.losses == 0


def test_owner_is_on_no_error_page(alias: str) -> None:
    """DEBUG's page shows every frame's variables, and a client's frame has what it sends."""
    with through_proxy(alias) as proxy:
        proxy.lose_replies(b"add ", 2)
        page = page_of_lost_reply(alias)
    assert "lost reply" in page
    assert SECRET not in page
