"""The internals of a lease, which users don't see."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django_distlock.leases.owned_lease import OwnedLease

if TYPE_CHECKING:
    from django_distlock import Lease


def internals(lease: Lease | None) -> OwnedLease:
    """Return the lease as the package knows it, with its owner and its status."""
    assert isinstance(lease, OwnedLease)
    return lease
