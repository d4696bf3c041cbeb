"""Hold locks, lose them, and check whether others can acquire them."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from django.conf import settings

from django_distlock import LockBackendUnavailable, acquire_lock, clocks, lock_backends
from django_distlock.concurrency.background import background
from django_distlock.models import KEPT, Lock
from django_distlock.records import LockState
from tests.support.concurrency import elsewhere
from tests.support.leases import internals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from django_distlock import Lease
    from django_distlock.leases.owned_lease import OwnedLease


def acquire(alias: str, semaphore: str = "1234collectPayment", **arguments: Any) -> OwnedLease:
    """Acquire a lock that must be free."""
    return internals(acquire_lock(semaphore, backend=alias, **arguments))


def hold(number: int, alias: str) -> list[OwnedLease]:
    """Acquire so many leases of a minute, which nobody renews but the test."""
    return [acquire(alias, f"{alias} {n}", ttl=60, renew=False) for n in range(number)]


def reenter(alias: str) -> OwnedLease:
    """Reenter the lock."""
    return acquire(alias, reentrant=True)


def held_in(alias: str) -> list[str]:
    """Return the semaphores that the store says are held."""
    return [lock.semaphore for lock in lock_backends[alias].held()]


@contextmanager
def holding(
    alias: str, semaphore: str = "1234collectPayment", **arguments: Any
) -> Iterator[OwnedLease]:
    """Hold a lock that must be free; release it at the end, even if it counts as lost."""
    lease = acquire(alias, semaphore, **arguments)
    try:
        yield lease
    finally:
        if not lease.release():
            lock_backends[alias].release(lease)


def free_for_others(alias: str, *, timeout: float = 0) -> bool:
    """Return whether another thread gets the lock, which it releases again."""

    def take_and_return() -> bool:
        lease = acquire_lock("1234collectPayment", backend=alias, timeout=timeout)
        return lease is not None and lease.release()

    return elsewhere(take_and_return)


def outlast(lease: Lease) -> None:
    """Wait until the lease has expired by the local clock."""
    while lease.remaining:
        time.sleep(lease.remaining)


def brief(alias: str, **arguments: Any) -> OwnedLease:
    """Acquire for a moment; again if a slow machine let it expire before."""
    give_up = time.monotonic() + 60
    while True:
        try:
            return acquire(alias, **arguments)
        except LockBackendUnavailable:
            assert time.monotonic() < give_up


def expired(alias: str) -> OwnedLease:
    """Return a lease whose ttl has passed by the local clock."""
    lease = brief(alias, ttl=0.05, renew=False)
    outlast(lease)
    return lease


def take_away(lease: Lease) -> None:
    """Force the release, as an operator would."""
    token = lease.token
    assert token is not None
    assert elsewhere(lambda: lock_backends[lease.backend].force_release(lease.semaphore, token))


def renewed_since(leases: Sequence[Lease]) -> Callable[[], bool]:
    """Return a function that returns whether all have been renewed since now."""
    ends = [lease.expires_at for lease in leases]
    return lambda: all(lease.expires_at != end for lease, end in zip(leases, ends, strict=True))


def due_now(leases: Sequence[Lease]) -> None:
    """Make the background renew these at once."""
    renewed = background(leases[0].backend)
    for lease in leases:
        internals(lease).due = clocks.monotonic()
    renewed.submit(renewed.renewals.next_due)  # wakes it


def finish_background_work() -> None:
    """Wait until the background has finished its work."""
    for each in map(background, settings.DISTLOCK):
        if each.thread is not None:
            done = threading.Event()
            each.submit(done.set)
            assert done.wait(60)


def renew_now(lease: Lease) -> None:
    """Renew the lease in the background, and wait until that is done."""
    due_now([lease])
    finish_background_work()


def states(alias: str) -> list[LockState]:
    """Return the states that the store lists."""
    return [lock.state for lock in lock_backends[alias].held()]


def kept(alias: str) -> bool:
    """Return whether the lock is kept: without an owner, but not free."""
    return Lock.objects.using(alias).filter(
        semaphore="1234collectPayment", owner=KEPT
    ).exists() and (states(alias) == [LockState.HELD])
