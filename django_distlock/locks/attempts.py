"""The attempts of one acquisition: what the store was asked, and what it answered."""

from dataclasses import dataclass, field
from typing import Any

from django_distlock import clocks
from django_distlock.concurrency.store_calls import StoreCalls
from django_distlock.exceptions import LockBackendUnavailable
from django_distlock.leases.lease import Lease
from django_distlock.leases.outcomes import mark_unreleased
from django_distlock.leases.registry import LeaseRegistry
from django_distlock.leases.request import Request
from django_distlock.records import REFUSED, Refusal
from django_distlock.signals import lock_acquired


@dataclass(slots=True, repr=False, eq=False)
class Attempts(Request):
    """A request, and what came of the attempts to have it granted."""

    _registry: LeaseRegistry
    refusal: Refusal = field(default=REFUSED, init=False)
    """The store's last answer, unless it granted the request."""
    refused_at: float = field(default=0.0, init=False)
    """When it gave that answer, by the local monotonic clock."""
    _tried: bool = field(default=False, init=False)
    _may_be_granted: bool = field(default=False, init=False)
    _granted: Lease | None = field(default=None, init=False)

    @property
    def must_try(self) -> bool:
        """Whether the store has not been asked yet: each acquisition asks it once at least."""
        return not self._tried

    async def _attempt(self, calls: StoreCalls) -> Lease | None:
        """Try once; if the reply is lost, once more as the same owner, to find our own grant."""
        self._tried = self._may_be_granted = True
        sent = clocks.monotonic()
        try:
            grant = await calls.acquire(self.semaphore, self.owner, self.ttl, self.holder)
        except LockBackendUnavailable as error:
            if not error.reply_lost:
                self._may_be_granted = False
                raise
            sent = clocks.monotonic()
            grant = await calls.acquire(self.semaphore, self.owner, self.ttl, self.holder)
        if not grant:
            self._may_be_granted = False
            self.refusal, self.refused_at = grant, clocks.monotonic()
            return None
        if self.ttl is not None and clocks.monotonic() - sent >= self.ttl:
            raise LockBackendUnavailable(
                f"DISTLOCK[{self.backend!r}] granted {self.semaphore!r} too late: after its ttl, "
                f"{self.ttl:g} seconds."
            )
        self._granted = Lease(self, grant, sent, self._registry)
        return self._granted

    def _register(self, lease: Lease) -> None:
        self._registry.add(lease)
        lease.start_renewal()
        if lock_acquired.is_heard:
            # A receiver may raise what ends the process.
            lock_acquired.send_robust(sender=Lease, lease=lease, waited=lease.waited)

    def describe_refusal(self) -> dict[str, Any]:
        """Return the arguments of `lock_contended`."""
        return {
            "semaphore": self.semaphore,
            "backend": self.backend,
            "waited": clocks.monotonic() - self.began,
            "holder": self.refusal.holder or None,
            "reason": self.refusal.reason,
            "refused": self.holder,
        }

    def mark_unreleased(self) -> Lease | None:
        """Renew the granted lease no longer; return it."""
        granted, self._granted = self._granted, None
        if granted is not None:
            mark_unreleased(granted)
        return granted
