"""Two hundred tasks of one event loop that all want one lock."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from benchmarks.contenders import OURS
from benchmarks.report.figures import Figure
from benchmarks.waiting import summarize
from benchmarks.waiting_tasks import measure as measure_tasks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .turns import Effort

TASKS = "tasks"
WAITERS = 200


def measure(stores: Sequence[str], effort: Effort) -> list[Figure]:
    """Let the tasks acquire the lock again and again, and hold it for a millisecond."""
    found = []
    for store in stores:
        turns = asyncio.run(measure_tasks(WAITERS, effort.seconds, effort.turns, store))
        if any(turn.overlaps for each in turns for turn in each):
            raise SystemExit(f"two were inside at once: {store}")
        rounds = [summarize(each, effort.seconds) for each in turns]
        for unit in rounds[0]:
            values = [each[unit] for each in rounds]
            found.append(Figure(TASKS, store, OURS, f"{WAITERS} tasks", unit, values))
    return found
