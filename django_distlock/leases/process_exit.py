"""Release at exit: a process releases its leases, so that others need not wait for a ttl."""

import atexit
import os
import warnings
from collections import deque
from functools import cache
from typing import Final, NamedTuple

from django_distlock import clocks
from django_distlock.backends.base import BaseLockBackend
from django_distlock.backends.time_budget import Budget
from django_distlock.concurrency.store_calls import ask
from django_distlock.conf import lock_backends
from django_distlock.logs import room_logger
from django_distlock.records import LeaseClaim

from .registry import current_registry
from .release import release
from .state import LeaseState

logger = room_logger("leases")

LONGEST: Final = 3.0
"""Seconds after which no other store is asked: a process must end, even if a store is down."""


class UnreferencedLease(NamedTuple):
    """The rest of a lease that was not released before its last reference was dropped."""

    backend: str
    claim: LeaseClaim
    deadline: float
    """When it ends, by the local monotonic clock."""

    @classmethod
    def of(cls, lease: LeaseState) -> "UnreferencedLease":
        """Return the rest of this lease."""
        return cls(lease.backend, lease.as_claim(), clocks.monotonic() + lease.remaining)

    @property
    def semaphore(self) -> str:
        """The semaphore of the lease."""
        return self.claim.semaphore


unreferenced_leases: deque[UnreferencedLease] = deque(maxlen=10_000)
"""Those of this process. They are not renewed, and released when it ends."""
os.register_at_fork(after_in_child=unreferenced_leases.clear)


@cache
def release_at_exit() -> None:
    """Make this process release its leases when it ends.

    Before the connections for locks are closed: that was registered earlier, when the store was
    made.
    """
    atexit.register(_release_all)


def _release_all() -> None:
    """Release the unreferenced leases, and those that this thread, the main one, has by name.

    What another thread acquired that still runs is left alone: its work may be under way.
    """
    now = clocks.monotonic()
    leases: list[LeaseState | UnreferencedLease] = []
    leases += [lease for lease in current_registry().retained() if lease.held]
    while unreferenced_leases:
        unreferenced = unreferenced_leases.popleft()
        if unreferenced.deadline > now:
            leases.append(unreferenced)
    for report in _release_each(leases):
        warnings.warn(report, ResourceWarning, stacklevel=2)


def _release_each(leases: list[LeaseState | UnreferencedLease]) -> list[str]:
    """Release these; log and return a report of each. A store that is down is asked once."""
    deadline = clocks.monotonic() + LONGEST
    failures: dict[str, str] = {}
    reports = []
    for lease in leases:
        if clocks.monotonic() >= deadline:
            failures.setdefault(lease.backend, "that took too long")
        if lease.backend not in failures:
            try:
                _limit_calls(lock_backends[lease.backend], deadline)
                _release(lease)
            except Exception as error:  # noqa: BLE001 - it is reported
                failures[lease.backend] = str(error)
        reports.append(_report(lease, failures.get(lease.backend)))
    return reports


def _limit_calls(store: BaseLockBackend, deadline: float) -> None:
    """Limit the store's calls to the time until the deadline, whatever its `store_timeout` is."""
    budget = store.time_budget()
    if isinstance(budget, Budget):
        budget.seconds = min(budget.seconds, deadline - clocks.monotonic())


def _release(lease: LeaseState | UnreferencedLease) -> None:
    if isinstance(lease, LeaseState):
        lease.limit_reentries(0)
        release(lease)
    else:
        ask(lock_backends[lease.backend], lambda calls: calls.release(lease.claim))


def _report(lease: LeaseState | UnreferencedLease, failure: str | None) -> str:
    """Log what became of the lease; return it, too."""
    became = "and ended with it: release it there, or use a `with` block."
    if failure is not None:
        became = f"and could not be released: {failure}"
    logger.warning(
        "The lease on %r was not released by a process, %s",
        lease.semaphore,
        became,
        extra={"semaphore": lease.semaphore, "backend": lease.backend, "reason": failure or ""},
    )
    return f"The lease on {lease.semaphore!r} was not released by a process, {became}"
