"""The attempts of one acquisition: what the store was asked, and what it answered."""

import logging
from dataclasses import dataclass, field
from typing import Any, Final

from django_distlock import clocks
from django_distlock.concurrency.store_calls import StoreCalls
from django_distlock.exceptions import LockBackendUnavailable, LockNotAcquired
from django_distlock.lease import Lease
from django_distlock.leases.outcomes import mark_unreleased
from django_distlock.leases.owned_lease import OwnedLease
from django_distlock.leases.registry import LeaseRegistry
from django_distlock.leases.request import Request
from django_distlock.logs import room_logger
from django_distlock.records import REFUSED, Refusal
from django_distlock.signals import lock_acquired

from .contention import describe_contention

logger = room_logger("locks")

LONG_WAIT: Final = 1.0
"""Seconds of waiting that are logged as INFO."""


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
    _granted: OwnedLease | None = field(default=None, init=False)

    @property
    def must_try(self) -> bool:
        """Whether the store has not been asked yet: each acquisition asks it once at least."""
        return not self._tried

    async def attempt(self, calls: StoreCalls) -> OwnedLease | None:
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
                f"{self.ttl:g} seconds. The store is slow, or the ttl is too short."
            )
        self._granted = OwnedLease(self, grant, sent, self._registry)
        return self._granted

    def _register(self, lease: OwnedLease) -> None:
        self._registry.add(lease)
        lease.start_renewal()
        level = logging.DEBUG if lease.waited < LONG_WAIT else logging.INFO
        if logger.isEnabledFor(level):
            logger.log(
                level,
                "%s was granted after %.3f s, with token %s.",
                str(lease),  # a handler may keep the line, and so the lease, which is renewed then
                lease.waited,
                lease.token,
                extra=lease.log_fields(waited=lease.waited),
            )
        if lock_acquired.is_heard:
            # A receiver may raise what ends the process.
            lock_acquired.send_robust(
                sender=Lease, lease=lease, waited=lease.waited, template=lease.template
            )

    def log_refusal(self) -> None:
        """Log that it was refused until its timeout."""
        waited = clocks.monotonic() - self.began
        level = logging.DEBUG if waited < LONG_WAIT else logging.INFO
        if logger.isEnabledFor(level):
            logger.log(
                level,
                "%r was refused after %.3f s. %s",
                self.semaphore,
                waited,
                self.explain_refusal(),
                extra=self.refusal_fields(),
            )

    def refusal_fields(self) -> dict[str, Any]:
        """Return what signals and log lines have about a refusal."""
        return {
            "semaphore": self.semaphore,
            "backend": self.backend,
            "waited": clocks.monotonic() - self.began,
            "holder": self.refusal.holder or None,
            "reason": self.refusal.reason,
            "refused": self.holder,
        }

    def failure_fields(self, error: LockBackendUnavailable) -> dict[str, Any]:
        """Return what the signal has about an acquisition that the store didn't answer."""
        return {
            "semaphore": self.semaphore,
            "backend": self.backend,
            "waited": clocks.monotonic() - self.began,
            "error": error,
            "template": self.template,
        }

    def explain_refusal(self) -> str:
        """Return a sentence that says why it was refused, as far as is known here."""
        own = self._registry.find(self.backend, self.semaphore)
        # After a forced release it is held as far as this process knows; somebody else may have it.
        told = self.refusal.holder.removesuffix("…")  # a store may have shortened it
        held_here = own is not None and own.held and own.holder.startswith(told)
        return describe_contention(
            self.semaphore,
            self.refusal,
            held_here=held_here,
            age=clocks.monotonic() - self.refused_at,
        )

    def contention(self) -> LockNotAcquired:
        """Return the error that says why it was refused."""
        return LockNotAcquired(
            self.explain_refusal(),
            semaphore=self.semaphore,
            backend=self.backend,
            holder=self.refusal.holder or None,
            held_since=self.refusal.acquired_at,
            expires_at=self.refusal.expires_at,
            seen_at=self.refusal.seen_at,
            reason=self.refusal.reason,
        )

    def mark_unreleased(self) -> OwnedLease | None:
        """Renew the granted lease no longer; return it."""
        granted, self._granted = self._granted, None
        if granted is not None:
            mark_unreleased(granted)
        return granted
