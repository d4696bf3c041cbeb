"""The cost of many leases: memory, and time and round trips of each renewal of all."""

from __future__ import annotations

import argparse
import gc
import time
import tracemalloc
from statistics import median
from typing import Any
from unittest import mock

from django.db import connection
from rich.console import Console
from rich.table import Table

from benchmarks import databases

console = Console()


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database", choices=databases.DATABASES, default="postgresql")
    parser.add_argument("--leases", type=int, default=10_000, help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=10, help="default: %(default)s")
    options = parser.parse_args()
    with databases.database(options.database):
        console.print(databases.describe())
        table = Table(title=f"{options.leases:,} leases")
        table.add_column(no_wrap=True)
        table.add_column(justify="right")
        for name, value in measure(options.leases, options.rounds).items():
            table.add_row(name, value)
        console.print(table)


def measure(number: int, rounds: int) -> dict[str, str]:
    """Return the cost of so many leases, as text."""
    # Not before Django is set up: importing its models needs that.
    from django_distlock import acquire_lock, clocks
    from django_distlock.backends.database import DatabaseBackend
    from django_distlock.concurrency.renewal import Renewals
    from django_distlock.leases.owned_lease import OwnedLease

    warm_up = acquire_lock("warm up")
    assert warm_up
    warm_up.release()
    renewals = Renewals("default")
    gc.collect()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    leases = [acquire_lock(f"{n}collectPayment", ttl=3600, renew=False) for n in range(number)]
    for lease in leases:
        assert isinstance(lease, OwnedLease)
        renewals.add(lease)
    gc.collect()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    sent: list[str] = []
    kind = type(DatabaseBackend.statements(connection))

    def counting(name: str) -> Any:
        real = getattr(kind, name)

        def send(statements: Any, sql: str, parameters: Any) -> Any:
            sent.append(sql)
            return real(statements, sql, parameters)

        return mock.patch.object(kind, name, send)

    seconds = []
    now = clocks.monotonic
    with counting("execute"), counting("fetch"):
        for turn in range(1, rounds + 1):
            with mock.patch.object(clocks, "monotonic", lambda turn=turn: now() + turn * 1800):
                started = time.perf_counter()
                renewals.renew_due()
                seconds.append(time.perf_counter() - started)
                assert all(lease and lease.remaining > 3000 for lease in leases)
    return {
        "bytes a lease": f"{(after - before) / number:.0f}",
        "round trips to renew all": f"{len(sent) / rounds:.0f}",
        "milliseconds to renew all, median": f"{median(seconds) * 1000:.0f}",
        "microseconds a lease": f"{median(seconds) * 1_000_000 / number:.0f}",
    }


if __name__ == "__main__":
    main()
