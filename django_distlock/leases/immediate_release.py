"""Immediate release: the store is asked at once."""

from contextlib import suppress

from django_distlock.concurrency.process_queue import recent_handovers
from django_distlock.concurrency.store_calls import StoreCalls
from django_distlock.exceptions import LockBackendUnavailable
from django_distlock.records import Released

from .outcomes import end_lost, end_released, mark_unreleased, stop_renewal, unregister
from .state import LeaseState, Status


async def release_now(
    calls: StoreCalls, lease: LeaseState, *, failed: bool, tentative: bool = False
) -> bool:
    """Release the lease; False if it was lost.

    A `tentative` release may be rolled back with a transaction: it is not announced yet.
    """
    # In this order: an interrupted release is not renewed, and not made twice.
    stop_renewal(lease)
    if not lease.claim_end():  # another thread releases it, or records its loss
        unregister(lease)
        return False
    try:
        released = await release_in_store(calls, lease, failed=failed)
    except BaseException as error:
        if isinstance(error, LockBackendUnavailable):
            error.lease = lease
        if not isinstance(error, LockBackendUnavailable) or error.reply_lost:
            lease.mark_unknown()
        lease.return_claim()
        mark_unreleased(lease)
        raise
    unregister(lease)  # first: a receiver may acquire the semaphore again
    if not released:
        end_lost(lease)
    elif tentative:
        lease.status = Status.DEFERRED
    else:
        end_released(lease)
    return released


async def release_unannounced(calls: StoreCalls, lease: LeaseState) -> None:
    """Release a lease that was not returned to a caller. If that fails, it ends with its ttl."""
    lease.claim_end()
    lease.record_release()
    with suppress(LockBackendUnavailable):
        await release_in_store(calls, lease, failed=True)


async def release_in_store(calls: StoreCalls, lease: LeaseState, *, failed: bool) -> bool:
    """Ask the store to release the lease; once more if the reply is lost. False if it was lost.

    If the work under the lock `failed`, it may be done again before `min_hold` is over.
    """
    keep = 0.0 if failed else lease.min_hold_left
    may_be_released = lease.status is Status.UNKNOWN
    try:
        released = await calls.release(lease, keep)
    except LockBackendUnavailable as error:
        if not error.reply_lost:
            raise
        may_be_released = True
        lease.mark_unknown()
        released = await calls.release(lease, keep)
    if released is Released.HANDED_OVER:
        recent_handovers.add(lease.backend, lease.semaphore)
    # Nothing was found if an earlier request was carried out, or if the lease had expired.
    return bool(released) or (may_be_released and lease.remaining > 0)
