"""Judge a history: does it keep the package's promises?

A pure function of what the workers wrote. It tells nothing of what it can't know: an operation
without a reply may have happened or not, and what is judged holds either way.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from tests.faults.history import NEVER
from tests.faults.holds import Bounds, Hold, holds_of, union

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from tests.faults.history import Operation


class Fault(StrEnum):
    """What a history can show."""

    OVERLAP = "two holders at once"
    TOKEN_ORDER = "a token that does not rise"
    OWN_RELEASE = "a release or renewal by an owner whose lease had ended"
    AFTER_EXPIRY = "a release or renewal that succeeded after the ttl"
    REFUSED_EARLY = "refused before the timeout"
    REFUSED_FREE = "refused though nobody held the lock"
    NOT_SERVED = "a waiter that did not get a free lock"
    LOST_EARLY = "a lease lost before its ttl"
    LOST_UPDATE = "a lost increment"


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise that was not kept, when, and the operations that show it."""

    fault: Fault
    semaphore: str
    at: float
    shown_by: tuple[Operation, ...] = ()

    def __str__(self) -> str:
        lines = [f"{self.fault} at {self.at:.6f}: {self.semaphore!r}", *map(str, self.shown_by)]
        return "\n    ".join(lines)


@dataclass(frozen=True, slots=True)
class Waiver:
    """Faults of the history that a fault of the machine excuses, from `start` to `end`."""

    faults: frozenset[Fault]
    start: float
    end: float
    reason: str

    def __post_init__(self) -> None:
        if Fault.OWN_RELEASE in self.faults:
            raise ValueError("Nothing excuses the release of somebody else's lease.")

    def excuses(self, violation: Violation) -> bool:
        """Return whether a violation is of these faults, in this time."""
        return violation.fault in self.faults and self.start <= violation.at <= self.end


def judge(
    history: Iterable[Operation],
    *,
    counters: Mapping[str, int] | None = None,
    bounds: Bounds | None = None,
    waivers: Sequence[Waiver] = (),
) -> list[Violation]:
    """Return what a history shows, but for what is waived.

    `counters` has the last value of each semaphore's register, which its increments added up.
    """
    bounds = bounds or Bounds()
    operations: dict[str, list[Operation]] = defaultdict(list)
    exits: dict[str, float] = {}
    for operation in sorted(history, key=lambda operation: operation.invoked):
        if operation.operation == "exit":
            exits[operation.worker] = operation.invoked
        else:
            operations[operation.semaphore].append(operation)
    found: list[Violation] = []
    for semaphore, its in operations.items():
        holds = holds_of(its)
        granted = [hold for hold in holds if hold.acquired.outcome == "ok"]
        found += overlaps(granted)
        found += falling_tokens(granted)
        found += impostors(granted, bounds)
        found += early_losses(granted, bounds)
        held = union(hold.possible(bounds, exits) for hold in holds)
        found += refusals(its, held, bounds)
        found += lost_updates(semaphore, its, (counters or {}).get(semaphore))
    return [one for one in found if not any(waiver.excuses(one) for waiver in waivers)]


def overlaps(granted: Sequence[Hold]) -> Iterator[Violation]:
    """No two claims overlap."""
    last: tuple[float, Hold] | None = None
    for (start, end), hold in sorted(
        ((hold.claim(), hold) for hold in granted), key=lambda pair: pair[0]
    ):
        if end <= start:
            continue
        if last and start < last[0]:
            yield violation(Fault.OVERLAP, start, last[1].acquired, hold.acquired)
        if not last or end > last[0]:
            last = end, hold


def falling_tokens(granted: Sequence[Hold]) -> Iterator[Violation]:
    """Of two grants, one after the other, the later has the greater token; none is given twice."""
    grants = [hold.acquired for hold in granted if hold.acquired.token is not None]
    returned = sorted(grants, key=lambda grant: grant.returned)
    highest: Operation | None = None
    position = 0
    seen: dict[int, Operation] = {}
    for grant in grants:
        assert grant.token is not None
        while position < len(returned) and returned[position].returned < grant.invoked:
            earlier = returned[position]
            if highest is None or (earlier.token or 0) > (highest.token or 0):
                highest = earlier
            position += 1
        twin = seen.setdefault(grant.token, grant)
        if twin is not grant:
            yield violation(Fault.TOKEN_ORDER, grant.returned, twin, grant)
        elif highest is not None and (highest.token or 0) >= grant.token:
            yield violation(Fault.TOKEN_ORDER, grant.returned, highest, grant)


def impostors(granted: Sequence[Hold], bounds: Bounds) -> Iterator[Violation]:
    """No release or renewal succeeds for an owner whose lease has ended.

    It has ended when another owner was granted the lock later, when it was released, and when its
    ttl has passed.
    """
    # For each time, the latest invocation of a grant that had returned by then.
    grants = sorted(granted, key=lambda hold: hold.acquired.returned)
    returns = [hold.acquired.returned for hold in grants]
    latest: list[Hold] = []
    for hold in grants:
        later = not latest or hold.acquired.invoked > latest[-1].acquired.invoked
        latest.append(hold if later else latest[-1])
    for hold in granted:
        released: Operation | None = None
        for step in hold.steps:
            if step.operation == "check" or step.outcome != "ok":
                continue
            if released and released.returned < step.invoked:
                yield violation(Fault.OWN_RELEASE, step.returned, hold.acquired, released, step)
            if step.operation == "release":
                released = step
            position = bisect_left(returns, step.invoked) - 1
            if position >= 0 and latest[position].acquired.invoked > hold.acquired.returned:
                successor = latest[position].acquired
                yield violation(Fault.OWN_RELEASE, step.returned, hold.acquired, successor, step)
            expiry = hold.sure_expiry(before=step.invoked)
            if not hold.acquired.background and step.invoked > expiry + bounds.tolerance:
                yield violation(Fault.AFTER_EXPIRY, step.returned, hold.acquired, step)


def early_losses(granted: Sequence[Hold], bounds: Bounds) -> Iterator[Violation]:
    """No lease is lost before its ttl has passed, unless it is released.

    A renewal whose reply comes after that is too late for its holder; one in the background may
    find that the holder has just released it.
    """
    for hold in granted:
        surely = hold.acquired.invoked + hold.ttl
        releases = (step.invoked for step in hold.steps if step.operation == "release")
        released = min(releases, default=NEVER)
        for step in hold.steps:
            if step.outcome == "lost" and step.operation != "release" and step.returned > released:
                continue
            if step.outcome == "lost":
                if step.returned < surely - bounds.tolerance:
                    yield violation(Fault.LOST_EARLY, step.returned, hold.acquired, step)
                break
            if step.operation == "release":
                break
            known = step.operation == "renew" and not step.background
            if step.outcome == "ok" and known and step.returned < surely:
                surely = max(surely, step.invoked + hold.ttl)


def refusals(
    operations: Sequence[Operation], held: Sequence[tuple[float, float]], bounds: Bounds
) -> Iterator[Violation]:
    """Nobody is refused before the timeout, nor a lock that is free; and no waiter left waiting.

    A lock that nobody can have held for `bounds.service` before an attempt is free. A waiter gets a
    free lock within twice that time.
    """
    starts = [start for start, _ in held]
    ends = [end for _, end in held]
    for operation in operations:
        if operation.operation != "acquire" or operation.outcome not in ("ok", "refused"):
            continue
        waited = operation.returned - operation.invoked
        if operation.outcome == "refused":
            timeout = float("inf") if operation.timeout is None else operation.timeout
            if waited < timeout - bounds.tolerance:
                yield violation(Fault.REFUSED_EARLY, operation.returned, operation)
            first = bisect_right(ends, operation.invoked - bounds.service)
            if first == len(held) or starts[first] > operation.returned:
                yield violation(Fault.REFUSED_FREE, operation.returned, operation)
                continue
        if waited > bounds.service and any(
            end - start > bounds.service for start, end in gaps(operation, starts, ends)
        ):
            yield violation(Fault.NOT_SERVED, operation.returned, operation)


def gaps(
    operation: Operation, starts: Sequence[float], ends: Sequence[float]
) -> Iterator[tuple[float, float]]:
    """Return the times during an operation in which nobody can have held the lock."""
    free_from = operation.invoked
    for index in range(bisect_right(ends, operation.invoked), len(starts)):
        if starts[index] >= operation.returned:
            break
        yield free_from, starts[index]
        free_from = ends[index]
    yield free_from, operation.returned


def lost_updates(
    semaphore: str, operations: Sequence[Operation], final: int | None
) -> Iterator[Violation]:
    """A register has all increments that were acknowledged, and no two wrote one value."""
    increments = [one for one in operations if one.operation == "increment"]
    acknowledged = [one for one in increments if one.outcome == "ok"]
    written = Counter(one.value for one in acknowledged if one.value is not None)
    for value, times in written.items():
        if times > 1:
            twins = [one for one in acknowledged if one.value == value]
            yield violation(Fault.LOST_UPDATE, twins[-1].returned, *twins)
    if final is None:
        return
    unknown = sum(one.outcome == "unknown" for one in increments)
    if not len(acknowledged) <= final <= len(acknowledged) + unknown:
        end = max((one.returned for one in acknowledged), default=0.0)
        yield Violation(Fault.LOST_UPDATE, semaphore, end, tuple(acknowledged[-1:]))


def violation(fault: Fault, at: float, *shown_by: Operation) -> Violation:
    """Return a violation on these operations' semaphore."""
    return Violation(fault, shown_by[0].semaphore, at, shown_by)
