"""A lease whose release failed has no owner any more, and ends with its ttl."""

from __future__ import annotations

import gc
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from django.db import transaction

from django_distlock import (
    LockBackendUnavailable,
    LockLost,
    LockNotHeld,
    acquire_lock,
    distributed_lock,
    lock_backends,
    release_lock,
)
from django_distlock.concurrency.background import background
from django_distlock.leases.outcomes import mark_unreleased
from django_distlock.leases.registry import current_registry
from tests.app.models import Counter
from tests.support.concurrency import elsewhere, run
from tests.support.databases import committed
from tests.support.holders import acquire, free_for_others

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from django_distlock.concurrency.background import Background
    from tests.support.moved_clock import MovedClock
    from tests.support.scripted_store import ScriptedBackend

pytestmark = [committed, pytest.mark.usefixtures("clear_memory")]

STORES = [
    "default",
    "memory",
    *(
        pytest.param(name, marks=[pytest.mark.needs(name), pytest.mark.once])
        for name in ("postgresql", "mariadb", "redis", "lock_server", "memcached")
    ),
]
WAYS_TO_WAIT = ["memory", "default", pytest.param("redis", marks=pytest.mark.needs("redis"))]
"""In this process, by asking the store again and again, and in a queue of the store's."""
DOWN = LockBackendUnavailable("down")


def down(alias: str) -> AbstractContextManager[Any]:
    """Make every release fail."""
    return mock.patch.object(type(lock_backends[alias]), "release", side_effect=DOWN)


def leave_block(alias: str) -> None:
    """Leave a block; the failure of its release is only logged."""
    with distributed_lock("1234collectPayment", backend=alias):
        pass


def call(alias: str) -> None:
    """Return from a decorated function; the failure is only logged, too."""
    distributed_lock("1234collectPayment", backend=alias)(lambda: None)()


def release_by_name(alias: str) -> None:
    """Release as in the documentation's first example, and check that it fails."""
    acquire(alias)
    with suppress(LockBackendUnavailable):
        release_lock("1234collectPayment", backend=alias)


def leave_async_block(alias: str) -> None:
    """Leave a task's block."""

    async def main() -> None:
        async with distributed_lock("1234collectPayment", backend=alias):
            pass

    run(main())


@pytest.mark.usefixtures("no_backgrounds")
@pytest.mark.parametrize("alias", STORES)
@pytest.mark.parametrize("end", [leave_block, call, release_by_name])
def test_thread_can_reacquire_an_unreleased_lock(alias: str, end: Callable[[str], None]) -> None:
    """As soon as the store is back, without waiting for the lease to expire."""
    with down(alias):
        end(alias)
        assert acquire_lock("1234collectPayment", backend=alias) is None
    assert len(background(alias).renewals) == 0
    lease = acquire(alias, timeout=60)
    assert lease.release()
    assert free_for_others(alias)


@pytest.mark.once
@pytest.mark.parametrize("alias", WAYS_TO_WAIT)
def test_thread_outlives_an_unreleasable_lease(alias: str) -> None:
    """If releases keep failing, the lease ends with its ttl, and is waited for like any other."""
    with down(alias):
        # On a machine slower than the ttl, the lease is lost, and the grant can't be released.
        with (
            suppress(LockLost, LockBackendUnavailable),
            distributed_lock("1234collectPayment", backend=alias, ttl=1),
        ):
            pass
        lease = acquire(alias, timeout=60)
        assert lease.held
    assert lease.release()


@pytest.mark.usefixtures("no_backgrounds")
def test_unreleased_lease_of_a_task_is_not_renewed() -> None:
    """The unreleased lease ends by itself."""
    with mock.patch.object(type(lock_backends["memory"]), "arelease", side_effect=DOWN):
        leave_async_block("memory")
    assert len(background("memory").renewals) == 0


def test_failed_release_can_be_tried_again_by_name(scripted: ScriptedBackend) -> None:
    """Once it has succeeded there is nothing more to release."""
    acquire("default")
    scripted.answer("release", DOWN, DOWN)
    for _ in range(2):
        with pytest.raises(LockBackendUnavailable):
            release_lock("1234collectPayment")
    assert release_lock("1234collectPayment")
    with pytest.raises(LockNotHeld):
        release_lock("1234collectPayment")


def test_unreleased_lease_that_has_ended_is_not_released_again(
    scripted: ScriptedBackend, moved_clock: MovedClock
) -> None:
    """Releasing it would report the loss of a lease without an owner."""
    scripted.answer("release", DOWN)
    lease = acquire("default")
    with pytest.raises(LockBackendUnavailable):
        lease.release()
    moved_clock.expire(lease)
    scripted.owner = ""
    scripted.calls.clear()
    assert acquire("default").release()
    assert scripted.calls == ["acquire", "release"]


def test_unreleased_leases_do_not_pile_up(
    scripted: ScriptedBackend, moved_clock: MovedClock
) -> None:
    """Expired ones are forgotten when another release fails."""
    for number in range(3):
        scripted.answer("release", DOWN)
        lease = acquire("default", f"report {number}")
        with pytest.raises(LockBackendUnavailable):
            lease.release()
        moved_clock.expire(lease)
        scripted.owner = ""
    assert current_registry().find_unreleased("default", "report 0") is None
    mark_unreleased(acquire("default", "another"))
    assert current_registry().find_unreleased("default", "another") is not None


def test_unreleased_lease_guards_no_commit(scripted: ScriptedBackend) -> None:
    """Its work is over, even if its block has not been left yet."""
    with distributed_lock("1234collectPayment") as lease:
        scripted.answer("release", DOWN)
        with pytest.raises(LockBackendUnavailable):
            lease.release()
        assert current_registry().guarding_leases() == []


def test_lease_of_a_thread_that_has_ended_is_no_longer_renewed() -> None:
    """No code can acquire it again."""
    lease = elsewhere(lambda: acquire("memory"))
    gc.collect()
    mark_unreleased(lease)
    assert lease.is_unreleased
    assert lease.release()


def test_interrupted_release_of_a_reentered_lease_counts(scripted: ScriptedBackend) -> None:
    """The outer block still holds the lease, and releases it."""
    lease = acquire("default")
    assert acquire("default", reentrant=True) is lease
    with mock.patch("django_distlock.leases.release.ask", side_effect=KeyboardInterrupt):
        with pytest.raises(KeyboardInterrupt):
            lease.release()
    assert lease.held
    assert not lease.is_unreleased
    assert lease.release()
    assert scripted.owner == ""


def test_release_that_is_interrupted_after_a_commit_ends_the_renewal(
    scripted: ScriptedBackend, default_background: Background
) -> None:
    """The lock is free when the ttl has passed."""
    scripted.answer("release", KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt), transaction.atomic():
        with distributed_lock("1234collectPayment"):
            Counter.objects.create()
    assert Counter.objects.exists()
    assert len(default_background.renewals) == 0
    assert acquire_lock("1234collectPayment") is None
