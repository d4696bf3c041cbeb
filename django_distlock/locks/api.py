"""Acquire and release locks, in sync code and in async code."""

from typing import Never

from django_distlock.arguments import validate_alias
from django_distlock.concurrency.store_calls import aask, ask
from django_distlock.conf import lock_backends
from django_distlock.exceptions import LockBackendUnavailable, LockNotHeld
from django_distlock.lease import Lease
from django_distlock.leases.owned_lease import OwnedLease, refuse_event_loop
from django_distlock.leases.registry import current_registry
from django_distlock.leases.release import arelease, release
from django_distlock.leases.state import LeaseState
from django_distlock.locks.arguments import BackendTtl, refuse_template, refuse_unknown
from django_distlock.semaphores.validation import validate_semaphore
from django_distlock.signals import lock_contended, lock_unavailable

from .acquisition import Acquisition
from .undo import aundo, undo
from .waiting import await_turn, release_cancelled, wait


def acquire_lock(
    semaphore: str,
    *,
    timeout: float | None = 0,
    ttl: float | BackendTtl | None = BackendTtl.DEFAULT,
    renew: bool = True,
    label: str = "",
    backend: str = "default",
    reentrant: bool = False,
    min_hold: float | None = None,
    max_hold: float | None = None,
    **unknown: Never,
) -> Lease | None:
    """Acquire the lock. Return its lease, or None if another holder still has it at the timeout.

    - `timeout`: how long to wait for the lock, in seconds. 0 tries once; None waits as long as it
      takes.
    - `ttl`: how long the lease lasts unless it is renewed, in seconds by the store's clock. None
      lasts until the release. By default, the store's own `ttl`.
    - `renew`: whether a background thread renews the lease until its release.
    - `label`: describes the lock in lists, errors and the log, in up to 200 characters. By default,
      the name of the running task or command.
    - `backend`: the store, an alias in `DISTLOCK`.
    - `reentrant`: whether a thread or task that holds the lock itself gets the same lease once
      more. The last of as many releases releases the lock. Otherwise the call is refused; to wait
      for a lock that one holds oneself is a `LockError`.
    - `min_hold`: for how long nobody else gets the lock, in seconds from the grant, even after a
      release. So a worker that comes a little later doesn't repeat a job that was done quickly.
    - `max_hold`: when the lease ends at the latest, in seconds from the grant, in spite of
      renewals. So a holder that hangs loses the lock.

    `LockBackendUnavailable`: the store can't be reached, and nothing was acquired. A wrong
    argument is a `TypeError` or `ValueError` that says what to write.
    """
    if unknown:
        refuse_unknown(acquire_lock, unknown)
    refuse_template(semaphore)
    acquisition = Acquisition(
        semaphore, timeout, ttl, renew, label, backend, reentrant, min_hold, max_hold
    )
    try:
        lease = acquire(acquisition)
        if lease is not None:
            acquisition.retain(lease)
        return lease
    except BaseException:
        undo(acquisition)
        raise


async def aacquire_lock(
    semaphore: str,
    *,
    timeout: float | None = 0,  # noqa: ASYNC109 - as acquire_lock(); a cancelled task holds nothing
    ttl: float | BackendTtl | None = BackendTtl.DEFAULT,
    renew: bool = True,
    label: str = "",
    backend: str = "default",
    reentrant: bool = False,
    min_hold: float | None = None,
    max_hold: float | None = None,
    **unknown: Never,
) -> Lease | None:
    """See `acquire_lock()`."""
    if unknown:
        refuse_unknown(aacquire_lock, unknown)
    refuse_template(semaphore)
    acquisition = Acquisition(
        semaphore, timeout, ttl, renew, label, backend, reentrant, min_hold, max_hold
    )
    try:
        lease = await aacquire(acquisition)
        if lease is not None:
            acquisition.retain(lease)
        return lease
    except BaseException as error:
        await aundo(acquisition, error)
        raise


def release_lock(semaphore: str | Lease, *, backend: str = "default") -> bool:
    """Release a lease, or the lock of this name that this thread, task or request acquired.

    Return False if the lease was lost before: it expired, or an operator took it away. For the
    rest, see `Lease.release()`.

    `LockNotHeld`: no lock of this name was acquired here, or it was released before.
    """
    refuse_event_loop()
    return release(_find(semaphore, backend))


async def arelease_lock(semaphore: str | Lease, *, backend: str = "default") -> bool:
    """See `release_lock()`."""
    return await arelease(_find(semaphore, backend))


def acquire(acquisition: Acquisition) -> OwnedLease | None:
    """Acquire or wait, in this thread. The caller keeps the lease, and calls undo() on failure."""
    refuse_event_loop()
    try:
        lease = ask(lock_backends[acquisition.backend], acquisition.begin)
        if lease is None and acquisition.waits:
            lease = wait(acquisition)
    except LockBackendUnavailable as error:
        if lock_unavailable.is_heard:
            lock_unavailable.send_robust(sender=Lease, **acquisition.failure_fields(error))
        raise
    if lease is None:
        report_refusal(acquisition)
    return lease


def report_refusal(acquisition: Acquisition) -> None:
    """Log that it was refused, and send lock_contended."""
    acquisition.log_refusal()
    if lock_contended.is_heard:
        fields = acquisition.refusal_fields()
        lock_contended.send_robust(sender=Lease, template=acquisition.template, **fields)


async def aacquire(acquisition: Acquisition) -> OwnedLease | None:
    """See acquire()."""
    try:
        lease = await aask(acquisition.backend, acquisition.begin, release_cancelled)
        if lease is None and acquisition.waits:
            lease = await await_turn(acquisition)
    except LockBackendUnavailable as error:
        if lock_unavailable.is_heard:
            await lock_unavailable.asend_robust(sender=Lease, **acquisition.failure_fields(error))
        raise
    if lease is None:
        acquisition.log_refusal()
        if lock_contended.is_heard:
            fields = acquisition.refusal_fields()
            await lock_contended.asend_robust(sender=Lease, template=acquisition.template, **fields)
    return lease


def _find(semaphore: str | Lease, backend: str) -> LeaseState:
    """Return the lease itself, or the one that was acquired here by this name."""
    if type(semaphore) is OwnedLease:  # isinstance() is slow: it is an abstract class
        if backend not in ("default", semaphore.backend):
            raise ValueError(
                f"{semaphore} is not of DISTLOCK[{validate_alias(backend)!r}]. A lease knows its "
                "backend: give it alone."
            )
        return semaphore
    name = validate_alias(backend), validate_semaphore(semaphore)
    lease = current_registry().find(*name) or current_registry().find_unreleased(*name)
    if lease is None:
        raise LockNotHeld(
            f"This thread, task or request holds no lease on {semaphore!r} in "
            f"DISTLOCK[{backend!r}]; one that was acquired elsewhere is released through its Lease."
        )
    return lease
