"""What one Redis, one PostgreSQL and a Cluster of three carry: measured, simulated, extrapolated.

Rates depend on what else the machine does. So the servers' own processor time is what counts, and
rates only serve to check the simulation: it is fitted to 1 and 32 clients, and has to say what 2
and 8 do.
"""

from __future__ import annotations

import argparse
import threading
import time
from contextlib import contextmanager, suppress
from statistics import median
from typing import TYPE_CHECKING, Final

import django
import psutil
from django.conf import settings
from django.core.management import call_command
from django.db import connections

from benchmarks.queueing import closed_rate, response
from tests.support import postgresql, redis_servers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.servers import Server

CLIENTS: Final = (1, 2, 8, 32)
BATCHES: Final = (10, 100, 1_000, 10_000)
STORES: Final = ("redis", "postgresql")
TTL: Final = 60.0
FULL: Final = 0.7
"""The part of a processor up to which a server is loaded: beyond it, waiting grows fast."""


@contextmanager
def servers() -> Iterator[dict[str, Server]]:
    """Start both servers, and set Django up."""
    with redis_servers.start_redis() as redis, postgresql.start_postgresql(durable=True) as sql:
        place = redis.settings
        location = f"redis://{place['HOST']}:{place['PORT']}/0"
        backend = "django_distlock.backends"
        settings.configure(
            CACHES={
                "default": {
                    "BACKEND": "django.core.cache.backends.redis.RedisCache",
                    "LOCATION": location,
                }
            },
            DATABASES={"default": sql.settings},
            DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
            DISTLOCK={
                "redis": {
                    "BACKEND": f"{backend}.redis.RedisBackend",
                    "OPTIONS": {"cache": "default"},
                },
                "postgresql": {
                    "BACKEND": f"{backend}.database.DatabaseBackend",
                    "OPTIONS": {"connections": max(CLIENTS), "store_timeout": 60},
                },
            },
            INSTALLED_APPS=["django_distlock"],
            USE_TZ=True,
        )
        django.setup()
        call_command("migrate", verbosity=0)
        try:
            yield {"redis": redis, "postgresql": sql}
        finally:
            connections.close_all()


def cpu_seconds(server: Server) -> float:
    """Return the processor time of a server's processes so far, also of those that have ended."""
    process = server.executor.process
    assert process is not None
    main = psutil.Process(process.pid)
    total = 0.0
    for each in (main, *main.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):  # it has ended meanwhile
            total += sum(each.cpu_times()[:4])  # its own, and that of its children that have ended
    return total


def pairs(alias: str, clients: int, seconds: float) -> int:
    """Acquire and release in so many threads; return how many pairs were made."""
    from django_distlock import acquire_lock

    until = time.monotonic() + seconds
    made = [0] * clients

    def work(number: int) -> None:
        while time.monotonic() < until:
            lease = acquire_lock(f"client:{number}", backend=alias, renew=False)
            if lease is not None:  # a busy machine may take 50 ms for a new row: that is refused
                lease.release()
                made[number] += 1
        connections.close_all()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(made)


def measure_rates(alias: str, server: Server, rounds: int) -> tuple[dict[int, float], float]:
    """Return the median pairs a second by the number of clients, and the server's CPU of a pair."""
    rates: dict[int, list[float]] = {clients: [] for clients in CLIENTS}
    pairs(alias, max(CLIENTS), 1)  # opens the connections
    made, before = 0, cpu_seconds(server)
    for _ in range(rounds):
        for clients in CLIENTS:
            began = time.monotonic()
            number = pairs(alias, clients, 1)
            rates[clients].append(number / (time.monotonic() - began))
            made += number
    cpu = (cpu_seconds(server) - before) / made
    return {clients: median(found) for clients, found in rates.items()}, cpu


def measure_renewals(alias: str, server: Server, rounds: int) -> dict[int, float]:
    """Return the server's CPU for a renewal, by how many leases are renewed at once."""
    from django_distlock import lock_backends
    from django_distlock.leases.request import new_owner
    from django_distlock.records import LeaseClaim

    store = lock_backends[alias]
    claims = [LeaseClaim(f"lease:{n}", new_owner(), TTL * 60) for n in range(max(BATCHES))]
    for claim in claims:
        assert store.acquire(claim.semaphore, claim.owner, claim.ttl, "")
    found = {}
    for size in BATCHES:
        turns = rounds * max(1, 3_000 // size)
        before = cpu_seconds(server)
        for _ in range(turns):
            renewals = store.renew(claims[:size])
        assert all(each.renewed for each in renewals.values())
        found[size] = (cpu_seconds(server) - before) / turns / size
    return found


def flush_seconds() -> float:
    """Return how long PostgreSQL takes to have the disk write its log, on average."""
    with connections["default"].cursor() as cursor:
        cursor.execute("SET track_wal_io_timing = on")
        cursor.execute("SELECT pg_stat_reset_shared('wal')")
        cursor.execute("CREATE TABLE flushed (number int)")
        for number in range(200):
            cursor.execute("INSERT INTO flushed VALUES (%s)", [number])
        cursor.execute("DROP TABLE flushed")
        cursor.execute("SELECT pg_stat_force_next_flush()")
        cursor.execute("SELECT wal_sync_time / 1000 / nullif(wal_sync, 0) FROM pg_stat_wal")
        return float(cursor.fetchone()[0] or 0)


def check(rates: dict[int, float], show: Callable[[str], object]) -> float:
    """Compare what the simulation says of 2 and 8 clients; return the greatest error."""
    cycle, bottleneck = 1 / rates[1], 1 / max(rates.values())
    errors = []
    for clients, rate in rates.items():
        simulated = closed_rate(clients, cycle, bottleneck)
        show(f"| {clients} | {rate:,.0f} | {simulated:,.0f} | {simulated / rate - 1:+.0%} |")
        if clients not in (min(CLIENTS), max(CLIENTS)):
            errors.append(abs(simulated / rate - 1))
    return max(errors)


def extrapolate(pair: float, renewal: float, cores: int, show: Callable[[str], object]) -> None:
    """Print what the server's CPU carries, for clients that hold a lock for a minute each."""
    for clients in (1_000, 10_000, 100_000):
        rate, renewed = clients / TTL, clients / (TTL / 3)
        load = rate * pair + renewed * renewal
        # What renewals leave of a processor is there for pairs.
        left = max(1e-9, 1 - renewed * renewal / cores)
        slowest = response(rate, cores, pair / left, 0.99)
        show(f"| {clients:,} | {rate:,.0f} | {renewed:,.0f} | {load:.2f} | {slowest * 1000:.1f} |")


def report(alias: str, server: Server, rounds: int, cores: int) -> float:
    """Measure a store, check the simulation, extrapolate; return the greatest error."""
    rates, pair = measure_rates(alias, server, rounds)
    renewals = measure_renewals(alias, server, rounds)
    print(f"\n## {alias}\n")
    print("| clients | pairs a second, measured | simulated | error |\n|---|---|---|---|")
    error = check(rates, print)
    print(f"\nCPU of the server: {pair * 1e6:.0f} us a pair; of a renewal, by leases at once:")
    print(", ".join(f"{size:,}: {each * 1e6:.1f} us" for size, each in renewals.items()))
    print(f"With {cores} cores for it, at {FULL:.0%}: {cores * FULL / pair:,.0f} pairs a second,")
    print(f"or {cores * FULL / renewals[100] * TTL / 3:,.0f} leases under renewal.")
    if alias == "redis":
        print(f"A Cluster of three: {3 * FULL / pair:,.0f} pairs a second.")
    print()
    print(
        "| clients | pairs a second | renewals a second | cores | p99, ms |\n|---|---|---|---|---|"
    )
    extrapolate(pair, renewals[100], cores, print)
    return error


def main() -> None:
    """Measure both stores and print the tables of docs/explanation/scaling.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--cores", type=int, default=2, help="of PostgreSQL; default: %(default)s")
    options = parser.parse_args()
    with servers() as running:
        for alias in STORES:
            cores = 1 if alias == "redis" else options.cores
            error = report(alias, running[alias], options.rounds, cores)
            print(f"\nGreatest error of the simulation: {error:.0%}")
        flush = flush_seconds()
        print(f"\nA flush of PostgreSQL's log: {flush * 1000:.2f} ms")
        print(f"One client alone: {1 / flush:,.0f} grants a second; others share a flush.")


if __name__ == "__main__":
    main()
