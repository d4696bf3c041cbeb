"""Fill a database with locks that were released long ago, as in a table that is never purged."""

from __future__ import annotations

from django.db import connections

NUMBERS = {
    "postgresql": "generate_series({first}, {last}) AS numbers (n)",
    "mysql": "(SELECT seq AS n FROM seq_{first}_to_{last}) AS numbers",
    "sqlite": """(
        WITH RECURSIVE counted (n) AS (
            VALUES ({first}) UNION ALL SELECT n + 1 FROM counted WHERE n < {last}
        )
        SELECT n FROM counted
    )""",
}
"""The numbers from the first to the last, as a table, by the vendor."""
NAME = {"mysql": "concat('customer:', n, ':collect')"}
"""How a semaphore is made of a number, unless as in standard SQL."""
INSERT = """
INSERT INTO distlock_lock (semaphore, owner, token, holder, acquired_at, expires_at)
SELECT {name}, '', n, 'invoices (web-1 pid 4711 MainThread)', 1700000000000000, 1700000060000000
FROM {numbers}
"""
TIDYING = {
    "postgresql": ["VACUUM ANALYZE distlock_lock", "CHECKPOINT"],
    "mysql": ["ANALYZE TABLE distlock_lock"],
    "sqlite": ["ANALYZE", "PRAGMA wal_checkpoint(TRUNCATE)"],
}
"""What a database does by itself sooner or later."""


def fill(alias: str, first: int, last: int) -> None:
    """Write the locks with these numbers, and let the database tidy up."""
    vendor = connections[alias].vendor
    name = NAME.get(vendor, "'customer:' || n || ':collect'")
    numbers = NUMBERS[vendor].format(first=first, last=last)
    with connections[alias].cursor() as cursor:
        for statement in (INSERT.format(name=name, numbers=numbers), *TIDYING[vendor]):
            cursor.execute(statement)
