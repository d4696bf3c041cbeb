"""PostgreSQL: one statement per action.

`lock_timeout` and `synchronous_commit` are set for the statement's own transaction, which is also
right behind a pooler that hands each transaction another session. Parameters have their types, so
that the statements can be prepared: parsing and planning took two thirds of their time.
"""

from django.db import ProgrammingError
from django.db.backends.base.base import BaseDatabaseWrapper

from ...clocks import NOW
from .statements import Statements

# The NOT EXISTS makes a refused try read-only: no row lock, no WAL.
# Each clock in the DO UPDATE is read after the wait for the row, `excluded` has an older one.
ACQUIRE = """
INSERT INTO {table} AS lock (semaphore, owner, token, holder, acquired_at, expires_at)
SELECT
    %(semaphore)s::varchar, %(owner)s::varchar, {now}, %(holder)s::text,
    {now}, {now} + %(ttl)s::bigint
FROM set_config('lock_timeout', '50ms', true)
WHERE NOT EXISTS (
    SELECT FROM {table}
    WHERE semaphore = %(semaphore)s::varchar AND owner NOT IN ('', %(owner)s::varchar)
        AND (expires_at IS NULL OR expires_at > {now})
)
ON CONFLICT (semaphore) DO UPDATE SET
    owner = excluded.owner,
    token = CASE
        WHEN lock.owner = excluded.owner THEN lock.token
        ELSE greatest(lock.token + 1, {now})
    END,
    holder = excluded.holder,
    acquired_at = {now},
    expires_at = {now} + %(ttl)s::bigint
WHERE lock.owner IN ('', excluded.owner) OR lock.expires_at <= {now}
RETURNING lock.token, lock.acquired_at, lock.expires_at
"""

# `mine` is what was committed when the statement began, locked or not. Grouped, not joined: the
# planner takes a CTE for a row or two, and would compare each with each.
RENEW = """
WITH lease AS (
    SELECT semaphore, owner, ttl
    FROM set_config('lock_timeout', '50ms', true), jsonb_to_recordset(%(leases)s::jsonb)
        AS lease (semaphore varchar, owner varchar, ttl bigint)
), mine AS (
    SELECT owner, expires_at FROM {table} JOIN lease USING (semaphore, owner)
    WHERE expires_at IS NULL OR expires_at > {now}
), unlocked AS (
    SELECT semaphore, ttl FROM {table} AS lock JOIN lease USING (semaphore, owner)
    WHERE expires_at IS NULL OR expires_at > {now}
    FOR NO KEY UPDATE OF lock SKIP LOCKED
), renewed AS (
    UPDATE {table} AS lock SET expires_at = {now} + ttl
    FROM unlocked WHERE lock.semaphore = unlocked.semaphore
    RETURNING owner, expires_at
)
SELECT owner, bool_or(renewed), coalesce(max(renewed_until), max(until))
FROM (
    SELECT owner, false AS renewed, expires_at AS until, NULL::bigint AS renewed_until FROM mine
    UNION ALL SELECT owner, true, NULL, expires_at FROM renewed
) AS both_ends
GROUP BY owner
"""

# A release that a crash of the server loses is made good by the end of the ttl, if there is one.
RELEASE = """
UPDATE {table} SET owner = %(after)s::varchar, expires_at = {now} + %(keep)s::bigint
FROM set_config('lock_timeout', '50ms', true) AS wait, set_config(
    'synchronous_commit',
    CASE WHEN %(ttl)s::bigint IS NULL THEN current_setting('synchronous_commit') ELSE 'off' END,
    true
) AS durability
WHERE semaphore = %(semaphore)s::varchar AND owner = %(owner)s::varchar
    AND (expires_at IS NULL OR expires_at > {now})
"""

GUARD = """
SELECT 1 FROM {table}
WHERE semaphore = %(semaphore)s AND owner = %(owner)s
    AND (expires_at IS NULL OR expires_at > {now})
FOR SHARE
"""

QUALIFIED_NAME = """
SELECT quote_ident(nspname) || '.' || quote_ident(relname)
FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE pg_class.oid = to_regclass(%s)
"""


class PostgreSQLStatements(Statements):
    """INSERT … ON CONFLICT with RETURNING, on a table whose name has its schema.

    With the schema in the name, a tenant's search_path does not split a lock.
    """

    def __init__(self, connection: BaseDatabaseWrapper, table: str) -> None:
        super().__init__(connection, table)
        with connection.cursor() as cursor:
            cursor.execute(QUALIFIED_NAME, [table])
            found = cursor.fetchone()
        if not found:
            raise ProgrammingError(f"there is no table {table}: run manage.py migrate")
        self.acquire_sql, self.renew_sql, self.release_sql, self.guard_sql = (
            sql.format(table=found[0], now=NOW["postgresql"])
            for sql in (ACQUIRE, RENEW, RELEASE, GUARD)
        )
