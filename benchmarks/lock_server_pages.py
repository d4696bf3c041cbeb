"""The cost of a page of a lock server's locks, and how long other clients wait for one.

The servers take turns, and a ratio is taken within a round; its median and quartiles are over the
rounds. Each server has another number of locks.
"""

from __future__ import annotations

import argparse
import time
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

from rich.console import Console

from benchmarks import stores
from benchmarks.contenders import ours
from benchmarks.crews import Crew
from benchmarks.lock_server import asking, hold_many
from benchmarks.pair import Spread, measure, ratios, spreads, times
from benchmarks.sections.pairs import pair
from tests.support.lock_servers import start_lock_server

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.crews import Shared

COUNTS = {"default": 100, "many": 10_000, "full": 100_000}
SEARCHES = {"page": "", "search, found": "42collect", "search, not found": "nowhere"}

console = Console()


def main() -> None:
    """Measure, and print tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10, help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=5, help="of waiting; default: %(default)s")
    options = parser.parse_args()
    with ExitStack() as started:
        servers = {alias: started.enter_context(start_lock_server()) for alias in COUNTS}
        configured = {
            "DISTLOCK": {alias: asking(server) for alias, server in servers.items()},
            "INSTALLED_APPS": ["django_distlock"],
            "USE_TZ": True,
        }
        stores.set_up(configured, hiredis=False)
        for alias, locks in COUNTS.items():
            hold_many(alias, locks)
        compare_pages(options.rounds)
        with Crew(1) as crew:
            for alias in COUNTS:
                time_others(crew, alias, options.seconds)


def compare_pages(rounds: int) -> None:
    """Compare pages, and searches, on servers with few and many locks."""
    kinds: dict[str, Callable[[], None]] = {
        f"{kind}, {locks:,} locks": partial(show, alias, search)
        for alias, locks in COUNTS.items()
        for kind, search in SEARCHES.items()
    }
    batches = measure(kinds, rounds)
    few, *others = COUNTS.values()
    compared = [
        (f"{kind}, {many:,} locks", f"{kind}, {few:,} locks")
        for many in others
        for kind in SEARCHES
    ]
    console.print(times(batches), ratios(batches, compared))


def show(alias: str, search: str) -> None:
    """Ask for the first page."""
    from django_distlock import lock_backends
    from django_distlock.backends.server import ServerBackend
    from django_distlock.records import LockQuery

    backend = lock_backends[alias]
    assert isinstance(backend, ServerBackend)
    backend.page(LockQuery(search=search))


def time_others(crew: Crew, alias: str, seconds: float) -> None:
    """Print how long acquisitions with release take while another process asks for pages."""
    table = spreads(f"{COUNTS[alias]:,} locks: acquire + release, in microseconds")
    table.add_column("longest of 1,000")
    acquire = ours(alias)
    for asked in (False, True):
        if asked:
            crew.begin(show_on, alias, seconds)
        taken, end = [], time.perf_counter() + seconds
        while time.perf_counter() < end:
            began = time.perf_counter()
            pair(acquire)
            taken.append(time.perf_counter() - began)
        rare = sorted(taken)[-max(1, len(taken) // 1_000)]
        label = "while pages are asked for all the time" if asked else "alone"
        table.add_row(label, *Spread.of(taken).cells(1_000_000, 0), f"{rare * 1_000_000:.0f}")
    pages = crew.results(seconds)[0]
    console.print(table, f"{pages} pages in {seconds:g} seconds")


def show_on(shared: Shared, alias: str, seconds: float) -> int:
    """Ask for pages, one after the other; return how many there were."""
    number, end = 0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        show(alias, "")
        number += 1
    return number


if __name__ == "__main__":
    main()
