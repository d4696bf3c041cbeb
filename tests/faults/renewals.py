"""Record the renewals of a worker where they reach the store: most are the package's own."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from django_distlock import lock_backends
from django_distlock.records import LOST, Renewal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from django_distlock.records import Claim
    from tests.faults.history import HistoryFile, Operation, Outcome


def record_renewals(backend: str, history: HistoryFile) -> None:
    """Record each renewal of this store in this process, from any thread."""
    recorder = Recorder(history)
    kind: Any = type(lock_backends[backend])
    renew = kind.renew

    def recorded(store: Any, leases: Sequence[Claim]) -> dict[str, Renewal]:
        begun = recorder.begin(leases)
        try:
            renewals: dict[str, Renewal] = renew(store, leases)
        except BaseException:
            recorder.end(begun, None)
            raise
        recorder.end(begun, renewals)
        return renewals

    kind.renew = recorded
    arenew = getattr(kind, "arenew", None)
    if arenew is None:
        return

    async def arecorded(
        store: Any, leases: Sequence[Claim], *, deadline: float
    ) -> dict[str, Renewal]:
        begun = recorder.begin(leases)
        try:
            renewals: dict[str, Renewal] = await arenew(store, leases, deadline=deadline)
        except BaseException:
            recorder.end(begun, None)
            raise
        recorder.end(begun, renewals)
        return renewals

    kind.arenew = arecorded


class Recorder:
    """Writes one operation for each lease of a renewal."""

    def __init__(self, history: HistoryFile) -> None:
        self._history = history
        self._counting = threading.Lock()

    def begin(self, leases: Sequence[Claim]) -> list[Operation]:
        with self._counting:
            return [
                self._history.begin(
                    "renew", lease.semaphore, owner=lease.owner, token=lease.token, ttl=lease.ttl
                )
                for lease in leases
            ]

    def end(self, begun: list[Operation], renewals: dict[str, Renewal] | None) -> None:
        for operation in begun:
            assert operation.owner is not None
            outcome: Outcome = "unknown"
            if renewals is not None:
                renewal = renewals.get(operation.owner, LOST)
                outcome = "ok" if renewal.renewed else "lost" if renewal.lost else "refused"
            self._history.end(operation, outcome)
