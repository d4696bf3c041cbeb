"""Record what a worker's store answers: most renewals, and some releases, are the package's own."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from django_distlock import lock_backends
from django_distlock.backends.base import AsyncStore
from django_distlock.records import LOST, Released, Renewal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from django_distlock.records import Claim
    from tests.faults.history import HistoryFile, Operation, Outcome


def record_renewals(backend: str, history: HistoryFile) -> set[str]:
    """Record each renewal of this store in this process, from any thread.

    Return the owners whose release the store has confirmed, kept up to date. Where its reply was
    lost, the package takes a release as made: what became of it is unknown then.
    """
    recorder = Recorder(history)
    released: set[str] = set()
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
    release = kind.release

    def recorded_release(store: Any, lease: Claim, keep: float = 0) -> Released:
        answer: Released = release(store, lease, keep)
        if answer:
            released.add(lease.owner)
        return answer

    kind.release = recorded_release
    if hasattr(kind, "guard_by_renewal"):
        record_guards(kind, recorder)
    if issubclass(kind, AsyncStore):
        record_async(kind, recorder, released)
    return released


def record_guards(kind: Any, recorder: Recorder) -> None:
    """Mark renewals that guard a commit: the lease's own end does not take them into account."""
    guard = kind.guard_by_renewal

    def recorded_guard(store: Any, lease: Claim) -> bool:
        recorder.guards.is_running = True
        try:
            return bool(guard(store, lease))
        finally:
            recorder.guards.is_running = False

    kind.guard_by_renewal = recorded_guard


def record_async(kind: Any, recorder: Recorder, released: set[str]) -> None:
    """Do the same for a store that is awaited."""
    arenew, arelease = kind.arenew, kind.arelease

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

    async def arecorded_release(
        store: Any, lease: Claim, keep: float = 0, *, deadline: float
    ) -> Released:
        answer: Released = await arelease(store, lease, keep, deadline=deadline)
        if answer:
            released.add(lease.owner)
        return answer

    kind.arenew, kind.arelease = arecorded, arecorded_release


class Guards(threading.local):
    """Whether this thread guards a commit."""

    is_running = False


class Recorder:
    """Writes one operation for each lease of a renewal."""

    def __init__(self, history: HistoryFile) -> None:
        self._history = history
        self._counting = threading.Lock()
        self.guards = Guards()

    def begin(self, leases: Sequence[Claim]) -> list[Operation]:
        with self._counting:
            return [
                self._history.begin(
                    "renew",
                    lease.semaphore,
                    owner=lease.owner,
                    token=lease.token,
                    ttl=lease.ttl,
                    background=self.guards.is_running,
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
