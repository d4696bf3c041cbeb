"""Record the end of a lease, and announce it by signals.

A function that ends a lease is called by the thread that claimed its end.
"""

import logging
from typing import Final

from django_distlock.concurrency.background import background
from django_distlock.concurrency.process_queue import queues
from django_distlock.lease import Lease
from django_distlock.logs import room_logger
from django_distlock.signals import lock_lost, lock_released

from .state import LeaseState, Status

logger = room_logger("leases")

LOSS: Final = "%s, of %s, was lost: %s."
"""The log line of a loss."""


def stop_renewal(lease: LeaseState) -> None:
    """Stop renewing the lease in the background. Safe in a finalizer."""
    if lease.renewed:
        background(lease.backend).stop_renewal(lease)


def unregister(lease: LeaseState) -> None:
    """Remove the lease from the registry that finds it by its name."""
    if registry := lease.registry():
        registry.remove(lease)


def is_registered(lease: LeaseState) -> bool:
    """Return whether its thread or task has neither released it nor learned that it is lost."""
    registry = lease.registry()
    return registry is not None and registry.find(lease.backend, lease.semaphore) is lease


def end_released(lease: LeaseState) -> None:
    """Record and announce that the store has released the lease."""
    lease.record_release()
    queues.wake_first(lease.backend, lease.semaphore)
    if logger.isEnabledFor(logging.DEBUG):
        logger.debug(
            "%s, with token %s, was released after %.3f s.",
            str(lease),
            lease.token,
            lease.held_for,
            extra=lease.log_fields(held_for=lease.held_for),
        )
    if lock_released.is_heard:
        lock_released.send_robust(
            sender=Lease, lease=lease, held_for=lease.held_for, template=lease.template
        )


def end_lost(lease: LeaseState) -> None:
    """Record and announce that the lease is lost."""
    reason = lease.record_loss()
    stop_renewal(lease)
    queues.wake_first(lease.backend, lease.semaphore)
    logger.warning(
        LOSS,
        lease,
        lease.holder,
        reason,
        extra=lease.log_fields(reason=reason, held_for=lease.held_for),
    )
    lock_lost.send_robust(
        sender=Lease,
        lease=lease,
        reason=reason,
        held_for=lease.held_for,
        template=lease.template,
    )


def mark_lost(lease: LeaseState) -> None:
    """End the lease as lost, unless another thread has claimed its end."""
    if lease.claim_end():
        end_lost(lease)


def mark_unreleased(lease: LeaseState) -> None:
    """Record that a release failed or was interrupted.

    The lease is no longer renewed. It ends with its ttl, or by another release. The next
    acquisition of its semaphore in the same thread or task makes one.
    """
    stop_renewal(lease)
    lease.renewed = False
    if not (lease.released or lease.lost):
        if lease.status is not Status.UNKNOWN:
            lease.status = Status.UNRELEASED
        if registry := lease.registry():
            registry.add_unreleased(lease)
