"""PostgreSQL: one statement per action.

`lock_timeout` and `synchronous_commit` are set for the statement's own transaction, which is also
right behind a pooler that hands each transaction another session. Parameters have their types, so
that the statements can be prepared: parsing and planning took two thirds of their time.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from time import sleep
from typing import Any, Final

from django.db.backends.base.base import BaseDatabaseWrapper

from django_distlock import clocks
from django_distlock.clocks import NOW
from django_distlock.models import KEPT, LockPause, LockWaiter, WaitingProcess

from .errors import MissingTable
from .own_connection import is_behind_pooler
from .queue import QueueStatements, queue_values
from .statements import Parameters, unpack

# The pauses in force. In no order: a sort, even of nothing, would cost each attempt a little.
PAUSED = """
{pauses} WHERE starts_with(%(semaphore)s::varchar, prefix) AND (until IS NULL OR until > {now})
"""

# `refusing` makes a refused attempt read-only: no row lock, no WAL.
# Each clock in DO UPDATE is read after the wait for the row; that of `excluded` is older.
ACQUIRE = """
WITH refusing AS (
    SELECT
        CASE owner WHEN '{kept}' THEN 'kept' ELSE 'held' END AS answer,
        token, acquired_at, expires_at, holder
    FROM {table}
    WHERE semaphore = %(semaphore)s::varchar AND owner NOT IN ('', %(owner)s::varchar)
        AND (expires_at IS NULL OR expires_at > {now})
    UNION ALL SELECT 'paused', NULL, NULL, until, reason FROM {paused}
), granted AS (
    INSERT INTO {table} AS lock (semaphore, owner, token, holder, acquired_at, expires_at)
    SELECT
        %(semaphore)s::varchar, %(owner)s::varchar, {now}, %(holder)s::text,
        {now}, {now} + %(ttl)s::bigint
    FROM set_config('lock_timeout', '50ms', true)
    WHERE NOT EXISTS (SELECT FROM refusing) AND NOT EXISTS (
        SELECT FROM {waiters} AS waiter
        JOIN {processes} AS process ON process.id = waiter.process
        WHERE waiter.semaphore = %(semaphore)s::varchar AND waiter.id < %(place)s::bigint
            AND process.seen_at > {now} - {alive}
    ) OR EXISTS (
        SELECT FROM {table}
        WHERE semaphore = %(semaphore)s::varchar AND owner = %(owner)s::varchar
            AND acquired_at IS NOT NULL AND (expires_at IS NULL OR expires_at > {now})
    )
    ON CONFLICT (semaphore) DO UPDATE SET
        owner = excluded.owner,
        token = CASE
            WHEN lock.owner = excluded.owner THEN lock.token
            ELSE greatest(lock.token + 1, {now})
        END,
        holder = excluded.holder,
        acquired_at = {now},
        renewed_at = NULL,
        expires_at = {now} + %(ttl)s::bigint
    WHERE lock.owner IN ('', excluded.owner) OR lock.expires_at <= {now}
    RETURNING lock.token, lock.acquired_at, lock.expires_at
)
SELECT 'granted', token, acquired_at, expires_at, '', 0 FROM granted
UNION ALL SELECT answer, token, acquired_at, expires_at, holder, {now} FROM refusing
"""

# `mine` has the rows that were committed when the statement began, locked or not. They are grouped,
# not joined: the planner expects a row or two of a CTE, and would compare each with each.
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
    UPDATE {table} AS lock SET renewed_at = {now}, expires_at = {now} + ttl
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

# If a crash of the server loses a release, the lease ends with its ttl. Without a ttl, flush.
RELEASE = """
UPDATE {table} SET owner = %(after)s::varchar, expires_at = {now} + %(keep)s::bigint
FROM set_config('lock_timeout', '50ms', true) AS wait, set_config(
    'synchronous_commit',
    CASE WHEN %(ttl)s::bigint IS NULL THEN current_setting('synchronous_commit') ELSE 'off' END,
    true
) AS durability
WHERE semaphore = %(semaphore)s::varchar AND owner = %(owner)s::varchar
    AND (expires_at IS NULL OR expires_at > {now})
    AND (
        %(keep)s::bigint > 0
        OR NOT EXISTS (SELECT FROM {waiters} WHERE semaphore = %(semaphore)s::varchar)
    )
"""

GUARD = """
SELECT 1 FROM {table}
WHERE semaphore = %(semaphore)s AND owner = %(owner)s
    AND (expires_at IS NULL OR expires_at > {now})
FOR SHARE
"""

# Those that change locks at this moment. Each has locked the table before it looked at the pauses.
CHANGING = """
SELECT virtualtransaction FROM pg_locks
WHERE relation = %(table)s::regclass AND mode = 'RowExclusiveLock' AND pid <> pg_backend_pid()
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""

LONGEST_ATTEMPT: Final = 1.0
"""Seconds after which a statement is no attempt to acquire, but somebody's transaction."""
LOOK_EVERY: Final = 0.005
"""Seconds."""

QUALIFIED_NAME = """
SELECT quote_ident(nspname) || '.' || quote_ident(relname)
FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE pg_class.oid = to_regclass(%s)
"""

# Where sessions are SERIALIZABLE or REPEATABLE READ by default, contention would be an error.
READ_COMMITTED = "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL READ COMMITTED"


def binding_on_server(cursor: Any) -> Any:
    """Return a cursor for the same connection that sends parameters apart from their statement.

    Otherwise the owner would be shown in pg_stat_activity and in the server's log of errors.
    psycopg 2 can only write parameters into the statement.
    """
    from django.db.backends.postgresql.psycopg_any import is_psycopg3

    if not is_psycopg3:
        return cursor
    from psycopg import Cursor
    from psycopg.rows import tuple_row

    return Cursor(cursor.connection, row_factory=tuple_row)


class PostgreSQLStatements(QueueStatements):
    """INSERT … ON CONFLICT with RETURNING, on a table whose name has its schema.

    With the schema in the name, a tenant's search_path does not split a lock.
    """

    cleans_pages = True

    def __init__(self, connection: BaseDatabaseWrapper, table: str) -> None:
        super().__init__(connection, table)
        names = {
            "table": table,
            "waiters": connection.ops.quote_name(LockWaiter._meta.db_table),
            "processes": connection.ops.quote_name(WaitingProcess._meta.db_table),
            "pauses": connection.ops.quote_name(LockPause._meta.db_table),
        }
        with connection.cursor() as cursor:
            for key, name in names.items():
                cursor.execute(QUALIFIED_NAME, [name])
                found = cursor.fetchone()
                if not found:
                    raise MissingTable(f"there is no table {name}")
                names[key] = found[0]
            cursor.execute("SELECT pg_get_serial_sequence(%s, 'id')", [names["waiters"]])
            [names["ids"]] = cursor.fetchone()
        values: dict[str, Any] = {"now": NOW["postgresql"], "kept": KEPT, **names, **queue_values()}
        values["paused"] = PAUSED.strip().format(**values)
        values["next_waiter"] = values["next_waiter"].format(**values)

        def complete(sql: str) -> str:
            return sql.format(**values)

        self.acquire_sql, self.renew_sql = complete(ACQUIRE), complete(RENEW)
        self.release_sql, self.guard_sql = complete(RELEASE), complete(GUARD)
        self._table = names["table"]
        self.complete_queue(complete)
        self._complete = complete

    def use(self, cursor: Any) -> None:
        super().use(binding_on_server(cursor))
        if not is_behind_pooler(self.connection.settings_dict):  # where others share the session
            self.execute(READ_COMMITTED, {})

    def _checked_cursor(self) -> Any:
        return binding_on_server(super()._checked_cursor())

    def has_all_characters(self) -> bool:
        driver: Any = self.connection.connection
        return driver.info.parameter_status("server_encoding") in ("UTF8", "SQL_ASCII")

    def renew(self, parameters: Parameters) -> list[tuple[str, bool, int | None]]:
        if len(unpack(parameters)) == 1:
            return super().renew(parameters)
        # A plan for a few rows compares each lease with each row: 1,000 leases among 10,000 rows
        # took 1.4 seconds.
        with self._unprepared():
            return super().renew(parameters)

    def wait_for_attempts(self) -> None:
        deadline = clocks.monotonic() + LONGEST_ATTEMPT
        table = {"table": self._table}
        running = {*self.fetch(CHANGING, table)}
        while running and clocks.monotonic() < deadline:
            sleep(LOOK_EVERY)
            running &= {*self.fetch(CHANGING, table)}

    def clean(self, sql: str, parameters: Parameters) -> list[Any]:
        """Change a page of rows by a statement of cleaning.py."""
        with self._unprepared():
            return self.fetch(self._complete(sql), parameters)

    @contextmanager
    def _unprepared(self) -> Iterator[None]:
        """Prepare no statement in the block: its plan would be kept when the table grows."""
        driver: Any = self.connection.connection
        threshold = getattr(driver, "prepare_threshold", None)
        if threshold is None:  # psycopg 2 prepares nothing
            yield
            return
        driver.prepare_threshold = None
        try:
            yield
        finally:
            driver.prepare_threshold = threshold
