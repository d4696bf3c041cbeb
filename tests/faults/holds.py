"""From the operations of one semaphore to when it was held: surely, and possibly."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.faults.history import NEVER, Operation

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How long things may take, in seconds.

    `service` is how long a free lock may go without being granted to a waiter: an offer to a dead
    process, a poll, a heartbeat. `reach` is how long after its invocation an operation without a
    reply may still take effect. `tolerance` is the resolution of the clocks.
    """

    service: float = 5
    reach: float = 60
    tolerance: float = 0.002


@dataclass(slots=True)
class Hold:
    """An acquisition that was granted, or may have been, and what its owner did then."""

    acquired: Operation
    steps: list[Operation] = field(default_factory=list)

    def claim(self) -> tuple[float, float]:
        """Return when the holder may rely on the lock.

        From the return of the grant to the start of the release, or to the end of its ttl, counted
        from the start of the last acquisition or renewal that succeeded; and not after it was told
        that the lease is lost.
        """
        end = self.acquired.invoked + self.ttl
        for step in self.steps:
            if step.operation == "release":
                return self.acquired.returned, min(end, step.invoked)
            if step.outcome == "lost":
                end = min(end, step.returned)
            elif step.outcome == "ok":
                end = max(end, step.invoked + (self.ttl if step.operation == "renew" else 0))
        return self.acquired.returned, end

    def possible(self, bounds: Bounds, exits: Mapping[str, float]) -> tuple[float, float]:
        """Return when the store may have held the lock for this owner.

        A grant that was waited for came `bounds.service` before its return, at most.
        """
        acquired = self.acquired
        end = self.last_expiry(bounds, exits)
        for step in self.steps:
            if step.operation == "release" and step.outcome == "ok":
                end = min(end, step.returned)
        if acquired.outcome == "ok":
            return max(acquired.invoked, acquired.returned - bounds.service), end
        return acquired.invoked, end

    def last_expiry(self, bounds: Bounds, exits: Mapping[str, float]) -> float:
        """Return when the lease ends at the latest, unless it is released."""
        if self.acquired.background:
            if any(step.operation == "release" for step in self.steps):
                # The release ends the renewals.
                [*_, last] = (step for step in self.steps if step.operation == "release")
                return latest_effect(last, bounds) + self.ttl
            return exits.get(self.acquired.worker, NEVER) + bounds.reach + self.ttl
        renewals = (step for step in self.steps if step.operation == "renew")
        extensions = [self.acquired, *(step for step in renewals if step.outcome != "lost")]
        return max(latest_effect(step, bounds) for step in extensions) + self.ttl

    def sure_expiry(self, before: float) -> float:
        """Return when the lease is over, for the operations that returned before a time."""
        renewals = (
            step
            for step in self.steps
            if step.operation == "renew" and step.outcome != "lost" and step.invoked < before
        )
        ends = (step.returned if step.outcome == "ok" else NEVER for step in renewals)
        return max([self.acquired.returned, *ends]) + self.ttl

    @property
    def ttl(self) -> float:
        """Seconds, without end for a lease that lasts until it is released."""
        return math.inf if self.acquired.ttl is None else self.acquired.ttl


def latest_effect(operation: Operation, bounds: Bounds) -> float:
    """Return when the operation had happened at the latest, if it happened."""
    if operation.outcome == "unknown":
        return operation.invoked + bounds.reach
    return operation.returned


def holds_of(operations: Sequence[Operation]) -> list[Hold]:
    """Return what was granted, or may have been, in the order of invocation."""
    steps: dict[str, list[Operation]] = defaultdict(list)
    for operation in operations:
        if operation.owner is not None and operation.operation in ("renew", "check", "release"):
            steps[operation.owner].append(operation)
    return [
        Hold(operation, steps[operation.owner] if operation.owner is not None else [])
        for operation in operations
        if operation.operation == "acquire" and operation.outcome in ("ok", "unknown")
    ]


def union(intervals: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the stretches of time that the intervals cover, in order."""
    stretches: list[tuple[float, float]] = []
    for start, end in sorted(intervals):
        if stretches and start <= stretches[-1][1]:
            stretches[-1] = (stretches[-1][0], max(stretches[-1][1], end))
        elif start < end:
            stretches.append((start, end))
    return stretches
