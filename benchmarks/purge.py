"""The cost of a purge: locks a second, memory, and how much longer workers' locks take beside it.

Workers acquire and release locks of their own all the time: in each round once without a purge, and
once beside one. Which comes first alternates. The ratio of their
p99 is taken within a round; its median and quartiles are over the rounds.
"""

from __future__ import annotations

import argparse
import resource
import time
from datetime import UTC, datetime, timedelta
from io import StringIO
from statistics import quantiles
from typing import TYPE_CHECKING, NamedTuple

from django.core.management import call_command
from django.db import connection
from rich.console import Console

from benchmarks import databases
from benchmarks.crews import Crew
from benchmarks.pair import Spread, spreads

if TYPE_CHECKING:
    from rich.table import Table

    from benchmarks.crews import Shared

LONG_AGO = datetime.now(UTC) - timedelta(days=2)
AT_LEAST = {"postgresql": 10_000, "mysql": 300, "sqlite": 2_000}
"""Locks that are purged in a second at least, by the vendor: so long do workers go on."""
SETTLING = 0.5
"""Seconds before and after what is measured."""

console = Console()


class Pair(NamedTuple):
    """When a worker acquired and released a lock, by the clock that all processes share."""

    begun: float
    ended: float


class LastLine(StringIO):
    """An output that keeps the last line alone."""

    line = ""

    def write(self, text: str) -> int:
        """Forget what was written before."""
        self.line = text
        return len(text)


class Round(NamedTuple):
    """What was measured in one round."""

    rate: float
    """Locks purged a second."""
    idle: float
    """Seconds that one of a hundred pairs took at least, beside an idle purge."""
    working: float


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database", choices=databases.DATABASES, default="postgresql")
    parser.add_argument("--locks", type=int, default=30_000, help="a round's; default: %(default)s")
    parser.add_argument("--workers", type=int, default=2, help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=10, help="default: %(default)s")
    options = parser.parse_args()
    with databases.database(options.database, store_timeout=60), Crew(options.workers) as crew:
        console.print(databases.describe())
        measure(crew, options.locks, idle_first=True)  # to warm up
        before = peak_memory()
        rounds = [
            measure(crew, options.locks, idle_first=n % 2 == 0) for n in range(options.rounds)
        ]
        grown = peak_memory() - before
    title = f"{options.locks:,} locks purged beside {options.workers} workers"
    console.print(as_table(rounds, title))
    console.print(f"memory that all purges added: {grown:+.2f} MB")


def as_table(rounds: list[Round], title: str) -> Table:
    """Lay out what was measured."""
    table = spreads(title)
    figures: list[tuple[str, list[float], float, int]] = [
        ("locks a second", [each.rate for each in rounds], 1, 0),
        ("p99 of a pair, idle purge, ms", [each.idle for each in rounds], 1000, 2),
        ("p99 of a pair, working purge, ms", [each.working for each in rounds], 1000, 2),
        ("p99, working / idle", [each.working / each.idle for each in rounds], 1, 2),
    ]
    for name, values, scale, digits in figures:
        table.add_row(name, *Spread.of(values).cells(scale, digits))
    return table


def measure(crew: Crew, locks: int, *, idle_first: bool) -> Round:
    """Fill the table, and run workers without a purge, and beside a purge of all those locks."""
    fill(locks)
    seconds = locks / AT_LEAST[connection.vendor]
    crew.begin(work, 4 * SETTLING + 2 * seconds)
    crew.await_begun(len(crew.processes))
    if idle_first:
        idle = idle_purge(seconds)
        working = purge(locks)
    else:
        working = purge(locks)
        time.sleep(SETTLING)
        idle = idle_purge(seconds)
    pairs = [pair for pairs in crew.results(seconds) for pair in pairs]
    return Round(locks / (working.ended - working.begun), p99(pairs, idle), p99(pairs, working))


def fill(locks: int) -> None:
    """Write so many locks that were released long ago, as visits to unknown ids leave them."""
    from django_distlock.models import Lock

    values = {"token": 1, "holder": "web1 pid 7 MainThread", "acquired_at": LONG_AGO}
    Lock.objects.bulk_create(
        (
            Lock(semaphore=f"page-{number}:edit", expires_at=LONG_AGO, **values)
            for number in range(locks)
        ),
        batch_size=1_000,
    )


def idle_purge(seconds: float) -> Pair:
    """Do nothing for a while; return begin and end."""
    begun = time.perf_counter()
    time.sleep(seconds)
    return Pair(begun, time.perf_counter())


def purge(locks: int) -> Pair:
    """Run the command as cron does; return begin and end."""
    output = LastLine()
    begun = time.perf_counter()
    call_command("clear_stale_locks", "--purge-released=1d", stdout=output)
    ended = time.perf_counter()
    assert output.line == f"{locks} released locks deleted.\n"
    return Pair(begun, ended)


def work(shared: Shared, seconds: float) -> list[Pair]:
    """Acquire and release a lock of one's own, again and again."""
    from django_distlock import acquire_lock

    if lease := acquire_lock("to warm up", timeout=None):
        lease.release()
    shared.begun.release()
    pairs = []
    end = time.perf_counter() + seconds
    while (begun := time.perf_counter()) < end:
        lease = acquire_lock(f"worker {shared.number}")
        assert lease
        assert lease.release()
        pairs.append(Pair(begun, time.perf_counter()))
    return pairs


def p99(pairs: list[Pair], span: Pair) -> float:
    """Return the 99th percentile of the seconds of the pairs within this span."""
    within = [one.ended - one.begun for one in pairs if span.begun < one.begun < span.ended]
    return quantiles(within, n=100, method="inclusive")[98]


def peak_memory() -> float:
    """Return the peak memory of this process, in megabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
