"""Hold locks, lose them, and see whether others can have them."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from django_distlock import Lease, acquire_lock, lock_backends
from tests.support.concurrency import elsewhere

if TYPE_CHECKING:
    from collections.abc import Iterator


def acquire(alias: str, semaphore: str = "a", **arguments: Any) -> Lease:
    """Acquire what must be free."""
    lease = acquire_lock(semaphore, backend=alias, **arguments)
    assert lease is not None
    return lease


@contextmanager
def holding(alias: str, semaphore: str = "a", **arguments: Any) -> Iterator[Lease]:
    """Hold what must be free; at the end it is, though the lease may be thought to be lost."""
    lease = acquire(alias, semaphore, **arguments)
    try:
        yield lease
    finally:
        if not lease.release():
            lock_backends[alias].release(lease)


def free_for_others(alias: str, *, timeout: float = 0) -> bool:
    """Tell whether another thread gets the lock, and let it give it back."""

    def take_and_return() -> bool:
        lease = acquire_lock("a", backend=alias, timeout=timeout)
        return lease is not None and lease.release()

    return elsewhere(take_and_return)


def outlast(lease: Lease) -> None:
    """Wait until the lease has expired by the local clock."""
    while lease.remaining:
        time.sleep(lease.remaining)


def take_away(lease: Lease) -> None:
    """Force the release, as an operator would."""
    token = lease.token
    assert token is not None
    assert elsewhere(lambda: lock_backends[lease.backend].force_release(lease.semaphore, token))
