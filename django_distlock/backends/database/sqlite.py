"""SQLite: one statement per action, on the caller's connection.

A database file has one writer at a time, so a connection of our own would only wait for the
caller's. What the caller's transaction writes to the locks, others see when it commits.
"""

from django.db.backends.base.base import BaseDatabaseWrapper

from ...clocks import NOW
from .statements import Statements

# Within one statement the clock stands still, and it is read after the wait for the file.
ACQUIRE = """
INSERT INTO {table} AS lock (semaphore, owner, token, holder, acquired_at, expires_at)
SELECT %(semaphore)s, %(owner)s, {now}, %(holder)s, {now}, {now} + %(ttl)s
WHERE NOT EXISTS (
    SELECT 1 FROM {table}
    WHERE semaphore = %(semaphore)s AND owner NOT IN ('', %(owner)s)
        AND (expires_at IS NULL OR expires_at > {now})
)
ON CONFLICT (semaphore) DO UPDATE SET
    owner = excluded.owner,
    token = CASE
        WHEN lock.owner = excluded.owner THEN lock.token
        ELSE max(lock.token + 1, excluded.token)
    END,
    holder = excluded.holder,
    acquired_at = excluded.acquired_at,
    expires_at = excluded.expires_at
RETURNING token, acquired_at, expires_at
"""

RENEW = """
UPDATE {table} SET expires_at = {now} + %(ttl)s
WHERE semaphore = %(semaphore)s AND owner = %(owner)s
    AND (expires_at IS NULL OR expires_at > {now})
RETURNING expires_at
"""

RELEASE = """
UPDATE {table} SET owner = '', expires_at = {now}
WHERE semaphore = %(semaphore)s AND owner = %(owner)s
    AND (expires_at IS NULL OR expires_at > {now})
"""


class SQLiteStatements(Statements):
    """INSERT … ON CONFLICT with RETURNING (SQLite 3.35)."""

    def __init__(self, connection: BaseDatabaseWrapper, table: str) -> None:
        self.acquire_sql, self.renew_sql, self.release_sql = (
            sql.format(table=table, now=NOW["sqlite"]) for sql in (ACQUIRE, RENEW, RELEASE)
        )
