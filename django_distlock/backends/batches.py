"""Collect the renewals of several batches, so that one failure costs no other lease anything."""

from collections.abc import Sequence

from django_distlock.records import Claim, Owner, Renewal, RenewalOutcome


class BatchedRenewals:
    """The renewals of several batches of leases, some of which the store may have refused."""

    def __init__(self) -> None:
        self._renewals: dict[str, Renewal] = {}
        self._failure: Exception | None = None
        self._any_answered = False

    def add(self, renewals: dict[str, Renewal]) -> None:
        """Record the store's answer for a batch."""
        self._any_answered = True
        self._renewals |= renewals

    def add_failed(self, leases: Sequence[Claim], error: Exception) -> None:
        """Record that these leases couldn't be renewed; as far as is known, they are still held."""
        self._failure = self._failure or error
        unrenewed = Renewal(RenewalOutcome.HELD, None, str(error) or type(error).__name__)
        self._renewals |= {Owner(lease.owner): unrenewed for lease in leases}

    def result(self) -> dict[str, Renewal]:
        """Return a renewal for each lease; raise the first error if the store answered for none."""
        if self._failure is not None and not self._any_answered:
            raise self._failure
        return self._renewals
