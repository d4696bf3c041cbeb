"""Renew leases when a test says so."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django_distlock.concurrency.renewal import Renewals

if TYPE_CHECKING:
    from django_distlock import Lease


def renewals_of(*leases: Lease) -> Renewals:
    """Return what renews these leases, of one store, when it is told to."""
    renewals = Renewals(leases[0].backend)
    for lease in leases:
        renewals.add(lease)
    return renewals
