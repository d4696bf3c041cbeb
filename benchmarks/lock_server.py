"""The lock server's cost beside Redis, when it is full, and when a holder is killed.

The kinds that are compared take turns, and a ratio is taken within a round; its median and
quartiles are over the rounds. If two were ever inside a lock at once, the exit status is 1.
"""

from __future__ import annotations

import argparse
import random
import time
from contextlib import ExitStack
from functools import partial
from statistics import median
from typing import TYPE_CHECKING, Any

import psutil
from rich.console import Console
from rich.table import Table

from benchmarks import stores
from benchmarks.contenders import ours, take
from benchmarks.crews import PATIENCE, Crew
from benchmarks.every_store import LOCK_SERVER, REDIS
from benchmarks.pair import Spread, measure, spreads, times
from benchmarks.sections.pairs import pair
from benchmarks.waiting import FAIRNESS, HELD, RATE, acquirer, as_table, ratio
from benchmarks.waiting import measure as measure_waiting
from tests.support.lock_servers import PATH, options_of, start_lock_server

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.crews import Shared
    from django_distlock import Lease
    from tests.support.servers import Server

BY_UNIX = "lock server, unix socket"
ENDING = "lock server, release_on_disconnect"
FEW, FULL = "few locks", "many locks"
FEW_LOCKS = 10
HOLDERS = 1_000
LASTING = 3_600

console = Console()
kept: list[Lease] = []
"""What this process holds until it ends."""


def main() -> None:
    """Measure, print tables, and fail if two were inside at once."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=8, help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=2, help="a turn's; default: %(default)s")
    parser.add_argument("--rounds", type=int, default=20, help="default: %(default)s")
    parser.add_argument("--locks", type=int, default=100_000, help="default: %(default)s")
    stores.add_redis_options(parser)
    options = parser.parse_args()
    with ExitStack() as started:
        near, by_unix, few, full = (
            started.enter_context(start_lock_server(unix=unix))
            for unix in (False, True, False, False)
        )
        backends = {
            REDIS: stores.LOCKS_IN_REDIS,
            LOCK_SERVER: asking(near),
            BY_UNIX: asking(by_unix),
            ENDING: asking(near, release_on_disconnect=True),
            FEW: asking(few),
            FULL: asking(full),
        }
        started.enter_context(stores.redis(options, backends))
        console.print(stores.describe(stores.REDIS))
        compare_pairs(options.rounds)
        with Crew(options.processes) as crew:
            compare_rates(crew, options.rounds, options.seconds)
            overlaps = compare_waiting(crew, options.rounds, options.seconds)
        fill(full, options.locks)
        compare_tries(options.locks, options.rounds)
        time_kills(options.rounds)
    if overlaps:
        raise SystemExit("two were inside at once")


def asking(server: Server, **options: Any) -> dict[str, Any]:
    """Return DISTLOCK's entry for a lock backend that uses this server."""
    return {"BACKEND": PATH, "OPTIONS": options_of(server, **options)}


def compare_pairs(rounds: int) -> None:
    """Compare the time of one client to acquire an uncontended lock, and to release it."""
    pairs: dict[str, Callable[[], None]] = {
        REDIS: partial(pair, ours()),
        LOCK_SERVER: partial(pair, ours(LOCK_SERVER)),
        BY_UNIX: partial(pair, ours(BY_UNIX)),
    }
    batches = measure(pairs, rounds)
    table = asked("acquire + release: times as long")
    for name in (LOCK_SERVER, BY_UNIX):
        table.add_row(f"{name} / {REDIS}", *quotient(batches[name], batches[REDIS]), "≤ 1.5")
    console.print(times(batches), table)


def compare_rates(crew: Crew, rounds: int, seconds: float) -> None:
    """Compare the throughput for processes with one lock each."""
    rates: dict[str, list[float]] = {REDIS: [], LOCK_SERVER: []}
    for number in range(rounds + 1):
        # Alternately there and back, after a short round to warm up: see benchmarks.waiting.
        for name in list(rates)[:: -1 if number % 2 else 1]:
            lasts = seconds if number else min(seconds, 0.5)
            rates[name].append(sum(crew.run(lasts, repeat, name, lasts)) / lasts)
    warm = {name: values[1:] for name, values in rates.items()}
    table = asked(f"{len(crew.processes)} processes acquire and release a lock each")
    for name, values in warm.items():
        table.add_row(f"a second, {name}", *Spread.of(values).cells(1, 0))
    compared = quotient(warm[LOCK_SERVER], warm[REDIS])
    table.add_row(f"{LOCK_SERVER} / {REDIS}", *compared, "≥ 0.5")
    console.print(table)


def repeat(shared: Shared, name: str, seconds: float) -> int:
    """Acquire and release a lock of this process's own, again and again; return how often."""
    acquire = acquirer(name)
    semaphore = f"of {shared.number}"
    take(acquire, semaphore, wait=False)()
    done = 0
    shared.ready.wait(PATIENCE)
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        take(acquire, semaphore, wait=False)()
        done += 1
    return done


def compare_waiting(crew: Crew, rounds: int, seconds: float) -> int:
    """Compare how one lock is handed over; return how often two were inside at once."""
    figures, overlaps = measure_waiting(crew, (LOCK_SERVER, REDIS), rounds, seconds)
    mine, its = figures[LOCK_SERVER], figures[REDIS]
    title = f"{len(crew.processes)} processes want one lock, {HELD * 1000:g} ms held"
    table = asked(f"{LOCK_SERVER}: {title}")
    table.add_row(f"{RATE} / {REDIS}", *ratio(mine, its, RATE).cells(1, 2), "≥ 0.9")
    fairness = Spread.of([measured[FAIRNESS] for measured in mine])
    table.add_row(FAIRNESS, *fairness.cells(1, 2), "≥ 0.9")
    console.print(as_table(figures, title), table)
    for name, number in overlaps.items():
        console.print(f"two inside at once, {name}: {number or 'never'}")
    return sum(overlaps.values())


def fill(full: Server, locks: int) -> None:
    """Hold so many locks on one server, and few on the other one; print their memory."""
    assert full.executor.process is not None
    memory = psutil.Process(full.executor.process.pid).memory_info
    hold_many(FEW, FEW_LOCKS)
    empty = memory().rss
    hold_many(FULL, locks)
    held = memory().rss
    acquire = ours(FULL)
    for _ in range(locks):
        pair(acquire)
    table = Table("", "", "asked", title=f"memory, {locks:,} locks held")
    table.add_row("in all", f"{held / 1e6:.1f} MB", "< 100 MB")
    table.add_row("after as many others came and went", f"{memory().rss / 1e6:.1f} MB", "< 100 MB")
    table.add_row("without locks", f"{empty / 1e6:.1f} MB", "")
    table.add_row("a lock", f"{(held - empty) / locks:.0f} bytes", "")
    console.print(table)


def hold_many(alias: str, locks: int) -> None:
    """Hold so many locks for an hour, under the names of many holders."""
    from django_distlock import lock_backends
    from django_distlock.leases.request import describe_holder, new_owner

    backend = lock_backends[alias]
    for number in range(locks):
        holder = describe_holder(f"worker {number % HOLDERS}")
        assert backend.acquire(name_of(number), new_owner(), LASTING, holder)


def name_of(number: int) -> str:
    """Return the semaphore that is held under this number."""
    return f"{number}collectPayment"


def compare_tries(locks: int, rounds: int) -> None:
    """Compare tries on a server with many locks and on one with few."""
    refused, granted = "a refused try", "acquire + release"
    kinds: dict[tuple[str, str], Callable[[], None]] = {}
    for alias, number in ((FEW, FEW_LOCKS), (FULL, locks)):
        kinds[refused, alias] = partial(refuse, alias, number)
        kinds[granted, alias] = partial(pair, ours(alias))
    labels = {
        (kind, alias): f"{kind}, {FEW_LOCKS if alias == FEW else locks:,} locks held"
        for kind, alias in kinds
    }
    batches = measure({labels[key]: call for key, call in kinds.items()}, rounds)
    table = asked(f"{locks:,} locks held: times as long as with {FEW_LOCKS}")
    for kind in (refused, granted):
        compared = quotient(batches[labels[kind, FULL]], batches[labels[kind, FEW]])
        table.add_row(kind, *compared, "≈ 1.0")
    console.print(times(batches), table)


def refuse(alias: str, locks: int) -> None:
    """Try to acquire any of the locks that are held."""
    from django_distlock import acquire_lock

    assert acquire_lock(name_of(random.randrange(locks)), backend=alias) is None


def time_kills(kills: int) -> None:
    """Print how long after the kill of its holder a lock is granted to its waiter."""
    with Crew(1) as waiter:
        seconds = [time_kill(waiter, f"killed {number}") for number in range(kills)]
    table = Table(title=f"{kills} holders killed: milliseconds until the waiter holds")
    table.add_column("", no_wrap=True)
    for heading in ("median", "longest"):
        table.add_column(heading, justify="right")
    table.add_column("asked")
    both = (f"{value * 1000:.1f}" for value in (median(seconds), max(seconds)))
    table.add_row(ENDING, *both, "≤ 50")
    console.print(table)


def time_kill(waiter: Crew, semaphore: str) -> float:
    """Return the seconds between the kill of the holder and the waiter's grant."""
    from django_distlock import lock_backends
    from django_distlock.backends.server import ServerBackend
    from tests.support.concurrency import until

    server = lock_backends[LOCK_SERVER]
    assert isinstance(server, ServerBackend)
    with Crew(1) as holder:
        holder.run(0, hold, semaphore)
        waiter.begin(wait, semaphore)
        until(lambda: server.status()["waiters"] == 1)
        killed = time.monotonic()  # the same clock in all processes
        holder.stop()
    (granted,) = waiter.results(0)
    return float(granted) - killed


def hold(shared: Shared, semaphore: str) -> None:
    """Hold the lock until this process is killed."""
    from django_distlock import acquire_lock

    lease = acquire_lock(semaphore, backend=ENDING)
    assert lease
    kept.append(lease)


def wait(shared: Shared, semaphore: str) -> float:
    """Wait for the lock; return when it was granted."""
    from django_distlock import acquire_lock

    lease = acquire_lock(semaphore, timeout=PATIENCE, backend=ENDING)
    granted = time.monotonic()
    assert lease
    lease.release()
    return granted


def quotient(mine: list[float], its: list[float]) -> list[str]:
    """Return the ratio within each round, as cells."""
    ratios = [one / another for one, another in zip(mine, its, strict=True)]
    return Spread.of(ratios).cells(1, 2)


def asked(title: str) -> Table:
    """Begin a table of medians and quartiles, with their targets."""
    table = spreads(title)
    table.add_column("asked", no_wrap=True)
    return table


if __name__ == "__main__":
    main()
