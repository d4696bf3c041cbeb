"""Which leases are due for a renewal, and what its result means for them."""

import math
from collections import defaultdict
from typing import Any, Final, Protocol
from weakref import WeakKeyDictionary, ref

from django_distlock import clocks
from django_distlock.conf import lock_backends
from django_distlock.logs import room_logger
from django_distlock.records import Claim, Owner, Renewal, RenewalOutcome

logger = room_logger("renewal")

REPEATED: Final = 60.0
"""Seconds until a warning that a lease could not be renewed for some reason is repeated."""
REASONS: Final = 5
"""How many such reasons are logged in that time, at most: some never have the same text twice."""

NO_REASON: Final = "its store didn't say why"
UNANSWERED: Final = Renewal(RenewalOutcome.HELD, reason="its store's answer left it out")


class Renewable(Protocol):
    """A lease, as far as its renewal goes."""

    due: float
    """When it is due for renewal, or has ended, by the local monotonic clock."""

    @property
    def owner(self) -> Owner: ...
    @property
    def holder(self) -> str: ...
    @property
    def pid(self) -> int: ...
    @property
    def remaining(self) -> float: ...

    def is_nearly_due(self, now: float) -> bool: ...
    def would_disturb_transaction(self) -> bool: ...
    def claim(self, now: float) -> Claim: ...
    def extend(self, renewal: Renewal, sent: float) -> None: ...
    def retry(self, now: float) -> None: ...
    def mark_lost(self) -> None: ...
    def log_fields(self, **more: object) -> dict[str, object]: ...


class Renewals:
    """The leases of this process in one store that need renewal.

    They are referred to weakly. Adding and removing one is safe at any time and in any thread: a
    dict does each in one step, and is copied in one.
    """

    def __init__(self, alias: str) -> None:
        self._alias = alias
        self._leases: dict[ref[Any], None] = {}
        """In the order of their acquisition."""
        self._warned: WeakKeyDictionary[Renewable, dict[str, float]] = WeakKeyDictionary()
        """The time of the last warning about a lease, by the reason why it was not renewed."""

    def __len__(self) -> int:
        return len(self._leases)

    def __contains__(self, lease: Renewable) -> bool:
        return ref(lease) in self._leases

    def add(self, lease: Renewable) -> None:
        """Renew the lease from now on."""
        self._leases[ref(lease)] = None

    def remove(self, lease: object) -> None:
        """Stop renewing the lease."""
        self._leases.pop(ref(lease), None)

    def next_due(self) -> float:
        """Return when the first lease is due, by the local monotonic clock."""
        return min((lease.due for lease in self._referenced()), default=math.inf)

    def hasten(self) -> None:
        """Make all leases due now, since their store may have lost them."""
        now = clocks.monotonic()
        for lease in self._referenced():
            lease.due = min(lease.due, now)

    def next_end(self, within: float) -> float:
        """Return in how many seconds the first lease ends, or `within` if that is less."""
        return min([within, *(lease.remaining for lease in self._referenced())])

    def mark_expired(self) -> None:
        """Mark expired leases as lost."""
        for lease in self._referenced():
            if not lease.remaining:
                lease.mark_lost()
                self.remove(lease)

    def renew_due(self) -> None:
        """Renew the leases that are due or nearly due; mark as lost what has expired or is taken.

        So leases that were acquired at different times are soon renewed together.
        """
        now = clocks.monotonic()
        leases = self._referenced()
        overdue = [lease for lease in leases if lease.due <= now]
        if not overdue:
            return
        for lease in overdue:
            lease.retry(now)  # first: it holds for every outcome but a renewal
        expired = [lease for lease in leases if not lease.remaining]
        due = [
            lease
            for lease in leases
            if lease.is_nearly_due(now) and not lease.would_disturb_transaction()
        ]
        taken = self._renew(due) if due else []
        # After all renewals: a receiver of the signal may take its time.
        for lease in expired + taken:
            lease.mark_lost()
            self.remove(lease)

    def _renew(self, leases: list[Renewable]) -> list[Renewable]:
        """Renew all; return those that the store has no more."""
        sent = clocks.monotonic()
        try:
            renewals = self._ask(leases, sent)
        except Exception as error:  # noqa: BLE001 - whatever it is, there is a retry
            self._warn(leases, str(error) or type(error).__name__)
            return []
        taken: list[Renewable] = []
        unrenewed: defaultdict[str, list[Renewable]] = defaultdict(list)
        for lease, renewal in zip(leases, renewals, strict=True):
            if renewal.lost:
                taken.append(lease)
            elif renewal.renewed:
                lease.extend(renewal, sent)
            elif lease in self:  # else it was released meanwhile
                unrenewed[renewal.reason or NO_REASON].append(lease)
        for reason, group in unrenewed.items():
            self._warn(group, reason)
        return taken

    def _ask(self, leases: list[Renewable], sent: float) -> list[Renewal]:
        """Return the store's answer for each lease: not by the owners, which no frame may show."""
        renewals = lock_backends[self._alias].renew([lease.claim(sent) for lease in leases])
        return [renewals.get(lease.owner, UNANSWERED) for lease in leases]

    def _warn(self, leases: list[Renewable], reason: str) -> None:
        """Log those leases for which this reason was not logged lately."""
        now = clocks.monotonic()
        if news := [lease for lease in leases if self._is_news(lease, reason, now)]:
            first, *others = news
            logger.warning(
                "%s, of %s,%s could not be renewed; it will be tried again: %s",
                str(first),  # a handler may keep the line, but must not keep the lease
                first.holder,
                f" and {len(others)} more" if others else "",
                reason,
                extra=first.log_fields(reason=reason, leases=len(news)),
            )

    def _is_news(self, lease: Renewable, reason: str, now: float) -> bool:
        warned = self._warned.setdefault(lease, {})
        for earlier, at in list(warned.items()):
            if now - at >= REPEATED:
                del warned[earlier]
        if reason in warned or len(warned) >= REASONS:
            return False
        warned[reason] = now
        return True

    def _referenced(self) -> list[Renewable]:
        """Return the leases that still exist; remove the references to the others."""
        found = []
        for lease_ref in list(self._leases):
            if lease := lease_ref():
                found.append(lease)
            else:
                self._leases.pop(lease_ref, None)
        return found
