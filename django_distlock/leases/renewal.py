"""Renewal at once, by the holder or before a commit. The background has its own: Renewals."""

from django_distlock import clocks
from django_distlock.backends.base import joins_transaction
from django_distlock.concurrency.renewal import UNANSWERED
from django_distlock.concurrency.store_calls import StoreCalls
from django_distlock.conf import lock_backends
from django_distlock.exceptions import LockBackendUnavailable
from django_distlock.records import Renewal
from django_distlock.transactions import open_transactions

from .state import LeaseState


async def renew_once(calls: StoreCalls, lease: LeaseState) -> Renewal:
    """Renew the lease, even if it has expired by this process's clock."""
    sent = clocks.monotonic()
    try:
        renewal = (await calls.renew([lease.claim(sent)])).get(lease.owner, UNANSWERED)
    except LockBackendUnavailable as error:
        error.lease = lease
        raise
    # A renewal in the caller's transaction may be rolled back: count on the earlier end.
    if not (joins_transaction(lock_backends[lease.backend]) and open_transactions()):
        lease.extend(renewal, sent)
    return renewal
