"""The faults of a run: drawn from its seed before the start, then begun and ended in time."""

from __future__ import annotations

import time
from contextlib import ExitStack
from heapq import heappop, heappush
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


def carry_out(
    plans: Iterable[list[Step]], faults: Mapping[str, Fault], began: float
) -> list[Performed]:
    """Begin and end the faults of all plans in time, in this thread; return when they were.

    A server that is started again ends with the thread that started it.
    """
    waiting = sorted(step for plan in plans for step in plan)
    running: list[tuple[float, int, Step, float, ExitStack]] = []
    performed: list[Performed] = []
    with ExitStack() as all_faults:
        while waiting or running:
            if running and (not waiting or running[0][0] <= began + waiting[0].at):
                ends, _, step, since, fault = heappop(running)
                time.sleep(max(0, ends - now()))
                fault.close()
                performed.append(Performed(step.fault, since, now()))
                continue
            step = waiting.pop(0)
            time.sleep(max(0, began + step.at - now()))
            since, fault = now(), all_faults.enter_context(ExitStack())
            fault.enter_context(faults[step.fault](Random(step.target)))
            heappush(running, (now() + step.duration, len(waiting), step, since, fault))
    return performed
