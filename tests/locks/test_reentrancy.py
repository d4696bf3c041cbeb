"""Locks that a thread already holds: contended for it, too, unless reentrant=True."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from django.http import HttpResponse
from django.test import RequestFactory

from django_distlock import (
    LockBackendUnavailable,
    LockLost,
    LockNotAcquired,
    LockNotHeld,
    acquire_lock,
    distributed_lock,
    release_lock,
)
from tests.support.concurrency import elsewhere
from tests.support.databases import committed, on_each_database
from tests.support.holders import acquire, expired, free_for_others, reenter, take_away
from tests.support.leases import internals

if TYPE_CHECKING:
    from django.http import HttpRequest

    from tests.support.scripted_store import ScriptedBackend

pytestmark = committed


# Reentrant


@on_each_database
def test_reentry_gives_the_same_lease(alias: str) -> None:
    """Unchanged; it takes as many releases to release it."""
    lease = acquire(alias, reentrant=True, ttl=30)
    for _ in range(2):
        assert acquire(alias, reentrant=True, ttl=5, timeout=1) is lease
    assert lease.ttl == 30
    for _ in range(2):
        assert lease.release() is True
        assert lease.held
        assert not free_for_others(alias)
    assert lease.release() is True
    assert not lease.held
    assert free_for_others(alias)
    assert lease.release() is False


@on_each_database
def test_only_the_outermost_of_nested_blocks_releases(alias: str) -> None:
    """Of one object or of several, with the outermost reentrant or not."""
    lock = distributed_lock("1234collectPayment", backend=alias, reentrant=True)
    for outer in (lock, distributed_lock("1234collectPayment", backend=alias)):
        with outer as first:
            with lock as second:
                with lock as third:
                    assert first is second is third
                assert not free_for_others(alias)
            assert first.held
            assert not free_for_others(alias)
        assert free_for_others(alias)


@on_each_database
def test_error_in_an_inner_block_releases_nothing(alias: str) -> None:
    """The outer block still holds the lock."""
    lock = distributed_lock("1234collectPayment", backend=alias, reentrant=True)
    with lock as lease:
        with suppress(ZeroDivisionError), lock:
            raise ZeroDivisionError
        lease.check()
        assert not free_for_others(alias)
    assert free_for_others(alias)


@on_each_database
def test_release_by_name_counts_too(alias: str) -> None:
    """The lock can be released by name until the last release."""
    acquire(alias)
    reenter(alias)
    assert release_lock("1234collectPayment", backend=alias) is True
    assert not free_for_others(alias)
    assert release_lock("1234collectPayment", backend=alias) is True
    assert free_for_others(alias)
    with pytest.raises(LockNotHeld):
        release_lock("1234collectPayment", backend=alias)


@on_each_database
def test_recursive_function_is_locked_as_a_whole(alias: str) -> None:
    """Each call of the decorated function enters once more."""
    free: list[bool] = []

    @distributed_lock("<name>", backend=alias, reentrant=True)
    def count_down(name: str, number: int) -> int:
        deepest = count_down(name, number - 1) if number else 0
        free.append(free_for_others(alias))
        return deepest + 1

    assert count_down("1234collectPayment", 3) == 4
    assert free == [False] * 4
    assert free_for_others(alias)


def test_recursive_function_that_is_not_reentrant_is_refused(scripted: ScriptedBackend) -> None:
    """All is released afterwards."""

    @distributed_lock("<name>")
    def recurse(name: str) -> None:
        recurse(name)

    with pytest.raises(LockNotAcquired):
        recurse("1234collectPayment")
    assert scripted.owner == ""


@on_each_database
def test_locked_view_may_call_a_reentrant_helper(alias: str) -> None:
    """The answer and the lock are the view's."""

    @distributed_lock("<name>", backend=alias, reentrant=True)
    def help_out(request: HttpRequest, name: str) -> bool:
        return free_for_others(alias)

    @distributed_lock("<name>", backend=alias, http=True)
    def view(request: HttpRequest, name: str) -> HttpResponse:
        return HttpResponse(f"{help_out(request, name)} {free_for_others(alias)}")

    assert view(RequestFactory().get("/"), name="1234collectPayment").content == b"False False"
    assert free_for_others(alias)


@on_each_database
def test_inner_block_raises_when_the_lease_was_lost(alias: str) -> None:
    """The outer block raises, too."""
    lock = distributed_lock("1234collectPayment", backend=alias, reentrant=True, renew=False)
    inner = threading.Event()
    with pytest.raises(LockLost, match="before its block ended") as outer, lock as lease:
        with pytest.raises(LockLost) as lost, lock:
            take_away(lease)
            internals(lease).mark_lost()
            inner.set()
        assert lost.value.lease is lease
    assert outer.value.lease is lease
    assert inner.is_set()


@on_each_database
def test_lost_lease_is_not_reentered(alias: str) -> None:
    """The lock is acquired again, with a greater token; each block has its own lease."""
    lock = distributed_lock("1234collectPayment", backend=alias, reentrant=True, renew=False)
    with pytest.raises(LockLost), lock as lease:
        take_away(lease)
        internals(lease).mark_lost()
        with lock as successor:
            assert successor is not lease
            assert successor.token
            assert lease.token
            assert successor.token > lease.token
            assert not free_for_others(alias)
        assert free_for_others(alias)


@on_each_database
def test_lost_lease_is_contended_when_others_have_the_lock(alias: str) -> None:
    """Even if the name is still registered."""
    lease = acquire(alias, renew=False)
    take_away(lease)
    lease.mark_lost()
    other = elsewhere(lambda: acquire(alias))
    assert acquire_lock("1234collectPayment", backend=alias, reentrant=True) is None
    assert acquire_lock("1234collectPayment", backend=alias, reentrant=True, timeout=0.01) is None
    assert release_lock("1234collectPayment", backend=alias) is False
    assert other.release()


@on_each_database
def test_expired_lease_is_not_reentered(alias: str) -> None:
    """Whether or not anybody has noticed."""
    lease = expired(alias)
    successor = acquire(alias, reentrant=True, timeout=60)
    assert successor is not lease
    assert lease.lost
    assert successor.release()


@on_each_database
def test_other_threads_do_not_inherit_it(alias: str) -> None:
    """For them it is contended, and they can wait for it."""
    with distributed_lock("1234collectPayment", backend=alias, reentrant=True) as lease:
        for timeout in (0, 0.01):
            assert (
                elsewhere(
                    lambda timeout=timeout: acquire_lock(  # type: ignore[misc]
                        "1234collectPayment", backend=alias, reentrant=True, timeout=timeout
                    )
                )
                is None
            )
        assert lease.held
    assert free_for_others(alias)


def test_store_that_is_down_is_not_asked_about_a_reentry(scripted: ScriptedBackend) -> None:
    """The lease is known to be held until its ttl has passed."""
    lease = acquire("default")
    scripted.answer("acquire", LockBackendUnavailable("down"))
    assert reenter("default") is lease
    assert scripted.calls == ["acquire"]
