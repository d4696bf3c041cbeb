"""The leases that this process has acquired since it imported the test kit."""

from typing import Any
from weakref import ref

from django_distlock.leases.state import LeaseState
from django_distlock.signals import lock_acquired

references: set[ref[LeaseState]] = set()


def remember(*, lease: LeaseState, **fields: Any) -> None:
    """Remember a lease of any thread or task, by a weak reference."""
    references.add(ref(lease, references.discard))


lock_acquired.record(remember)


def acquired_leases() -> list[LeaseState]:
    """Return the leases that still exist, whether held or not."""
    copy = list(references)  # other threads add to it
    return [lease for lease_ref in copy if (lease := lease_ref())]
