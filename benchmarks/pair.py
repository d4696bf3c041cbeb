"""The cost of a lock: acquire and release against two bare UPDATEs and another library.

The kinds of call take turns, a few calls at a time, so that a busy moment of the machine hits all;
a call's time in a round is the median of its turns. A ratio is taken within a round; its median
and quartiles are over the rounds.
"""

from __future__ import annotations

import argparse
import random
import time
from itertools import count
from statistics import median, quantiles
from typing import TYPE_CHECKING, NamedTuple

from django.db import connections
from rich.console import Console
from rich.table import Table

from benchmarks import databases, writes

if TYPE_CHECKING:
    from collections.abc import Callable

BATCH = 10
TURNS = 10
REFUSED = 1_000
UPDATES = "two bare UPDATEs"
LOCK = "acquire_lock + release"
NOT_RENEWED = "the same, renew=False"
MUTEX = "django-db-mutex"
REFUSAL = "a refused try"
RATIOS = [(LOCK, UPDATES), (LOCK, MUTEX), (LOCK, NOT_RENEWED), (REFUSAL, UPDATES)]

console = Console()


class Spread(NamedTuple):
    """The median of many measurements, between their quartiles."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        """Summarize the values."""
        low, _, high = quantiles(values, n=4)
        return cls(low, median(values), high)

    def cells(self, scale: float, digits: int) -> list[str]:
        """Return the three numbers as text: the median first."""
        return [f"{scale * value:.{digits}f}" for value in (self.median, self.low, self.high)]


def main() -> None:
    """Measure, and print tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database", choices=databases.DATABASES, default="postgresql")
    parser.add_argument("--rounds", type=int, default=30, help="default: %(default)s")
    options = parser.parse_args()
    with databases.database(options.database, "db_mutex"):
        console.print(databases.describe())
        kinds = make_kinds()
        # First: a server goes on tidying up for long after many writes, and that would count.
        console.print(costs(writes.measure(kinds[REFUSAL], REFUSED)))
        batches = measure(kinds, options.rounds)
        console.print(times(batches), ratios(batches, RATIOS))


def make_kinds() -> dict[str, Callable[[], None]]:
    """Return what to measure by its name."""
    # Not before Django is set up: importing its models needs that.
    from db_mutex.db_mutex import db_mutex

    from django_distlock import acquire_lock

    assert acquire_lock("held", ttl=None)
    update = make_update()

    def update_twice() -> None:
        update()
        update()

    def lock() -> None:
        lease = acquire_lock("benchmark")
        assert lease
        assert lease.release()

    def lock_without_renewal() -> None:
        lease = acquire_lock("benchmark", renew=False)
        assert lease
        assert lease.release()

    def mutex() -> None:
        with db_mutex("benchmark"):
            pass

    def refuse() -> None:
        assert acquire_lock("held") is None

    return {
        UPDATES: update_twice,
        LOCK: lock,
        NOT_RENEWED: lock_without_renewal,
        MUTEX: mutex,
        REFUSAL: refuse,
    }


def make_update(alias: str = "default") -> Callable[[], None]:
    """Create a table of one row, and return a function that changes the row."""
    with connections[alias].cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS benchmark")
        cursor.execute(
            "CREATE TABLE benchmark (id varchar(255) PRIMARY KEY, number bigint NOT NULL)"
        )
        cursor.execute("INSERT INTO benchmark VALUES ('benchmark', 0)")
    numbers = count(1)

    def update() -> None:
        with connections[alias].cursor() as cursor:
            cursor.execute(
                "UPDATE benchmark SET number = %s WHERE id = %s", [next(numbers), "benchmark"]
            )

    return update


def measure(kinds: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    """Return for each kind the seconds that a call took in each round, after one to warm up."""
    found: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(rounds + 1):
        turns: dict[str, list[float]] = {name: [] for name in kinds}
        for _ in range(TURNS):
            # In any order: none always runs in the wake of the same other.
            for name in random.sample(list(kinds), len(kinds)):
                turns[name].append(time_batch(kinds[name]))
        for name, values in turns.items():
            found[name].append(median(values))
    return {name: values[1:] for name, values in found.items()}


def time_batch(call: Callable[[], None]) -> float:
    """Return the seconds that a call takes, in the mean of a batch."""
    started = time.perf_counter()
    for _ in range(BATCH):
        call()
    return (time.perf_counter() - started) / BATCH


def times(batches: dict[str, list[float]]) -> Table:
    """Lay out how long each kind of call takes."""
    table = spreads("microseconds a call")
    for name, values in batches.items():
        table.add_row(name, *Spread.of(values).cells(1_000_000, 0))
    return table


def ratios(batches: dict[str, list[float]], compared: list[tuple[str, str]]) -> Table:
    """Lay out how many times as long as another each kind of call takes."""
    table = spreads("times as long")
    for name, other in compared:
        pairs = zip(batches[name], batches[other], strict=True)
        spread = Spread.of([one / another for one, another in pairs])
        table.add_row(f"{name} / {other}", *spread.cells(1, 2))
    return table


def spreads(title: str) -> Table:
    """Begin a table of medians and quartiles."""
    table = Table(title=title)
    table.add_column(no_wrap=True)
    for heading in ("median", "lower quartile", "upper quartile"):
        table.add_column(heading, justify="right")
    return table


def costs(counted: dict[str, int]) -> Table:
    """Lay out the messages and writes of refused tries."""
    table = Table(title=f"{REFUSED:,} refused tries")
    table.add_column(no_wrap=True)
    table.add_column(justify="right")
    for name, value in counted.items():
        table.add_row(name, f"{value:,}")
    return table


if __name__ == "__main__":
    main()
