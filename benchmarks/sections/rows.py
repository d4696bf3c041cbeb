"""Acquire and release in a database whose table of locks is nearly empty, and full."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from django.db import connections

from benchmarks.contenders import BARE, CONTENDERS, OURS
from benchmarks.every_store import DATABASES, MARIADB, POSTGRESQL, SQLITE
from benchmarks.floors import floor

from .pairs import pair
from .turns import Effort, Kind, figures, repeat

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.report.figures import Figure

ROWS = "rows"
NUMBERS = {
    POSTGRESQL: "SELECT generate_series(%s, %s) AS n",
    MARIADB: "SELECT seq AS n FROM seq_0_to_999999 WHERE seq BETWEEN %s AND %s",
    SQLITE: """
        WITH RECURSIVE numbers(n) AS (VALUES (%s) UNION ALL SELECT n + 1 FROM numbers WHERE n < %s)
        SELECT n FROM numbers
    """,
}
"""The query for a range of numbers."""
TIDYING = {
    POSTGRESQL: ["VACUUM ANALYZE distlock_lock", "CHECKPOINT"],
    MARIADB: ["ANALYZE TABLE distlock_lock"],
    SQLITE: ["ANALYZE", "PRAGMA wal_checkpoint(TRUNCATE)"],
}
"""What a database does by itself sooner or later."""
INSERT = """
    INSERT INTO distlock_lock (semaphore, owner, token, holder, acquired_at, renewed_at, expires_at)
    SELECT {name}, '', n, 'invoices (web-1 pid 4711)', 1700000000000000, NULL, 1700000001000000
    FROM ({numbers}) AS numbers
"""
NAMES = {MARIADB: "CONCAT('customer:', n, ':collect')"}
"""How a semaphore is made of a number, unless as in standard SQL."""
SIZES = (10, 1_000, 100_000, 1_000_000)


def measure(stores: Sequence[str], effort: Effort) -> list[Figure]:
    """Measure the pair among ever more rows of released locks, and the bare calls in turns."""
    floors = {store: floor(store) for store in stores if store in DATABASES}
    found = []
    rows = 0
    for size in [size for size in SIZES if size <= effort.most]:
        batches = {}
        for store, bare in floors.items():
            fill(store, rows, size)
            case = f"{size:,} rows"
            batches[Kind(store, OURS, case)] = repeat(partial(pair, CONTENDERS[store]()))
            batches[Kind(store, BARE, case)] = repeat(bare.pair)
        rows = size
        found += figures(ROWS, batches, max(2, effort.rounds // 2))
    return found


def fill(store: str, first: int, end: int) -> None:
    """Insert the locks of these numbers, and let the database take note of how many it has."""
    name = NAMES.get(store, "'customer:' || n || ':collect'")
    with connections[DATABASES[store]].cursor() as cursor:
        sql = INSERT.format(name=name, numbers=NUMBERS[store])
        cursor.execute(sql, [first, end - 1])
        for statement in TIDYING[store]:
            cursor.execute(statement)
