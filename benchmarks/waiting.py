"""How a contended lock is handed over: processes acquire it all the time, and hold it for 1 ms.

The libraries take turns in rounds, in the same processes. A ratio is taken within a round; its
median and quartiles are over the rounds. If two were ever inside at once, the exit status is 1.
"""

from __future__ import annotations

import argparse
import time
from functools import cache
from operator import itemgetter
from statistics import quantiles
from typing import TYPE_CHECKING, NamedTuple

from rich.console import Console
from rich.table import Table

from benchmarks import stores
from benchmarks.contenders import (
    CONTENDERS,
    GET_LOCK,
    OURS,
    PGLOCK,
    REDIS_LOCK,
    REDIS_PY,
    UNQUEUED,
    take,
)
from benchmarks.crews import Crew
from benchmarks.pair import Spread, spreads

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.contenders import Acquire
    from benchmarks.crews import Shared

COMPARED = {
    stores.REDIS: (OURS, REDIS_LOCK, REDIS_PY),
    "postgresql": (OURS, PGLOCK),
    "mariadb": (OURS, UNQUEUED, GET_LOCK),
    "sqlite": (OURS, UNQUEUED),
}
APPS = ("pgactivity", "pglock")
HELD = 0.001
RATE = "grants a second"
MEDIAN, P99, LONGEST = "median wait, ms", "p99 wait, ms", "longest wait, ms"
FAIRNESS = "fewest / most grants"
DIGITS = {RATE: 0, MEDIAN: 1, P99: 1, LONGEST: 1, FAIRNESS: 2}

console = Console()


class Turn(NamedTuple):
    """A process's measurements of a library in a round."""

    waits: list[float]
    """Seconds, of each grant, and of a wait that went on at the end."""
    grants: int
    overlaps: int


Rounds = list[dict[str, float]]
Figures = dict[str, Rounds]
"""Each library's figures, round by round."""


def main() -> None:
    """Measure, print tables, and fail if two were inside at once."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", choices=COMPARED, default=stores.REDIS)
    parser.add_argument("--durable", action="store_true", help="PostgreSQL commits to the disk")
    parser.add_argument("--processes", type=int, default=8, help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=3, help="a turn's; default: %(default)s")
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--libraries", nargs="+", help="default: all; the first is compared")
    stores.add_redis_options(parser)
    options = parser.parse_args()
    libraries = options.libraries or COMPARED[options.store]
    if unknown := set(libraries) - set(COMPARED[options.store]):
        parser.error(f"not for {options.store}: {', '.join(unknown)}")
    with stores.store(options, *APPS), Crew(options.processes) as crew:
        console.print(stores.describe(options.store))
        figures, overlaps = measure(crew, libraries, options.rounds, options.seconds)
    title = f"{options.processes} processes for {options.seconds:g} s, {HELD * 1000:g} ms held"
    console.print(as_table(figures, title))
    if len(figures) > 1:
        console.print(compare(figures))
    for name, number in overlaps.items():
        console.print(f"two inside at once, {name}: {number or 'never'}")
    if any(overlaps.values()):
        raise SystemExit("two were inside at once")


def measure(
    crew: Crew, libraries: Sequence[str], rounds: int, seconds: float
) -> tuple[Figures, dict[str, int]]:
    """Return the figures, after a short round to warm up; and how often two were inside."""
    figures: Figures = {name: [] for name in libraries}
    overlaps = dict.fromkeys(libraries, 0)
    for number in range(rounds + 1):
        # Alternately there and back: none always runs in the wake of the same other.
        for name in list(libraries)[:: -1 if number % 2 else 1]:
            lasts = seconds if number else min(seconds, 0.5)
            turns: list[Turn] = crew.run(lasts, contend, name, f"round {number}", lasts)
            overlaps[name] += sum(turn.overlaps for turn in turns)
            if number:
                figures[name].append(summarize(turns, seconds))
    return figures, overlaps


def contend(shared: Shared, name: str, semaphore: str, seconds: float) -> Turn:
    """Acquire, hold and release the lock, again and again."""
    acquire = acquirer(name)
    take(acquire, f"warm-up {shared.number}")()
    waits: list[float] = []
    grants = overlaps = 0
    shared.ready.wait(60)
    end = time.perf_counter() + seconds
    while (asked := time.perf_counter()) < end:
        release = take(acquire, semaphore)
        granted = time.perf_counter()
        waits.append(min(granted, end) - asked)
        grants += granted < end
        overlaps += hold(shared)
        release()
    return Turn(waits, grants, overlaps)


def hold(shared: Shared) -> bool:
    """Be inside for a moment; return whether another process was."""
    alone = shared.inside.value == 0
    shared.inside.value = shared.number
    time.sleep(HELD)
    alone = alone and shared.inside.value == shared.number
    shared.inside.value = 0
    return not alone


@cache
def acquirer(name: str) -> Acquire:
    """Return the library, with this process's connections for it."""
    return CONTENDERS[name]()


def summarize(turns: list[Turn], seconds: float) -> dict[str, float]:
    """Return the figures of a library in a round."""
    grants = [turn.grants for turn in turns]
    waits = sorted(wait for turn in turns for wait in turn.waits)
    cuts = quantiles(waits, n=100, method="inclusive")
    return {
        RATE: sum(grants) / seconds,
        MEDIAN: cuts[49] * 1000,
        P99: cuts[98] * 1000,
        LONGEST: waits[-1] * 1000,
        FAIRNESS: min(grants) / max(1, *grants),
    }


def as_table(figures: Figures, title: str) -> Table:
    """Lay out each library's figures."""
    table = Table(title=title)
    for heading in ("", ""):
        table.add_column(heading, no_wrap=True)
    for heading in ("median", "lower quartile", "upper quartile"):
        table.add_column(heading, justify="right")
    for library, rounds in figures.items():
        for figure, digits in DIGITS.items():
            values = [measured[figure] for measured in rounds]
            name = library if figure == RATE else ""
            table.add_row(name, figure, *Spread.of(values).cells(1, digits))
        table.add_section()
    return table


def compare(figures: Figures) -> Table:
    """Lay out the first library's figures as multiples of the others'."""
    (first, mine), *others = figures.items()
    table = spreads(f"{first}: times as much")
    for figure in (RATE, P99):
        for name, its in others:
            table.add_row(f"{figure} / {name}", *ratio(mine, its, figure).cells(1, 2))
    if len(others) > 1:
        best = [min(lot, key=itemgetter(P99)) for lot in zip(*dict(others).values(), strict=True)]
        table.add_row(f"{P99} / the round's best other", *ratio(mine, best, P99).cells(1, 2))
    return table


def ratio(mine: Rounds, its: Rounds, figure: str) -> Spread:
    """Take the ratio within each round."""
    pairs = zip(mine, its, strict=True)
    return Spread.of([one[figure] / other[figure] for one, other in pairs])


if __name__ == "__main__":
    main()
