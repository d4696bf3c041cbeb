"""The cost of a change: acquire and release with the package of two checkouts, in turns.

Each checkout has a process and servers of its own; both processes are on one processor, the servers
on the others. A ratio is taken between two batches that follow each other; its median and quartiles
are over the rounds. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from rich.console import Console

from benchmarks.pair import Spread, spreads
from tests.support import mariadb, postgresql, redis_servers

if TYPE_CHECKING:
    from collections.abc import Iterator

WORKER = Path(__file__).with_name("checkout_worker.py")
BACKENDS = {
    "memory": {"BACKEND": "django_distlock.backends.memory.MemoryBackend"},
    "sqlite": {
        "BACKEND": "django_distlock.backends.database.DatabaseBackend",
        "OPTIONS": {"using": "sqlite"},
    },
    "redis": {
        "BACKEND": "django_distlock.backends.redis.RedisBackend",
        "OPTIONS": {"cache": "redis"},
    },
    "postgresql": {
        "BACKEND": "django_distlock.backends.database.DatabaseBackend",
        "OPTIONS": {"using": "postgresql"},
    },
    "mariadb": {
        "BACKEND": "django_distlock.backends.database.DatabaseBackend",
        "OPTIONS": {"using": "mariadb"},
    },
}
BATCHES = {"memory": 200, "sqlite": 20, "redis": 40, "postgresql": 20, "mariadb": 20}
"""How many pairs are made in a turn."""
KINDS = ("pair", "block", "call")

console = Console()


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("old", type=Path, help="a checkout to compare with")
    parser.add_argument("new", type=Path, nargs="?", default=Path.cwd(), help="default: this one")
    parser.add_argument("--stores", choices=BATCHES, nargs="+", default=list(BATCHES))
    parser.add_argument("--kinds", choices=KINDS, nargs="+", default=["pair"])
    parser.add_argument("--rounds", type=int, default=100, help="default: %(default)s")
    options = parser.parse_args()
    # A client takes twice as long, or half, when its server happens to run on the same processor.
    first, *others = os.sched_getaffinity(0)
    os.sched_setaffinity(0, others or {first})
    with ExitStack() as stack:
        old, new = (
            # With servers of its own, because the tables may have changed.
            stack.enter_context(
                Worker(checkout, stack.enter_context(servers(options.stores)), first)
            )
            for checkout in (options.old, options.new)
        )
        table = spreads("times as long as before")
        for store in options.stores:
            for kind in options.kinds:
                found = compare(old, new, f"{kind} {store} {BATCHES[store]}", options.rounds)
                table.add_row(f"{store}, {kind}", *found.cells(1, 3))
    console.print(table)


class Worker:
    """A process that uses the package of one checkout."""

    def __init__(self, checkout: Path, configured: dict[str, Any], processor: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, WORKER],
            cwd=checkout,
            env={**os.environ, "PYTHONPATH": str(checkout.resolve())},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        os.sched_setaffinity(self._process.pid, {processor})
        self.run(json.dumps(configured))

    def run(self, command: str) -> float:
        """Return the seconds that a batch took."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.communicate()


def compare(old: Worker, new: Worker, command: str, rounds: int) -> Spread:
    """Return how many times as long the new one takes, after a round to warm up."""
    ratios = []
    for _ in range(rounds + 1):
        taken = {worker: worker.run(command) for worker in random.sample((old, new), 2)}
        ratios.append(taken[new] / taken[old])
    return Spread.of(ratios[1:])


@contextmanager
def servers(stores: list[str]) -> Iterator[dict[str, Any]]:
    """Start what the stores need, and return the settings that use it."""
    databases: dict[str, Any] = {}
    caches: dict[str, Any] = {}
    with ExitStack() as stack:
        directory = stack.enter_context(TemporaryDirectory(prefix="distlock-benchmark-"))
        databases["default"] = databases["sqlite"] = {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": f"{directory}/locks.sqlite3",
            "OPTIONS": {"init_command": "PRAGMA journal_mode = WAL;"},
        }
        if "postgresql" in stores:
            databases["postgresql"] = stack.enter_context(postgresql.start_postgresql()).settings
        if "mariadb" in stores:
            databases["mariadb"] = stack.enter_context(mariadb.start_mariadb()).settings
        if "redis" in stores:
            place = stack.enter_context(redis_servers.start_redis()).settings
            caches["redis"] = {
                "BACKEND": "django.core.cache.backends.redis.RedisCache",
                "LOCATION": f"redis://{place['HOST']}:{place['PORT']}/0",
            }
        yield {
            "CACHES": caches,
            "DATABASES": databases,
            "DEFAULT_AUTO_FIELD": "django.db.models.BigAutoField",
            "DISTLOCK": {store: BACKENDS[store] for store in stores},
            "INSTALLED_APPS": ["django_distlock"],
            "USE_TZ": True,
        }


if __name__ == "__main__":
    main()
