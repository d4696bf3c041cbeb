"""Measure calls in turns, a few at a time, so that a busy moment of the machine hits all alike."""

from __future__ import annotations

import random
import time
from statistics import median
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from benchmarks.report.figures import Figure

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable

BATCH = 10
TURNS = 5
MICROSECONDS = "µs"

K = TypeVar("K")


class Kind(NamedTuple):
    """What is measured, as in Figure."""

    store: str
    library: str
    case: str


class Effort(NamedTuple):
    """How long is measured."""

    rounds: int = 10
    """Of short calls, after one to warm up."""
    seconds: float = 1.2
    """Of each turn of processes or tasks that contend."""
    turns: int = 4
    """Of processes or tasks that contend."""
    most: int = 1_000_000
    """The most rows; a hundredth of it is the most leases and semaphores."""


def repeat(call: Callable[[], object]) -> Callable[[], None]:
    """Return a batch of the call."""

    def batch() -> None:
        for _ in range(BATCH):
            call()

    return batch


def arepeat(
    call: Callable[[], Awaitable[object]], loop: asyncio.AbstractEventLoop
) -> Callable[[], None]:
    """Return a batch of the call, within one run of the loop."""

    async def batch() -> None:
        for _ in range(BATCH):
            await call()

    return lambda: loop.run_until_complete(batch())


def time_turns(batches: dict[K, Callable[[], None]], rounds: int) -> dict[K, list[float]]:
    """Return for each batch the seconds of a call in each round, the median of its turns.

    In any order: none always runs in the wake of the same other. The first round is to warm up.
    """
    found: dict[K, list[float]] = {kind: [] for kind in batches}
    for _ in range(rounds + 1):
        turns: dict[K, list[float]] = {kind: [] for kind in batches}
        for _ in range(TURNS):
            for kind in random.sample(list(batches), len(batches)):
                started = time.perf_counter()
                batches[kind]()
                turns[kind].append((time.perf_counter() - started) / BATCH)
        for kind, values in turns.items():
            found[kind].append(median(values))
    return {kind: values[1:] for kind, values in found.items()}


def figures(section: str, batches: dict[Kind, Callable[[], None]], rounds: int) -> list[Figure]:
    """Measure the batches, and return microseconds a call."""
    return [
        Figure(section, *kind, MICROSECONDS, [1_000_000 * seconds for seconds in values])
        for kind, values in time_turns(batches, rounds).items()
    ]
