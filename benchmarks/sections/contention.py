"""Processes that all want one lock: how often it is granted, and how long they wait."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

from django.db import connections

from benchmarks.contenders import CONTENDERS, OURS, PEERS, take
from benchmarks.crews import Crew
from benchmarks.every_store import DJANGO_REDIS, MEMORY
from benchmarks.report.figures import Figure
from benchmarks.waiting import acquirer
from benchmarks.waiting import measure as measure_waiting

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.crews import Shared

    from .turns import Effort

CONTENTION, HAND_OVER, SEMAPHORES = "contention", "hand-over", "semaphores"
SIZES = (2, 8, 32)
MILLISECONDS, RATE = "ms", "pairs a second"
SAMPLES = 3
"""Hand-overs of each contender in a round."""
SETTLING = 0.1
"""Seconds until a waiter surely waits; up to twice as many pass, so that polls are hit anywhere."""


def contenders(stores: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Return the store and library of each contender that processes can share.

    With another cache in front of Redis, locks are handed over as without.
    """
    found = {}
    for store in stores:
        if store not in {MEMORY, DJANGO_REDIS}:
            found[store] = store, OURS
            found |= {name: (store, name) for name, its in PEERS.items() if its == store}
    return found


def measure(stores: Sequence[str], effort: Effort) -> list[Figure]:
    """Let more and more processes contend; the lock is held for a millisecond."""
    found = []
    names = contenders(stores)
    for size in SIZES:
        with Crew(size) as crew:
            rounds, overlaps = measure_waiting(crew, list(names), effort.turns, effort.seconds)
        if any(overlaps.values()):
            raise SystemExit(f"two were inside at once: {overlaps}")
        for name, measured in rounds.items():
            for unit in measured[0]:
                values = [each[unit] for each in measured]
                found.append(Figure(CONTENTION, *names[name], f"{size} processes", unit, values))
    return found


def measure_hand_over(stores: Sequence[str], effort: Effort) -> list[Figure]:
    """Measure the time from the call that releases a lock to the grant of its waiter."""
    names = contenders(stores)
    values: dict[str, list[float]] = {name: [] for name in names}
    acquires = {name: CONTENDERS[name]() for name in names}
    with Crew(1) as crew:
        for number in range(effort.turns * SAMPLES + 1):
            for name in random.sample(list(names), len(names)):
                release = take(acquires[name], "hand-over")
                crew.begin(wait, name)
                crew.await_begun(1)
                time.sleep(random.uniform(SETTLING, 2 * SETTLING))
                released = time.monotonic()  # the same clock in all processes
                release()
                (granted,) = crew.results(0)
                if number:
                    values[name].append(1000 * (granted - released))
    return [
        Figure(HAND_OVER, *names[name], "1 waiter", MILLISECONDS, taken)
        for name, taken in values.items()
    ]


def wait(shared: Shared, name: str) -> float:
    """Wait for the lock; return when it was granted."""
    acquire = acquirer(name)
    shared.begun.release()
    release = take(acquire, "hand-over")
    granted = time.monotonic()
    release()
    return granted


def measure_semaphores(stores: Sequence[str], effort: Effort) -> list[Figure]:
    """Let eight processes acquire and release one of ever more locks, chosen at random."""
    shared = [store for store in stores if store not in {MEMORY, DJANGO_REDIS}]
    sizes = [size for size in (1, 10, 100, 1_000, 10_000) if size <= effort.most // 100]
    rates: dict[tuple[str, int], list[float]] = {
        (store, size): [] for store in shared for size in sizes
    }
    with Crew(8) as crew:
        for number in range(max(2, effort.turns // 2) + 1):
            seconds = effort.seconds / 2 if number else 0.3
            for store, size in random.sample(list(rates), len(rates)):
                pairs = sum(crew.run(seconds, work, store, size, seconds))
                if number:
                    rates[store, size].append(pairs / seconds)
    return [
        Figure(SEMAPHORES, store, OURS, f"{size:,} semaphores", RATE, values)
        for (store, size), values in rates.items()
    ]


def work(shared: Shared, store: str, semaphores: int, seconds: float) -> int:
    """Acquire and release random locks; return how often."""
    acquire = acquirer(store)
    done = 0
    shared.ready.wait(60)
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        take(acquire, f"semaphore {random.randrange(semaphores)}")()
        done += 1
    connections.close_all()
    return done
