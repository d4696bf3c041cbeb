"""Renew leases when a test asks for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django_distlock.concurrency.renewal import Renewals
from tests.support.leases import internals

if TYPE_CHECKING:
    from django_distlock import Lease


def renewals_of(*leases: Lease) -> Renewals:
    """Return a Renewals of these leases of one store, which the test runs."""
    renewals = Renewals(leases[0].backend)
    for lease in leases:
        renewals.add(internals(lease))
    return renewals
