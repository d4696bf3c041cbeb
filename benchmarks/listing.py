"""A page of the list of locks: among a million rows, and among a hundred."""

from __future__ import annotations

import argparse
import time
from datetime import UTC, datetime, timedelta
from statistics import median

from django.db import connection
from django.test.utils import CaptureQueriesContext
from rich.console import Console
from rich.table import Table

from benchmarks import databases

FEW = 100
TIMES = 15
BATCH = 20_000
MIXES = {"mixed": "hsr", "held": "h", "released": "r" * 99_999 + "h"}
"""The states of the rows, in turn: held, stale and released."""

console = Console()


def main() -> None:
    """Fill the table twice, and print what each page takes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database", choices=databases.DATABASES, default="postgresql")
    parser.add_argument("--rows", type=int, default=1_000_000, help="default: %(default)s")
    parser.add_argument("--mix", choices=MIXES, default="mixed")
    options = parser.parse_args()
    with databases.database(options.database):
        console.print(databases.describe())
        fill(FEW, MIXES["mixed"])
        few = measure()
        empty()
        fill(options.rows, MIXES[options.mix])
        console.print(as_table(few, measure(), options.rows))


def fill(rows: int, states: str) -> None:
    """Write so many locks."""
    from django_distlock.models import Lock

    now = datetime.now(UTC)
    for first in range(0, rows, BATCH):
        numbers = range(first, min(first + BATCH, rows))
        Lock.objects.bulk_create(
            (
                Lock(
                    semaphore=f"customer:{number:08}:collect",
                    token=number,
                    owner="" if states[number % len(states)] == "r" else "x" * 30,
                    holder="invoices (web-1 pid 4711 thread 17 'MainThread')",
                    acquired_at=now,
                    expires_at=now
                    + timedelta(hours=9 if states[number % len(states)] == "h" else -9),
                )
                for number in numbers
            ),
            batch_size=2_000,
        )


def empty() -> None:
    """Delete all locks."""
    from django_distlock.models import Lock

    Lock.objects.all().delete()


def measure() -> dict[str, tuple[float, int]]:
    """Return how long each page takes, in seconds, and how many queries."""
    from django_distlock import lock_backends
    from django_distlock.backends.operations import ListingStore
    from django_distlock.records import LockQuery, LockState

    store = lock_backends["default"]
    assert isinstance(store, ListingStore)
    found = {}
    for name, query in {
        "first page": LockQuery(),
        "page 50": LockQuery(page=50),
        "held": LockQuery(state=LockState.HELD),
        "stale": LockQuery(state=LockState.STALE),
        "released": LockQuery(state=LockState.RELEASED),
        "search": LockQuery(search="customer:0000004"),
    }.items():
        with CaptureQueriesContext(connection) as queries:
            store.page(query)
        taken = []
        for _ in range(TIMES):
            started = time.perf_counter()
            store.page(query)
            taken.append(time.perf_counter() - started)
        found[name] = median(taken), len(queries)
    return found


def as_table(
    few: dict[str, tuple[float, int]], many: dict[str, tuple[float, int]], rows: int
) -> Table:
    """Lay out the times of both."""
    table = Table(title=f"milliseconds, median of {TIMES}")
    headings = ("", f"{FEW} rows", f"{rows:,} rows", "times as long", "queries")
    for heading in headings:
        table.add_column(heading, justify="right")
    for name, (seconds, queries) in many.items():
        before, _ = few[name]
        table.add_row(
            name,
            f"{1_000 * before:.1f}",
            f"{1_000 * seconds:.1f}",
            f"{seconds / before:.1f}",
            f"{queries}",
        )
    return table


if __name__ == "__main__":
    main()
