"""Wrong calls of a release and of a lease, and calls in a wrong context."""

from __future__ import annotations

import copy
import pickle
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from django.core.exceptions import SynchronousOnlyOperation
from django.db import transaction

from django_distlock import (
    InvalidLockBackend,
    LockError,
    LockLost,
    LockNotHeld,
    acquire_lock,
    arelease_lock,
    distributed_lock,
    lock_backends,
    release_lock,
)
from django_distlock.semaphores.validation import InvalidSemaphore
from tests.bad_input.table import DATABASES, Row
from tests.support.concurrency import elsewhere, run
from tests.support.entries import NAME
from tests.support.holders import acquire

if TYPE_CHECKING:
    from collections.abc import Callable

    from django_distlock import Lease


def released_as(semaphore: Any) -> Callable[[str], Any]:
    """Return a call that releases a lock by this name."""
    return lambda alias: release_lock(semaphore, backend=alias)


def with_lease(action: Callable[[Lease], Any]) -> Callable[[str], Any]:
    """Return a call that does this to a lease, which is released at the end."""

    def hold_and_act(alias: str) -> Any:
        lease = acquire(alias, NAME)
        try:
            return action(lease)
        finally:
            with suppress(LockError):
                lease.release()

    return hold_and_act


def released(action: Callable[[Lease], Any]) -> Callable[[str], Any]:
    """Return a call that does this to a lease that has been released."""
    return with_lease(lambda lease: lease.release() and action(lease))


def in_loop(action: Callable[[Lease], Any]) -> Callable[[str], Any]:
    """Return a call that does this in a running event loop."""

    def act(lease: Lease) -> Any:
        async def do() -> Any:
            return action(lease)

        return run(do())

    return with_lease(act)


def without_autocommit(alias: str) -> Any:
    """Acquire a lock where each statement begins a transaction by itself."""
    using: str = getattr(lock_backends[alias], "using")  # noqa: B009 - only databases have it
    transaction.set_autocommit(False, using=using)
    try:
        return acquire_lock(NAME, backend=alias)
    finally:
        transaction.rollback(using=using)
        transaction.set_autocommit(True, using=using)


def enter(alias: str, semaphore: Any = "another", **arguments: Any) -> Any:
    """Enter a block."""
    with distributed_lock(semaphore, backend=alias, **arguments):
        return "entered"


LEASES: list[Row] = [
    Row("release of a number", released_as(5), TypeError, "A semaphore is a str, not int"),
    Row("release of nothing", released_as(None), TypeError, "A semaphore is a str, not NoneType"),
    Row("release of ''", released_as(""), InvalidSemaphore, "A semaphore can't be empty"),
    Row("release of a NUL", released_as("\0"), InvalidSemaphore, "no control characters"),
    Row(
        "async release of bytes",
        lambda a: run(arelease_lock(b"x", backend=a)),  # type: ignore[arg-type]
        TypeError,
        "A semaphore is a str, not bytes",
    ),
    Row(
        "release of what was not acquired",
        released_as("never"),
        LockNotHeld,
        "holds no lease on 'never' in DISTLOCK.*released through its Lease",
    ),
    Row(
        "release by name, twice",
        released(lambda lease: release_lock(NAME, backend=lease.backend)),
        LockNotHeld,
        "holds no lease on '1234collectPayment'",
    ),
    Row(
        "release by name of another thread's",
        with_lease(lambda lease: elsewhere(lambda: release_lock(NAME, backend=lease.backend))),
        LockNotHeld,
        "acquired elsewhere is released through its Lease",
    ),
    Row(
        "release of a lease of another backend",
        with_lease(lambda lease: release_lock(lease, backend="another")),
        ValueError,
        r"is not of DISTLOCK\['another'\]. A lease knows its backend: give it alone",
    ),
    Row(
        "release of a lease of no backend",
        with_lease(lambda lease: release_lock(lease, backend=None)),  # type: ignore[arg-type]
        TypeError,
        "backend is a str, an alias in DISTLOCK, not NoneType",
    ),
    Row("pickled lease", with_lease(pickle.dumps), TypeError, "can't be pickled.*send its token"),
    Row("copied lease", with_lease(copy.copy), TypeError, "can't be pickled.*send its token"),
    Row("check after the release", released(lambda lease: lease.check()), LockLost, "released"),
    Row("renewal after the release", released(lambda lease: lease.renew()), LockLost, "released"),
    Row(
        "async renewal after the release",
        released(lambda lease: run(lease.arenew())),
        LockLost,
        "released",
    ),
    Row(
        "wait for one's own lock",
        with_lease(lambda lease: acquire_lock(NAME, timeout=9, backend=lease.backend)),
        LockError,
        "would wait for itself; reentrant=True gives it the same lease",
    ),
]
IN_LOOPS: dict[str, Callable[[Lease], Any]] = {
    "acquire_lock()": lambda lease: acquire_lock("another", backend=lease.backend),
    "release_lock()": release_lock,
    "a block": lambda lease: enter(lease.backend),
    "renew()": lambda lease: lease.renew(),
    "release()": lambda lease: lease.release(),
}
CONTEXTS = [
    *(
        Row(f"{what} in a loop", in_loop(action), SynchronousOnlyOperation, "use its async twin")
        for what, action in IN_LOOPS.items()
    ),
    Row(
        "autocommit off",
        without_autocommit,
        LockError,
        "autocommit",
        DATABASES,
    ),
    Row(
        "template outside a decorated call",
        lambda alias: acquire_lock("<customer_id>collectPayment", backend=alias),
        TypeError,
        "is a template, but only a decorated call fills one in.*f-string",
    ),
    Row(
        "store of an unknown alias",
        lambda alias: lock_backends["nowhere"],
        InvalidLockBackend,
        "not configured; DISTLOCK has",
    ),
]
ROWS = [*LEASES, *CONTEXTS]
