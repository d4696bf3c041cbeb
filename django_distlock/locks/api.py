"""Acquire and release, in sync code and in async."""

from typing import Never

from django.utils.asyncio import async_unsafe

from django_distlock.arguments import validate_alias
from django_distlock.concurrency.store_calls import aask, ask
from django_distlock.conf import lock_backends
from django_distlock.exceptions import LockNotHeld
from django_distlock.leases.lease import ASYNC_UNSAFE, Lease
from django_distlock.leases.registry import current_registry
from django_distlock.locks.arguments import BackendTtl, refuse_template, refuse_unknown
from django_distlock.semaphores.validation import validate_semaphore
from django_distlock.signals import lock_contended

from .acquisition import Acquisition, aundo, undo
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
    """Acquire the semaphore, or return None if somebody else holds it until the timeout.

    `timeout` is how long to wait, in seconds: 0 tries once, None waits as long as it takes.
    `ttl` is how long the lease lasts, in seconds by the store's clock, None until it is released;
    the default is the backend's. It is renewed in the background until it is released, unless
    `renew` is False, but ends `max_hold` seconds after the grant at the latest, so that a holder
    that hangs does not keep it. `label`, of up to 200 characters, tells people who look at held
    locks what it is for.

    After a release nobody else gets the semaphore until `min_hold` seconds have passed since the
    grant: what is quickly done is then not done again by who comes a little later.

    What this very thread or task holds is contended for it, too; waiting for it is a LockError.
    With `reentrant` it gets its lease once more, as it is, and the last of as many releases counts.

    LockBackendUnavailable means that the store couldn't be asked: nothing was acquired. A wrong
    argument is a TypeError or ValueError that says what to write.
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
    timeout: float | None = 0,  # noqa: ASYNC109 - as of its twin; who is cancelled holds nothing
    ttl: float | BackendTtl | None = BackendTtl.DEFAULT,
    renew: bool = True,
    label: str = "",
    backend: str = "default",
    reentrant: bool = False,
    min_hold: float | None = None,
    max_hold: float | None = None,
    **unknown: Never,
) -> Lease | None:
    """See acquire_lock()."""
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


@async_unsafe(ASYNC_UNSAFE)
def release_lock(semaphore: str | Lease, *, backend: str = "default") -> bool:
    """Release a lease, or by its name what this thread, task or request acquired.

    False means that it had been lost already: it expired, or an operator took it away.
    LockNotHeld means that nothing by this name was acquired here, or it was released before.
    """
    return _find(semaphore, backend).release_as()


async def arelease_lock(semaphore: str | Lease, *, backend: str = "default") -> bool:
    """See release_lock()."""
    return await _find(semaphore, backend).arelease_as()


@async_unsafe(ASYNC_UNSAFE)
def acquire(acquisition: Acquisition) -> Lease | None:
    """Acquire or wait, in this thread. The caller refers to the lease, and undoes what fails."""
    lease = ask(lock_backends[acquisition.backend], acquisition.begin)
    if lease is None and acquisition.waits:
        lease = wait(acquisition)
    if lease is None:
        lock_contended.send_robust(
            sender=Lease, semaphore=acquisition.semaphore, backend=acquisition.backend
        )
    return lease


async def aacquire(acquisition: Acquisition) -> Lease | None:
    """See acquire()."""
    lease = await aask(acquisition.backend, acquisition.begin, release_cancelled)
    if lease is None and acquisition.waits:
        lease = await await_turn(acquisition)
    if lease is None:
        await lock_contended.asend_robust(
            sender=Lease, semaphore=acquisition.semaphore, backend=acquisition.backend
        )
    return lease


def _find(semaphore: str | Lease, backend: str) -> Lease:
    """Return a lease, or by its name what was acquired here."""
    if isinstance(semaphore, Lease):
        return semaphore
    name = validate_alias(backend), validate_semaphore(semaphore)
    lease = current_registry().find(*name) or current_registry().find_unreleased(*name)
    if lease is None:
        raise LockNotHeld(
            f"This thread, task or request holds no lease on {semaphore!r} in "
            f"DISTLOCK[{backend!r}]; one that was acquired elsewhere is released through its Lease."
        )
    return lease
