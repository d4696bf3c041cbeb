"""Which leases are due for a renewal, and what its outcome means for them."""

import logging
import math
from collections import defaultdict
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary, ref

from django_distlock import clocks
from django_distlock.conf import lock_backends
from django_distlock.records import Renewal, RenewalOutcome

if TYPE_CHECKING:
    from django_distlock.leases.lease import Lease

logger = logging.getLogger("django_distlock")

PERIOD: Final = 1 / 3
"""Of its ttl, after which a lease is renewed."""
RETRY: Final = 1 / 7
"""Of that period, after which a renewal that failed is tried again."""
SHORTEST: Final = 0.005
LONGEST: Final = 5.0
"""Seconds between two tries, at least and at most, whatever the ttl."""

REPEATED: Final = 60.0
"""Seconds until a warning that a lease could not be renewed for some reason is repeated."""
REASONS: Final = 5
"""How many such reasons are told in that time, at most: some are never worded the same twice."""

CONFIRMED: Final = 0.1
"""Seconds for which, at most, the store's word that a lease is ours is good enough for a commit."""

UNTOLD: Final = "its store didn't say why"
UNANSWERED: Final = Renewal(RenewalOutcome.HELD, reason="its store's answer left it out")
TAKEN: Final = "its store has it no more: it expired there, or an operator took it away"


class Renewals:
    """The leases of a process in one store that are to be renewed.

    They are referred to weakly. Adding and removing one is safe at any time, in any thread: a set
    does each in one step, and is copied in one.
    """

    def __init__(self, alias: str) -> None:
        self._alias = alias
        self._leases: set[ref[Lease]] = set()
        self._told: WeakKeyDictionary[Lease, dict[str, float]] = WeakKeyDictionary()
        """When it was told last that a lease could not be renewed, and why."""

    def __len__(self) -> int:
        return len(self._leases)

    def __contains__(self, lease: "Lease") -> bool:
        return ref(lease) in self._leases

    def add(self, lease: "Lease") -> None:
        """Let the lease be renewed from now on."""
        self._leases.add(ref(lease))

    def remove(self, lease: "Lease") -> None:
        """Let the lease be renewed no more."""
        self._leases.discard(ref(lease))

    def next_due(self) -> float:
        """Return when a lease is to be renewed, or is over, by the local monotonic clock."""
        return min((lease.due for lease in self._referenced()), default=math.inf)

    def hasten(self) -> None:
        """Let all be due now, since their store may have lost them."""
        now = clocks.monotonic()
        for lease in self._referenced():
            lease.due = min(lease.due, now)

    def next_end(self, within: float) -> float:
        """Return in how many seconds the first lease ends, at most that many."""
        return min([within, *(lease.remaining for lease in self._referenced())])

    def mark_expired(self) -> None:
        """Tell of those whose time is over."""
        for lease in self._referenced():
            if not lease.remaining:
                lease.mark_lost()
                self.remove(lease)

    def renew_due(self) -> None:
        """Renew what is due, and with it what is about to be; tell of what is lost.

        So leases that were acquired at different times come to be renewed together.
        """
        now = clocks.monotonic()
        leases = self._referenced()
        overdue = [lease for lease in leases if lease.due <= now]
        if not overdue:
            return
        for lease in overdue:
            lease.retry(now)  # whatever comes in between
        over = [lease for lease in leases if not lease.remaining]
        due = [
            lease
            for lease in leases
            if lease.is_nearly_due(now) and not lease.would_disturb_transaction()
        ]
        taken = self._renew(due) if due else []
        # First all is renewed: a receiver of the signal may take its time.
        for lease in over + taken:
            lease.mark_lost()
            self.remove(lease)

    def _renew(self, leases: list["Lease"]) -> list["Lease"]:
        """Renew all, and return those that the store has no more."""
        sent = clocks.monotonic()
        try:
            renewals = lock_backends[self._alias].renew([lease.claim(sent) for lease in leases])
        except Exception as error:  # noqa: BLE001 - whatever a store raises: it is tried again
            self._warn(leases, str(error) or type(error).__name__)
            return []
        taken: list[Lease] = []
        unrenewed: defaultdict[str, list[Lease]] = defaultdict(list)
        for lease in leases:
            renewal = renewals.get(lease.owner, UNANSWERED)
            if renewal.lost:
                taken.append(lease)
            elif renewal.renewed:
                lease.extend(renewal, sent)
            elif lease in self:  # and not released meanwhile
                unrenewed[renewal.reason or UNTOLD].append(lease)
        for reason, those in unrenewed.items():
            self._warn(those, reason)
        return taken

    def _warn(self, leases: list["Lease"], reason: str) -> None:
        """Tell of those leases of which that wasn't told a moment ago."""
        now = clocks.monotonic()
        if news := [lease for lease in leases if self._is_news(lease, reason, now)]:
            first, *others = news
            logger.warning(
                "%s, of %s, and %d others could not be renewed; it will be tried again: %s",
                first,
                first.holder,
                len(others),
                reason,
            )

    def _is_news(self, lease: "Lease", reason: str, now: float) -> bool:
        told = self._told.setdefault(lease, {})
        for earlier, at in list(told.items()):
            if now - at >= REPEATED:
                del told[earlier]
        if reason in told or len(told) >= REASONS:
            return False
        told[reason] = now
        return True

    def _referenced(self) -> list["Lease"]:
        """Return the leases that somebody else refers to; let go of the others."""
        found = []
        for weakly in list(self._leases):
            if lease := weakly():
                found.append(lease)
            else:
                self._leases.discard(weakly)
        return found
