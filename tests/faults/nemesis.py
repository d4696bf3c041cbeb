"""The faults of a run: drawn from its seed before the start, then begun and ended in time."""

from __future__ import annotations

import math
import time
from collections import deque
from contextlib import ExitStack, closing
from operator import attrgetter
from random import Random
from typing import TYPE_CHECKING, NamedTuple

from tests.faults.history import now

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tests.faults.environment import Fault

LONGEST = 3.0
"""Seconds that a fault lasts at most."""
CALM = (0.1, 0.8)
"""Between which seconds there is no fault, as a share of LONGEST."""


class Step(NamedTuple):
    """A fault to come."""

    at: float
    """Seconds after the start of the run."""
    fault: str
    target: int
    """The seed by which the fault chooses what it strikes."""
    duration: float


class Performed(NamedTuple):
    """A fault that has been, by CLOCK_MONOTONIC."""

    fault: str
    began: float
    ended: float


def draw_plan(
    seed: int, lane: str, faults: Iterable[str], seconds: float, calm: float = 1
) -> list[Step]:
    """Return steps one after the other that fill a run of so many seconds.

    Each fault has its turn before one comes again, as far as the time is enough. `calm` lengthens
    the time without faults.
    """
    random = Random(f"{seed} {lane}")
    names = sorted(faults)
    longest = min(LONGEST, seconds / (1.3 * len(names) + 1))
    plan: list[Step] = []
    left: list[str] = []
    at = random.uniform(*CALM) * longest * calm
    while names:
        if not left:
            left = random.sample(names, len(names))
        duration = random.uniform(0.3, 1) * longest
        if at + duration > seconds:
            break
        plan.append(Step(at, left.pop(), random.randrange(2**32), duration))
        at += duration + random.uniform(*CALM) * longest * calm
    return plan


class Lane:
    """A plan under way: at most one of its faults at a time, however long it takes to begin one."""

    def __init__(self, plan: list[Step], faults: Mapping[str, Fault], began: float) -> None:
        self._faults = faults
        self._began = began
        self._left = deque(plan)
        self._over = plan[-1].at + plan[-1].duration if plan else 0.0
        self._late = 0.0
        """Seconds by which all steps come later than planned."""
        self._running: Step | None = None
        self._since = self._until = 0.0
        self._fault = ExitStack()

    @property
    def next_at(self) -> float:
        """Return when to proceed; infinity if the plan, or its time, is over."""
        if self._running is not None:
            return self._until
        if not self._left or self._left[0].at + self._late > self._over:
            return math.inf
        return self._began + self._left[0].at + self._late

    def proceed(self) -> Performed | None:
        """Begin the next fault, or end the one that runs, and return it."""
        if self._running is None:
            self._running, self._since = self._left.popleft(), now()
            step = self._running
            self._fault.enter_context(self._faults[step.fault](Random(step.target)))
            self._until = now() + step.duration
            return None
        step, self._running = self._running, None
        self._fault.close()
        self._late = max(self._late, now() - self._began - step.at - step.duration)
        return Performed(step.fault, self._since, now())

    def close(self) -> None:
        """End the fault that runs."""
        self._fault.close()


def carry_out(
    plans: Iterable[list[Step]], faults: Mapping[str, Fault], began: float
) -> list[Performed]:
    """Begin and end the faults of all plans in time, in this thread; return when they were.

    A server that is started again ends with the thread that started it.
    """
    performed: list[Performed] = []
    with ExitStack() as all_faults:
        lanes = [all_faults.enter_context(closing(Lane(plan, faults, began))) for plan in plans]
        while (lane := min(lanes, key=attrgetter("next_at"))).next_at < math.inf:
            time.sleep(max(0, lane.next_at - now()))
            if (done := lane.proceed()) is not None:
                performed.append(done)
    return performed
