"""Many threads on one lock: no caller may get an error, and the server should see no deadlock."""

from __future__ import annotations

import argparse
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from django.db import connection, connections
from rich.console import Console
from rich.table import Table

from benchmarks import databases

THREADS = 12
ITERATIONS = 3_600
SEMAPHORES = 3
GRANTS, REFUSALS, LOSSES = "grants", "refusals", "leases lost before their release"
ERROR = "errors that reached the caller"

console = Console()


def main() -> None:
    """Contend, print what happened, and fail if a caller met an error."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database", choices=databases.DATABASES, default="mariadb")
    parser.add_argument("--iterations", type=int, default=ITERATIONS, help="default: %(default)s")
    options = parser.parse_args()
    # A connection for each thread: with fewer, the threads would wait for these and not contend.
    with databases.database(options.database, connections=THREADS):
        console.print(databases.describe())
        deadlocks = count_deadlocks()
        started = time.perf_counter()
        outcomes = contend(options.iterations)
        seconds = time.perf_counter() - started
        console.print(as_table(outcomes, count_deadlocks() - deadlocks, seconds))
    if outcomes[ERROR]:
        raise SystemExit(1)


def contend(iterations: int) -> Counter[str]:
    """Divide the iterations among the threads, and add up their outcomes."""
    barrier = Barrier(THREADS)

    def work(_: int) -> Counter[str]:
        barrier.wait()
        try:
            return sum(
                (attempt(number) for number in range(iterations // THREADS)), start=Counter()
            )
        finally:
            connections.close_all()

    with ThreadPoolExecutor(THREADS) as threads:
        return sum(threads.map(work, range(THREADS)), start=Counter())


def attempt(number: int) -> Counter[str]:
    """Try to acquire one of a few locks, and release it at once."""
    from django_distlock import acquire_lock

    try:
        lease = acquire_lock(f"contended {number % SEMAPHORES}")
        if lease is None:
            return Counter([REFUSALS])
        return Counter([GRANTS] if lease.release() else [GRANTS, LOSSES])
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what is counted here
        return Counter([ERROR, f"{type(error).__name__}: {error}"])


def count_deadlocks() -> int:
    """Return how many deadlocks the server has seen."""
    if connection.vendor == "mysql":
        return databases.status("Innodb_deadlocks")["Innodb_deadlocks"]
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
            )
            return int(cursor.fetchone()[0])
    return 0  # SQLite has one writer at a time.


def as_table(outcomes: Counter[str], deadlocks: int, seconds: float) -> Table:
    """Lay the counts out as a table."""
    iterations = outcomes[GRANTS] + outcomes[REFUSALS] + outcomes[ERROR]
    table = Table(title=f"{iterations:,} iterations, {THREADS} threads, {SEMAPHORES} locks")
    table.add_column()
    table.add_column(justify="right")
    counted = {"deadlocks that the server counted": deadlocks}
    counted |= {name: outcomes[name] for name in (ERROR, GRANTS, REFUSALS, LOSSES)}
    for name, number in (counted | outcomes).items():
        table.add_row(name, f"{number:,}")
    table.add_row("iterations a second", f"{iterations / seconds:,.0f}")
    return table


if __name__ == "__main__":
    main()
