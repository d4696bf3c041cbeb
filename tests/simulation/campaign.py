"""Many universes, in several real processes."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

CHUNK: Final = 250
"""Universes after which a process reports."""
CHUNKS: Final = 20
"""How many of them a process runs: a universe leaves some objects in its memory."""
YEAR: Final = 365.25 * 86_400.0
"""Seconds."""


@dataclass
class Summary:
    """What came of some universes."""

    universes: int = 0
    lock_seconds: float = 0.0
    """The time in the universes, once for each of their locks."""
    grants: int = 0
    messages: int = 0
    processor_seconds: float = 0.0
    problems: dict[int, list[str]] = field(default_factory=dict)
    """By seed."""

    @property
    def lock_years(self) -> float:
        """That time in years."""
        return self.lock_seconds / YEAR

    def add(self, other: Summary) -> None:
        """Add what came of other universes."""
        self.universes += other.universes
        self.lock_seconds += other.lock_seconds
        self.grants += other.grants
        self.messages += other.messages
        self.processor_seconds += other.processor_seconds
        self.problems |= other.problems

    def __str__(self) -> str:
        each = 1000 * self.processor_seconds / max(1, self.universes)
        return (
            f"{self.universes} universes, {self.lock_years:.3f} lock-years, {self.grants} grants,"
            f" {self.messages} messages, {each:.1f} ms of a processor for each;"
            f" {len(self.problems)} broke a promise"
        )


def set_up() -> None:
    """Set up Django, in a process that hasn't."""
    import django
    from django.apps import apps

    if not apps.ready:
        django.setup()


def run_universes(seeds: range, mutant: str = "", *, stop: bool = False) -> Summary:
    """Run the universes of these seeds; if so wanted, stop at the first that breaks a promise."""
    from tests.simulation.installation import installed
    from tests.simulation.mutants import MUTANTS, NOT_MUTATED
    from tests.simulation.universe import Universe

    summary = Summary()
    began = time.process_time()
    with installed() as errors:
        for seed in seeds:
            result = Universe(seed, MUTANTS[mutant] if mutant else NOT_MUTATED).run()
            summary.universes += 1
            summary.lock_seconds += result.seconds * result.locks
            summary.grants += result.grants
            summary.messages += len(result.segments)
            problems = result.problems + errors.lines
            errors.lines.clear()
            if problems:
                summary.problems[seed] = problems
                if stop:
                    break
    summary.processor_seconds = time.process_time() - began
    return summary


def run_in_processes(seeds: range, jobs: int) -> Iterator[Summary]:
    """Run them in so many processes; yield what came of them, chunk by chunk."""
    chunks = [seeds[at : at + CHUNK] for at in range(0, len(seeds), CHUNK)]
    with get_context("spawn").Pool(jobs, set_up, maxtasksperchild=CHUNKS) as processes:
        yield from processes.imap(run_universes, chunks)
