"""All figures in one run: this package on every store, beside bare calls and other libraries.

What is compared takes turns, on the same servers; a ratio is taken within a round. Medians and
quartiles are over the rounds.
"""

from __future__ import annotations

import argparse
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from benchmarks import every_store
from benchmarks.report import machine
from benchmarks.report.figures import Run
from benchmarks.report.sheets import sheets
from benchmarks.report.tables import as_table
from benchmarks.sections import contention, package, pairs, renewals, rows, tasks, views
from benchmarks.sections.turns import Effort

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.report.figures import Figure

APPS = ("pgactivity", "pglock", "db_mutex")
SECTIONS: dict[str, Callable[[Sequence[str], Effort], list[Figure]]] = {
    "pairs": pairs.measure,
    "views": views.measure,
    "hand-over": contention.measure_hand_over,
    "contention": contention.measure,
    "semaphores": contention.measure_semaphores,
    "tasks": tasks.measure,
    "renewals": renewals.measure,
    "package": package.measure,
    "rows": rows.measure,  # last: a server goes on tidying up for long after many writes
}
QUICK = Effort(rounds=3, seconds=0.5, turns=2, most=10_000)

console = Console(width=120)


def main() -> None:
    """Measure, print tables, and write the figures to a file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sections", choices=SECTIONS, nargs="+", default=list(SECTIONS))
    parser.add_argument(
        "--stores", choices=every_store.STORES, nargs="+", default=list(every_store.STORES)
    )
    parser.add_argument("--hiredis", action="store_true", help="let redis-py use it, for all alike")
    parser.add_argument("--output", type=Path, help="a JSON file for the figures")
    parser.add_argument("--quick", action="store_true", help="measure little, to try it out")
    options = parser.parse_args()
    logging.getLogger("redis_lock").setLevel(logging.ERROR)  # it warns of each refused try
    effort = QUICK if options.quick else Effort()
    started = time.monotonic()
    found = []
    with every_store.started(options.stores, *APPS, hiredis=options.hiredis):
        command = f"tox run -e benchmark -- all{' --quick' * options.quick}"
        about = machine.about(options.stores, command)
        for name in options.sections:
            begun = time.monotonic()
            found += SECTIONS[name](options.stores, effort)
            console.print(f"{name}: {time.monotonic() - begun:.0f} s")
    about["seconds"] = round(time.monotonic() - started)
    run = Run(about, found)
    if options.output:
        run.save(options.output)
    for sheet in sheets(run):
        console.print(as_table(sheet))


if __name__ == "__main__":
    main()
