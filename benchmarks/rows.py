"""The cost of a lock among a million others, compared with one among ten, on the same server.

Both take turns, in two databases of one server: acquire and release, the same for one of all locks
at random, and a refused try. See benchmarks.pair for how it is measured.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import django
from django.conf import settings
from django.core.management import call_command
from django.db import connections
from rich.console import Console

from benchmarks import databases, stores
from benchmarks.pair import measure, ratios, times
from benchmarks.released_locks import fill
from tests.support import redis_servers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FEW, MANY = "few", "many"
ROWS = {FEW: 10, MANY: 1_000_000}
PAIR, ANY, REFUSAL = "acquire + release", "the same, any lock", "a refused try"
console = Console()


def main() -> None:
    """Measure, and print tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", choices=stores.STORES, default="postgresql")
    parser.add_argument("--rows", type=int, default=ROWS[MANY], help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=30, help="default: %(default)s")
    options = parser.parse_args()
    batches = run(options.store, options.rows, options.rounds)
    compared = [(f"{name}, {MANY}", f"{name}, {FEW}") for name in (PAIR, ANY, REFUSAL)]
    console.print(f"{options.store}: {ROWS[FEW]} and {options.rows:,} rows")
    console.print(times(batches), ratios(batches, compared))


def run(store: str, rows: int, rounds: int) -> dict[str, list[float]]:
    """Return for each kind of call its seconds in each round."""
    from django_distlock import acquire_lock

    with two_stores(store, rows):
        held = [acquire_lock("held", ttl=None, backend=alias) for alias in ROWS]
        try:
            return measure(make_kinds(rows), rounds)
        finally:
            for lease in filter(None, held):
                lease.release()


@contextmanager
def two_stores(kind: str, rows: int) -> Iterator[None]:
    """Set Django up with two stores on one server, with ten locks and with so many."""
    if kind == stores.REDIS:
        with redis(rows):
            yield
        return
    with two_databases(kind) as found:
        set_up("database.DatabaseBackend", "using", DATABASES={"default": found[FEW], **found})
        try:
            fill_database(FEW, ROWS[FEW])
            fill_database(MANY, rows)
            yield
        finally:
            connections.close_all()


@contextmanager
def redis(rows: int) -> Iterator[None]:
    """See two_stores()."""
    stores.hide_hiredis()
    with redis_servers.start_redis() as server:
        location = f"redis://{server.settings['HOST']}:{server.settings['PORT']}"
        caches = {
            alias: {"BACKEND": stores.CACHES["django"], "LOCATION": f"{location}/{db}"}
            for db, alias in enumerate(ROWS)
        }
        set_up("redis.RedisBackend", "cache", CACHES=caches)
        for db, number in enumerate((ROWS[FEW], rows)):
            key = "distlock:{customer:#:collect}:token"
            redis_servers.fill(server, number, "SET", key, "#", db=db)
        yield


@contextmanager
def two_databases(kind: str) -> Iterator[dict[str, dict[str, Any]]]:
    """Yield the settings of two databases; those of a server are on the same one."""
    if kind == "sqlite":
        with tempfile.TemporaryDirectory(prefix="distlock-benchmark-") as directory:
            yield {
                alias: databases.sqlite_settings(Path(directory, f"{alias}.sqlite3"))
                for alias in ROWS
            }
    else:
        with databases.STARTERS[kind](durable=True) as server:
            yield {FEW: server.settings, MANY: {**server.settings, "NAME": MANY}}


def set_up(backend: str, place: str, **more: Any) -> None:
    """Configure a store for each alias; `place` is the option that says where it keeps locks."""
    settings.configure(
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        DISTLOCK={
            alias: {"BACKEND": f"django_distlock.backends.{backend}", "OPTIONS": {place: alias}}
            for alias in ROWS
        },
        INSTALLED_APPS=["django_distlock"],
        USE_TZ=True,
        **more,
    )
    django.setup()


def fill_database(alias: str, rows: int) -> None:
    """Create the table, in a new database if need be, and write released locks into it."""
    vendor = connections[alias].vendor
    if alias == MANY and vendor != "sqlite":
        with connections[FEW].cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {MANY}")
    call_command("migrate", database=alias, verbosity=0)
    fill(alias, 1, rows)


def make_kinds(rows: int) -> dict[str, Callable[[], None]]:
    """Return what to measure by its name."""
    from django_distlock import acquire_lock

    def pair(alias: str, wanted: int) -> None:
        number = random.randint(1, wanted)
        lease = acquire_lock(f"customer:{number}:collect", backend=alias)
        assert lease
        assert lease.release()

    def refuse(alias: str) -> None:
        assert acquire_lock("held", backend=alias) is None

    kinds: dict[str, Callable[[], None]] = {}
    for alias, wanted in {FEW: ROWS[FEW], MANY: rows}.items():
        kinds[f"{PAIR}, {alias}"] = partial(pair, alias, 1)
        kinds[f"{ANY}, {alias}"] = partial(pair, alias, wanted)
        kinds[f"{REFUSAL}, {alias}"] = partial(refuse, alias)
    return kinds


if __name__ == "__main__":
    main()
