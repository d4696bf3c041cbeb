"""Renew many leases at once, so that one that can't be renewed costs the others nothing."""

from collections.abc import Sequence

from django_distlock.records import Claim, Owner, Renewal, RenewalOutcome


class Outcome:
    """What a store answered of several batches of leases, some of which it may have refused."""

    def __init__(self) -> None:
        self._renewals: dict[str, Renewal] = {}
        self._failure: Exception | None = None
        self._was_answered = False

    def answered(self, renewals: dict[str, Renewal]) -> None:
        """Record what the store said of a batch."""
        self._was_answered = True
        self._renewals |= renewals

    def failed(self, leases: Sequence[Claim], error: Exception) -> None:
        """Record that these couldn't be renewed: as far as is known, they are held."""
        self._failure = self._failure or error
        unrenewed = Renewal(RenewalOutcome.HELD, None, str(error) or type(error).__name__)
        self._renewals |= {Owner(lease.owner): unrenewed for lease in leases}

    def result(self) -> dict[str, Renewal]:
        """Return what became of each lease; raise the first error if none was answered."""
        if self._failure is not None and not self._was_answered:
            raise self._failure
        return self._renewals
