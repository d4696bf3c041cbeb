"""Release of a lease: immediate, or deferred to the end of open transactions."""

import os

from django.db.backends.base.base import BaseDatabaseWrapper

from django_distlock.backends.base import joins_transaction
from django_distlock.concurrency.store_calls import StoreCalls, aask, ask
from django_distlock.conf import lock_backends
from django_distlock.logs import room_logger
from django_distlock.transactions import open_transactions

from .deferred_release import DeferredRelease, Stage
from .immediate_release import release_now
from .outcomes import is_registered, mark_lost, mark_unreleased, unregister
from .registry import current_registry
from .state import LeaseState, Status

logger = room_logger("leases")


def release(lease: LeaseState, *, failed: bool = False) -> bool:
    """Release the lease. See release_or_defer()."""
    reentries = lease.reentries
    try:
        return ask(
            lock_backends[lease.backend],
            lambda calls: release_or_defer(calls, lease, failed=failed),
        )
    except BaseException:
        end_interrupted_release(lease, reentries)
        raise


async def arelease(lease: LeaseState, *, failed: bool = False) -> bool:
    """See release(). A cancelled task ends when the lease has been released."""
    reentries = lease.reentries
    try:
        return await aask(
            lease.backend, lambda calls: release_or_defer(calls, lease, failed=failed)
        )
    except BaseException:
        end_interrupted_release(lease, reentries)
        raise


async def release_or_defer(calls: StoreCalls, lease: LeaseState, *, failed: bool = False) -> bool:
    """Release the lease, one of its reentries first; False if it was lost or released before.

    If the work under the lock `failed`, `min_hold` does not count.
    """
    if lease.reentries:
        lease.reentries -= 1
        return lease.held
    transactions = open_transactions()
    # A loss that its holder has not learned of yet must fail the commits of open transactions.
    is_known_loss = lease.lost and not (transactions and is_registered(lease))
    if lease.released or is_known_loss or lease.pid != os.getpid():
        unregister(lease)
        return False
    if transactions:
        return await _defer(calls, lease, transactions, failed)
    return await release_now(calls, lease, failed=failed)


async def _defer(
    calls: StoreCalls, lease: LeaseState, transactions: list[BaseDatabaseWrapper], failed: bool
) -> bool:
    """Release when the transactions have ended. If the lease is lost, refuse their commits.

    If there is only one, and the release is a part of it, release at once: nobody gets the lock
    before it ends.
    """
    [first, *others] = transactions
    siblings = current_registry().deferred_releases
    deferred = DeferredRelease(lease, transactions, siblings, failed=failed)
    joins = joins_transaction(lock_backends[lease.backend])
    if not lease.held:
        deferred.stage = Stage.GUARDING
        mark_lost(lease)
    elif others or first.needs_rollback or not joins:
        lease.status = Status.DEFERRED
    else:
        released = await release_now(calls, lease, failed=failed, tentative=True)
        deferred.stage = Stage.TENTATIVE if released else Stage.GUARDING
    unregister(lease)
    return lease.released


async def release_quietly(calls: StoreCalls, lease: LeaseState, *, failed: bool = False) -> None:
    """Release the lease. An error is logged; the lease then ends by itself."""
    try:
        await release_or_defer(calls, lease, failed=failed)
    except Exception as error:
        fields = lease.log_fields(reason=str(error))
        logger.exception("%s could not be released.", lease, extra=fields)


def end_interrupted_release(lease: LeaseState, reentries: int) -> None:
    """Finish an interrupted release; `reentries` is their number before it.

    The release of a reentry counts as made. A deferred release stays deferred.
    """
    if reentries:
        lease.limit_reentries(reentries - 1)
    elif not lease.released:
        mark_unreleased(lease)
