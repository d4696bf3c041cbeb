"""What holds a lock during a test: a lease of this process, or held_elsewhere()."""

import math
import os
from dataclasses import dataclass
from typing import Final

from django_distlock.arguments import validate_alias
from django_distlock.concurrency.store_calls import StoreCalls
from django_distlock.conf import lock_backends
from django_distlock.lease import Lease
from django_distlock.leases.registry import current_registry
from django_distlock.leases.state import LeaseState, Status
from django_distlock.records import LOST, LeaseClaim
from django_distlock.semaphores.validation import validate_semaphore

from .acquired_leases import acquired_leases


@dataclass(frozen=True)
class Holding:
    """A lock in a store, and its holder."""

    backend: str
    claim: LeaseClaim
    lease: LeaseState | None = None
    """None for HoldingElsewhere."""

    def __str__(self) -> str:
        return f"The lease on {self.claim.semaphore!r}"

    @property
    def name(self) -> tuple[str, str]:
        """The backend and the semaphore."""
        return self.backend, self.claim.semaphore


@dataclass(frozen=True)
class HoldingElsewhere(Holding):
    """A lock that held_elsewhere() holds."""

    release_after: float = math.inf
    """Seconds of a wait after which it is released."""

    async def is_held(self, calls: StoreCalls) -> bool:
        """Tell whether the store still has it, and renew it."""
        return not (await calls.renew([self.claim])).get(self.claim.owner, LOST).lost

    async def release(self, calls: StoreCalls) -> None:
        """Release it, if it is still held."""
        await calls.release(self.claim)


elsewhere: Final[dict[tuple[str, str], HoldingElsewhere]] = {}
"""What held_elsewhere() holds, by Holding.name."""


def find_holding(lease: Lease | str, backend: str) -> Holding:
    """Return what holds the lock now; AssertionError if neither this process does nor a test."""
    if not isinstance(lease, str):
        return _holding_of(lease)
    name = lock_backends[validate_alias(backend)].alias, validate_semaphore(lease)
    held = [each for each in _held_leases() if (each.backend, each.semaphore) == name]
    if held:
        newest = max(held, key=lambda each: each.acquired_at)
        return Holding(newest.backend, newest.as_claim(), newest)
    if name in elsewhere:
        return elsewhere[name]
    others = sorted({repr(each.semaphore) for each in _held_leases() if each.backend == name[0]})
    raise AssertionError(
        f"Nothing in this process holds {lease!r} in DISTLOCK[{name[0]!r}]; it holds there: "
        f"{', '.join(others) or 'nothing'}."
    )


def _holding_of(lease: Lease) -> Holding:
    if not isinstance(lease, LeaseState):
        raise TypeError(f"A lease or a semaphore is needed, not {type(lease).__name__}.")
    if not _is_held(lease):
        raise AssertionError(f"{lease} {lease.describe_status()}, so it can't be lost.")
    return Holding(lease.backend, lease.as_claim(), lease)


def _held_leases() -> list[LeaseState]:
    leases = dict.fromkeys([*acquired_leases(), *current_registry().leases()])
    return [lease for lease in leases if _is_held(lease)]


def _is_held(lease: LeaseState) -> bool:
    """Tell whether the lock is the lease's; also while its release waits for transactions."""
    is_deferred = lease.status is Status.DEFERRED and lease.pid == os.getpid()
    return lease.held or is_deferred
