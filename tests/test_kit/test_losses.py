"""lose() and expire(): a holder that loses its lock."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest
from django.core.exceptions import SynchronousOnlyOperation
from django.db import transaction
from django.test import TestCase

from django_distlock import (
    Lease,
    LockLost,
    aacquire_lock,
    acquire_lock,
    distributed_lock,
    lock_backends,
    release_lock,
)
from django_distlock.records import LockState, Renewal, RenewalOutcome
from django_distlock.test import (
    aexpire,
    alose,
    captured_locks,
    expire,
    held_elsewhere,
    lose,
    losses,
    override_locks,
)
from tests.app.models import Counter
from tests.support.concurrency import elsewhere, run
from tests.support.databases import committed
from tests.support.holders import acquire, free_for_others, renew_now, states
from tests.support.kit_stores import MEMCACHED, STORES
from tests.support.signals import received

if TYPE_CHECKING:
    from collections.abc import Callable

    from django_distlock.backends.base import BaseLockBackend
    from django_distlock.records import Claim

pytestmark = pytest.mark.once

LOCK = "1234collectPayment"
ways = pytest.mark.parametrize("take", [lose, expire])
quickly = pytest.mark.parametrize("store", [store for store in STORES if store != MEMCACHED])
"""Where an expiry takes milliseconds."""


@committed
@quickly
@ways
def test_holder_has_noticed_and_another_worker_gets_the_lock(
    store: str, take: Callable[..., None], lost: dict[Lease, str]
) -> None:
    """By its lease, or by its name, wherever it was acquired."""
    lease = acquire(store)
    take(lease)
    assert not lease.held
    with pytest.raises(LockLost):
        lease.check()
    assert lease.release() is False
    assert list(lost) == [lease]
    assert bool(lease.remaining) is (take is lose)
    if take is expire:
        assert lost[lease] == "its ttl of 60 seconds has passed"
        if store in ("default", "postgresql", "mariadb"):
            assert states(store) == [LockState.STALE]
    in_thread = elsewhere(lambda: acquire(store, renew=False))
    take(LOCK, backend=store)
    assert not in_thread.held
    assert free_for_others(store)


@committed
@quickly
@ways
def test_commit_is_refused_at_once_whether_the_holder_has_noticed_or_not(
    store: str, take: Callable[..., None], lost: dict[Lease, str]
) -> None:
    """Though the store has confirmed the lease just now."""
    for noticed in (True, False):
        with pytest.raises(LockLost, match="before the commit"):
            with distributed_lock(LOCK, backend=store) as lease, transaction.atomic():
                Counter.objects.create()
                take(lease, noticed=noticed)
                assert (lease in lost) is noticed
        assert lease in lost
        assert not Counter.objects.exists()
        assert free_for_others(store)


@committed
@pytest.mark.parametrize("store", [MEMCACHED])
def test_lock_in_memcached_is_lost_and_expires(store: str, lost: dict[Lease, str]) -> None:
    """It lists no locks, and counts in seconds."""
    for take in (lose, expire):
        with pytest.raises(LockLost, match="before the commit"):
            with distributed_lock(LOCK, backend=store), transaction.atomic():
                Counter.objects.create()
                take(LOCK, backend=store, noticed=take is expire)
        assert not Counter.objects.exists()
        assert free_for_others(store)
    assert len(lost) == 2


@committed
@pytest.mark.parametrize("store", ["default", "memory"])
@ways
def test_commit_is_refused_for_a_release_that_waits_for_it(
    store: str, take: Callable[..., None]
) -> None:
    """The lease is released as far as its holder knows."""
    if store == "default":  # there the release is a part of the transaction
        with transaction.atomic(), distributed_lock(LOCK) as lease:
            pass
        with pytest.raises(AssertionError, match="was released, so it can't be lost"):
            take(lease)
        return
    with pytest.raises(LockLost, match="before the commit"), transaction.atomic():
        with distributed_lock(LOCK, backend=store):
            Counter.objects.create()
        take(LOCK, backend=store)
    assert not Counter.objects.exists()


@pytest.mark.usefixtures("in_memory")
def test_holder_that_has_not_noticed_finds_out_by_itself(lost: dict[Lease, str]) -> None:
    """When it renews, in the background too, or when it releases."""
    lease = acquire("default")
    lose(lease, noticed=False)
    before = lease.held
    renew_now(lease)
    assert [before, lease.held] == [True, False]
    lease = acquire("default")
    lose(lease, noticed=False)
    with pytest.raises(LockLost):
        lease.renew()
    lease = acquire("default")
    lose(lease, noticed=False)
    assert lease.release() is False
    lease = acquire("default")
    expire(lease, noticed=False)
    assert not lease.held
    with pytest.raises(LockLost, match="ttl of 60 seconds has passed"):
        lease.check()
    assert len(lost) == 4


@pytest.mark.usefixtures("in_memory")
def test_block_of_another_thread_loses_its_lock() -> None:
    """As a request in a server's thread does."""
    inside, go_on = threading.Event(), threading.Event()

    def work() -> None:
        with distributed_lock(LOCK, renew=False):
            inside.set()
            assert go_on.wait(60)

    def lose_it_inside() -> None:
        assert inside.wait(60)
        lose(LOCK)
        go_on.set()

    losing = threading.Thread(target=lose_it_inside)
    losing.start()
    with pytest.raises(LockLost):
        elsewhere(work)
    losing.join(60)


@pytest.mark.usefixtures("in_memory")
def test_lock_of_another_worker_can_be_lost_and_expire() -> None:
    """Then the tested code gets it."""
    for take in (lose, expire):
        with held_elsewhere(LOCK):
            take(LOCK)
            assert acquire_lock(LOCK)
            assert release_lock(LOCK)
        with held_elsewhere(LOCK):
            assert acquire_lock(LOCK) is None


@pytest.mark.usefixtures("in_memory")
def test_what_nothing_holds_is_an_error_that_says_what_is_held() -> None:
    """The semaphore is misspelt, or the backend another one."""
    acquire("default", "1234collectPayments")
    acquire("other")
    with pytest.raises(AssertionError, match=r"holds '1234collectPayment'.*'1234collectPayments'"):
        lose(LOCK)
    lease = acquire("default")
    lose(lease)
    for take in (lose, expire):
        with pytest.raises(AssertionError, match="so it can't be lost"):
            take(lease)
    with pytest.raises(TypeError, match="A lease or a semaphore"):
        lose(None)  # type: ignore[arg-type]
    with pytest.raises(AssertionError, match="has no ttl"):
        expire(acquire("default", ttl=None))
    store = lock_backends["other"]
    [lock] = store.held()
    assert store.force_release(LOCK, lock.token or 0)
    for take in (lose, expire):
        with pytest.raises(AssertionError, match="is no longer held in its store"):
            take(LOCK, backend="other")


@pytest.mark.usefixtures("in_memory")
def test_lease_that_is_renewed_all_the_time_does_not_expire(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As when something else renews it: the test does not hang."""
    monkeypatch.setattr(losses, "PATIENCE", 0.01)

    def renew(self: BaseLockBackend, leases: list[Claim]) -> dict[str, Renewal]:
        return {lease.owner: Renewal(RenewalOutcome.RENEWED) for lease in leases}

    monkeypatch.setattr(type(lock_backends["default"]), "renew", renew)
    lease = acquire("default")
    with pytest.raises(AssertionError, match=r"did not expire in 0\.01 s"):
        expire(lease)
    with pytest.raises(AssertionError, match=r"did not expire in 0\.01 s"):
        run(aexpire(lease))


@committed
@quickly
def test_async_code_awaits_them(store: str) -> None:
    """A receiver of lock_lost may use the database: it is called in a thread."""
    called_in = []

    async def main() -> None:
        for atake in (alose, aexpire):
            lease = await aacquire_lock(LOCK, backend=store)
            assert lease is not None
            await atake(lease)
            assert not lease.held
            lease = await aacquire_lock(LOCK, backend=store)
            assert lease is not None
            await atake(LOCK, backend=store, noticed=False)
            assert await lease.arelease() is False
            async with held_elsewhere(LOCK, backend=store):
                await atake(LOCK, backend=store)
                async with distributed_lock(LOCK, backend=store):
                    pass

    run(main())
    with received("lost", lambda **_: called_in.append(Counter.objects.count())):
        run(main())
    assert called_in == [0] * 4


@committed
def test_sync_calls_in_an_event_loop_need_the_memory_store() -> None:
    """Where they don't wait."""

    async def take(take: Callable[..., None], lease: Lease) -> None:
        take(lease)

    for way in (lose, expire):
        lease = acquire("memory")
        run(take(way, lease))
        assert not lease.held
        lease = acquire("locks")
        with pytest.raises(SynchronousOnlyOperation):
            run(take(way, lease))
        assert lease.release()


def test_expiry_takes_milliseconds() -> None:
    """Not the ttl."""
    lease = acquire("memory", ttl=3600)
    began = time.monotonic()
    expire(lease)
    assert time.monotonic() - began < 1


@override_locks()
class InTestCase(TestCase):
    def test_events_are_those_of_a_loss(self) -> None:
        """Once each."""
        with captured_locks() as captured, pytest.raises(LockLost):
            with distributed_lock(LOCK):
                lose(LOCK)
        self.assertEqual(captured.kinds, ["acquired", "lost"])
