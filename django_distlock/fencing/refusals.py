"""Refuse to write under a lease, and say why."""

from typing import TypeVar

from django.db import connections, models

from django_distlock.arguments import show
from django_distlock.exceptions import LockLost
from django_distlock.lease import Lease
from django_distlock.leases.outcomes import mark_lost
from django_distlock.leases.state import LeaseState

from .fields import FenceField

M = TypeVar("M", bound=models.Model)


def check_lease(lease: object) -> None:
    """Raise TypeError for anything but a Lease, such as its semaphore."""
    if not isinstance(lease, Lease):
        raise TypeError(
            "lease is a Lease, as acquire_lock() or `with distributed_lock(…) as lease` gives, not "
            f"{show(lease)}."
        )


def check_token(lease: Lease) -> None:
    """Raise ValueError if the lease's store gives no tokens."""
    if lease.token is None:
        raise ValueError(
            f"{lease} has no token: its store {lease.backend!r} doesn't support them. Fencing "
            "needs a lease from another store, the database for example."
        )


def check_held(lease: Lease, subject: str) -> None:
    """Raise LockLost if the lease is known to be lost, before any statement is sent."""
    try:
        lease.check()
    except LockLost as error:
        raise LockLost(f"{subject} was not written. {error}", lease) from error


def check_instance(fence: FenceField, instance: models.Model, lease: Lease) -> None:
    """Raise unless the lease is on the instance's semaphore and, as far as is known, held."""
    check_lease(lease)
    semaphore = fence.template.render_for(instance)
    if semaphore != lease.semaphore:
        raise ValueError(
            f"{describe(instance)} belongs to {semaphore!r}, but the lease is on "
            f"{lease.semaphore!r}."
        )
    check_token(lease)
    check_held(lease, describe(instance))


def describe(instance: models.Model) -> str:
    """Return the object's model and key; its __str__ may need a query."""
    return f"{instance._meta.label} with pk {instance.pk!r}"


def lose_to_later_holder(lease: Lease, subject: str, token: int) -> LockLost:
    """Mark the lease as lost, since the row has a greater token; return the error to raise."""
    if isinstance(lease, LeaseState):
        mark_lost(lease)
    return LockLost(
        f"{subject} was not written: a later holder of {lease.semaphore!r}, with token {token}, "
        f"has written it since. {lease} has token {lease.token}.",
        lease,
    )


def as_update_sees(rows: "models.QuerySet[M]") -> "models.QuerySet[M]":
    """Make the query read the rows as an UPDATE would see them.

    At REPEATABLE READ, MySQL's family shows what others have committed to a locking read only.
    """
    connection = connections[rows.db]
    if connection.vendor == "mysql" and connection.in_atomic_block:
        return rows.select_for_update()
    return rows
