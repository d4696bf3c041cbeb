"""The cost of waiting for a Redis server: waiters' commands while the lock is held.

Commands that a script calls count too, as the server counts them.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from django.db import connections
from rich.console import Console
from rich.table import Table

from benchmarks import stores
from benchmarks.contenders import CONTENDERS, OURS, REDIS_LOCK, REDIS_PY, redis_client, take
from benchmarks.crews import Crew, Shared

COMPARED = (OURS, REDIS_LOCK, REDIS_PY)
SETTLING = 1.0

console = Console()


def main() -> None:
    """Count, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=4, help="default: %(default)s")
    parser.add_argument("--threads", type=int, default=8, help="of each; default: %(default)s")
    parser.add_argument("--seconds", type=float, default=10, help="default: %(default)s")
    parser.add_argument("--libraries", choices=COMPARED, nargs="+", default=COMPARED)
    stores.add_redis_options(parser)
    options = parser.parse_args()
    waiters = options.processes * options.threads
    table = Table(title=f"{waiters} waiters, {options.seconds:g} s: commands a second of each")
    for heading in ("", "command"):
        table.add_column(heading, no_wrap=True)
    table.add_column("", justify="right")
    with stores.redis(options), Crew(options.processes) as crew:
        console.print(stores.describe(stores.REDIS))
        for library in options.libraries:
            sent = count(crew, library, options.threads, options.seconds)
            table.add_row(library, "all", f"{sent.total() / options.seconds / waiters:.2f}")
            for command, number in sent.most_common():
                table.add_row("", command, f"{number / options.seconds / waiters:.2f}")
            table.add_section()
    console.print(table)


def count(crew: Crew, library: str, threads: int, seconds: float) -> Counter[str]:
    """Hold the lock while the crew waits for it, and count the commands for so many seconds."""
    client = redis_client()
    release = take(CONTENDERS[library](), library, wait=False)
    try:
        crew.begin(wait, library, threads)
        crew.await_begun(len(crew.processes) * threads)
        time.sleep(SETTLING)  # until each has tried, and waits
        before = calls(client.info("commandstats"))
        time.sleep(seconds)
        after = calls(client.info("commandstats"))
    finally:
        release()
    granted = crew.results(seconds)
    assert granted == [threads] * len(granted)
    after.subtract(before + Counter(info=1))  # the first reading counts in the second
    return +after


def wait(shared: Shared, library: str, threads: int) -> int:
    """Wait for the lock in so many threads; return how many got it."""

    def wait_once(number: int) -> int:
        acquire = CONTENDERS[library]()
        take(acquire, f"warm-up {shared.number} {number}")()
        shared.begun.release()
        try:
            take(acquire, library)()
        finally:
            connections.close_all()
        return 1

    with ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(wait_once, range(threads)))


def calls(statistics: dict[str, dict[str, int]]) -> Counter[str]:
    """Return how often each command was called."""
    return Counter(
        {name.removeprefix("cmdstat_"): entry["calls"] for name, entry in statistics.items()}
    )


if __name__ == "__main__":
    main()
