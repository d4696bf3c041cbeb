"""Which leases are due for a renewal, and what its outcome means for them."""

import logging
import math
from typing import TYPE_CHECKING, Final
from weakref import ref

from . import clocks
from .handler import lock_backends

if TYPE_CHECKING:
    from .leases import Lease

logger = logging.getLogger("django_distlock")

PERIOD: Final = 1 / 3
"""Of its ttl, after which a lease is renewed."""
RETRY: Final = 1 / 7
"""Of that period, after which a renewal that failed is tried again."""
SHORTEST: Final = 0.005
"""Seconds between two tries, whatever the ttl."""

TAKEN: Final = "its store has it no more: it expired there, or an operator took it away"


class Renewals:
    """The leases of a process in one store that are to be renewed.

    They are referred to weakly. Adding and removing one is safe at any time, in any thread: a dict
    does each in one step, and is copied in one.
    """

    def __init__(self, alias: str) -> None:
        self._alias = alias
        self._leases: dict[str, ref[Lease]] = {}

    def __len__(self) -> int:
        return len(self._leases)

    def add(self, lease: "Lease") -> None:
        """Let the lease be renewed from now on."""
        self._leases[lease.owner] = ref(lease)

    def remove(self, lease: "Lease") -> bool:
        """Let the lease be renewed no more; False if it isn't anyway.

        Who removes it has the last word on what became of it: a renewal that was under way finds
        a released lease gone, and that is no loss.
        """
        return self._leases.pop(lease.owner, None) is not None

    def next_due(self) -> float:
        """Return when a lease is to be renewed, or is over, by the local monotonic clock."""
        return min((lease.due for lease in self._all()), default=math.inf)

    def renew_due(self) -> None:
        """Renew what is due, and with it what is about to be; tell of what is lost.

        So leases that were acquired at different times come to be renewed together.
        """
        now = clocks.monotonic()
        leases = self._all()
        if not any(lease.due <= now for lease in leases):
            return
        over = [lease for lease in leases if lease.remaining <= 0]
        taken = self._renew([lease for lease in leases if lease.is_nearly_due(now)])
        # First all is renewed: a receiver of the signal may take its time.
        for lease in over + taken:
            if self.remove(lease):
                lease.lose()

    def _renew(self, leases: list["Lease"]) -> list["Lease"]:
        """Renew all, and return those that turn out to be lost."""
        if not leases:
            return []
        sent = clocks.monotonic()
        try:
            ends = lock_backends[self._alias].renew([lease.claim(sent) for lease in leases])
        except Exception as error:  # noqa: BLE001 - whatever a store raises: it is tried again
            self._retry(leases, str(error))
            return []
        kept = [lease for lease in leases if lease.owner in ends]
        locked = [lease for lease in kept if not lease.extend(ends[lease.owner], sent)]
        if locked:
            self._retry(locked, "transactions have their rows locked")
        return [lease for lease in leases if lease.owner not in ends]

    def _retry(self, leases: list["Lease"], reason: str) -> None:
        now = clocks.monotonic()
        for lease in leases:
            lease.retry(now)
        first, *others = leases
        logger.warning(
            "%s, of %s, and %d others could not be renewed; it will be tried again: %s",
            first,
            first.holder,
            len(others),
            reason,
        )

    def _all(self) -> list["Lease"]:
        """Return the leases that somebody still refers to."""
        found = []
        for owner, weakly in list(self._leases.items()):
            if lease := weakly():
                found.append(lease)
            else:
                self._leases.pop(owner, None)
        return found
