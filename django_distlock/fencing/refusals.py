"""Why a write under a lease is refused."""

from typing import TypeVar

from django.db import connections, models

from django_distlock.arguments import show
from django_distlock.exceptions import LockLost
from django_distlock.leases.lease import Lease

M = TypeVar("M", bound=models.Model)


def check_lease(lease: object) -> None:
    """Raise TypeError for what is no lease, as the name of one."""
    if not isinstance(lease, Lease):
        raise TypeError(
            "lease is a Lease, as acquire_lock() or `with distributed_lock(…) as lease` gives, not "
            f"{show(lease)}."
        )


def check_token(lease: Lease) -> None:
    """Raise ValueError if the lease's store gives no tokens."""
    if lease.token is None:
        raise ValueError(
            f"{lease} has no token: its store {lease.backend!r} doesn't support them. What is "
            "fenced needs a lease from another one, the database for example."
        )


def check_held(lease: Lease, what: str) -> None:
    """Raise LockLost if the lease is known to be lost, before anything is sent."""
    try:
        lease.check()
    except LockLost as error:
        raise LockLost(f"{what} was not written. {error}", lease) from error


def name_of(instance: models.Model) -> str:
    """Name the object, but not by its __str__, which may need a query."""
    return f"{instance._meta.label} with pk {instance.pk!r}"


def refuse(lease: Lease, what: str, fence: int) -> LockLost:
    """Take note that the lease was lost, as a row tells; return the error that says so."""
    lease.lose()
    return LockLost(
        f"{what} was not written: a later holder of {lease.semaphore!r}, with token {fence}, has "
        f"written it since. {lease} has token {lease.token}.",
        lease,
    )


def as_it_is(rows: "models.QuerySet[M]") -> "models.QuerySet[M]":
    """Let the rows be read as an UPDATE saw them.

    At REPEATABLE READ, MySQL's family shows only to a locking read what others have committed.
    """
    connection = connections[rows.db]
    if connection.vendor == "mysql" and connection.in_atomic_block:
        return rows.select_for_update()
    return rows
