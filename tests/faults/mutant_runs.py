"""Short runs of stores with a mistake. See the package `mutants`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.faults.nursery import Nursery
from tests.faults.runner import Result, Scale, run, work_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.faults.checker import Fault
    from tests.faults.environment import Environment

SMALL = Scale(seconds=4, workers=2, actors=2, semaphores=2, pace=0.005, ttls=(0.3,), faults=())
"""A run without faults: the mistakes show anyway."""
TRIES = 8
"""A run may show nothing, by chance."""


def runs(
    environment: Environment, mutant: str, scale: Scale, folder: Path, tries: int = TRIES
) -> Iterator[Result]:
    """Yield what comes of some runs of a mutant."""
    folder.mkdir(exist_ok=True)
    with Nursery(environment, mutant) as nursery:
        nursery.finish("prepare", work_of(environment, scale, folder))
        for seed in range(tries):
            result = run(environment, nursery, seed, scale, folder / str(seed))
            assert not result.errors
            yield result


def shows(environment: Environment, mutant: str, scale: Scale, folder: Path, fault: Fault) -> bool:
    """Return whether a run of the mutant shows this."""
    return any(
        fault in {one.fault for one in result.violations}
        for result in runs(environment, mutant, scale, folder)
    )
