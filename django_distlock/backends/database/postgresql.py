"""PostgreSQL: one statement per action.

`lock_timeout` and `synchronous_commit` are set for the statement's own transaction, which is also
right behind a pooler that hands each transaction another session. Parameters have their types, so
that the statements can be prepared: parsing and planning took two thirds of their time.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

from django.db.backends.base.base import BaseDatabaseWrapper

from django_distlock.clocks import NOW
from django_distlock.models import LockWaiter, WaitingProcess

from .connections import is_behind_pooler
from .errors import MissingTable
from .statements import HandOver, Parameters, Row, Statements, unpack

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
) AND (
    NOT EXISTS (
        SELECT FROM {waiters} AS waiter JOIN {processes} AS process ON process.id = waiter.process
        WHERE waiter.semaphore = %(semaphore)s::varchar AND waiter.id < %(place)s::bigint
            AND process.seen_at > {now} - {alive}
    ) OR EXISTS (
        SELECT FROM {table}
        WHERE semaphore = %(semaphore)s::varchar AND owner = %(owner)s::varchar
    )
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

# Who has waited longest of those that live, taken from the queue, if the lock can be `given`.
NEXT_WAITER = """
    DELETE FROM {waiters} WHERE id = (
        SELECT waiter.id
        FROM {waiters} AS waiter JOIN {processes} AS process ON process.id = waiter.process
        WHERE waiter.semaphore = %(semaphore)s::varchar AND process.seen_at > {now} - {alive}
            AND EXISTS (SELECT FROM given)
        ORDER BY waiter.id LIMIT 1
        FOR UPDATE OF waiter
    )
    RETURNING owner, holder, process, number
"""

# The release, if somebody waits: `given` is the row if it is ours, and locked before the first of
# the living waiters is looked for. That one has to take what it is offered before the offer ends.
HAND_OVER = """
WITH given AS (
    SELECT semaphore
    FROM {table} AS lock, set_config('lock_timeout', '50ms', true) AS wait, set_config(
        'synchronous_commit',
        CASE WHEN %(ttl)s::bigint IS NULL THEN current_setting('synchronous_commit') ELSE 'off' END,
        true
    ) AS durability
    WHERE semaphore = %(semaphore)s::varchar AND owner = %(owner)s::varchar
        AND (expires_at IS NULL OR expires_at > {now})
    FOR NO KEY UPDATE OF lock
), next AS (
    {next_waiter}
)
UPDATE {table} AS lock SET
    owner = coalesce(next.owner, ''),
    token = CASE
        WHEN next.owner IS NULL THEN lock.token
        ELSE greatest(lock.token + 1, {now})
    END,
    holder = coalesce(next.holder, lock.holder),
    acquired_at = CASE WHEN next.owner IS NULL THEN lock.acquired_at ELSE {now} END,
    expires_at = {now} + CASE WHEN next.owner IS NULL THEN 0 ELSE {offer} END
FROM given LEFT JOIN next ON true
WHERE lock.semaphore = given.semaphore
RETURNING
    next.owner IS NOT NULL,
    CASE WHEN next.owner IS NOT NULL
        THEN pg_notify('distlock_' || next.process, next.number::text)::text
    END,
    next.owner IS NULL
        AND EXISTS (SELECT FROM {waiters} WHERE semaphore = %(semaphore)s::varchar)
"""

# The same, of a lock that nobody holds.
HAND_ON = """
WITH given AS (
    SELECT semaphore
    FROM {table} AS lock, set_config('lock_timeout', '50ms', true) AS wait,
        set_config('synchronous_commit', 'off', true) AS durability
    WHERE semaphore = %(semaphore)s::varchar AND (owner = '' OR expires_at <= {now})
    FOR NO KEY UPDATE OF lock
), next AS (
    {next_waiter}
)
UPDATE {table} AS lock SET
    owner = next.owner, token = greatest(lock.token + 1, {now}), holder = next.holder,
    acquired_at = {now}, expires_at = {now} + {offer}
FROM given, next
WHERE lock.semaphore = given.semaphore
RETURNING pg_notify('distlock_' || next.process, next.number::text)::text
"""

# What was offered, taken: an acquisition by the same owner, of which the row is known to be there.
TAKE = """
UPDATE {table} SET acquired_at = {now}, expires_at = {now} + %(ttl)s::bigint
FROM set_config('lock_timeout', '50ms', true) AS wait
WHERE semaphore = %(semaphore)s::varchar AND owner = %(owner)s::varchar AND expires_at > {now}
RETURNING token, acquired_at, expires_at
"""

# Waiters need not survive a crash of the server: they notice, and join again. No lock of the row is
# taken, for which the next holder would wait: who joins during a release may be overlooked by it,
# if nobody else waits. Who joins `again`, as the reply was lost, may be there, or have the offer.
JOIN = """
WITH vouched AS (
    INSERT INTO {processes} (id, seen_at)
    SELECT %(process)s::bigint, {now} WHERE %(vouch)s::bool
    ON CONFLICT (id) DO UPDATE SET seen_at = excluded.seen_at
), there AS (
    SELECT id FROM {waiters} WHERE semaphore = %(semaphore)s::varchar AND owner = %(owner)s::varchar
), joined AS (
    INSERT INTO {waiters} (id, semaphore, owner, holder, process, number)
    SELECT
        coalesce(%(place)s::bigint, nextval('{ids}')), %(semaphore)s::varchar, %(owner)s::varchar,
        %(holder)s::text, %(process)s::bigint, %(number)s::bigint
    FROM set_config('synchronous_commit', 'off', true)
    WHERE NOT (%(again)s::bool AND EXISTS (SELECT FROM there))
    ON CONFLICT (id) DO NOTHING
    RETURNING id
)
SELECT
    coalesce((SELECT id FROM joined), %(place)s::bigint, (SELECT id FROM there LIMIT 1)),
    NOT EXISTS (
        SELECT FROM {table}
        WHERE semaphore = %(semaphore)s::varchar AND owner NOT IN ('', %(owner)s::varchar)
            AND (expires_at IS NULL OR expires_at > {now})
    ),
    NOT EXISTS (SELECT FROM {waiters} WHERE semaphore = %(semaphore)s::varchar)
"""

LEAVE = """
DELETE FROM {waiters} USING set_config('synchronous_commit', 'off', true) AS durability
WHERE id = %(place)s::bigint
"""

# Which of the waiters are still in the queue, and in how many microseconds their locks end.
VOUCH = """
WITH vouched AS (
    INSERT INTO {processes} (id, seen_at)
    SELECT %(process)s::bigint, {now} FROM set_config('synchronous_commit', 'off', true)
    ON CONFLICT (id) DO UPDATE SET seen_at = excluded.seen_at
)
SELECT
    pg_backend_pid(), waiter.id, waiter.semaphore,
    CASE WHEN lock.owner = '' THEN 0 ELSE lock.expires_at - {now} END
FROM (SELECT) AS session
LEFT JOIN (
    {waiters} AS waiter LEFT JOIN {table} AS lock ON lock.semaphore = waiter.semaphore
) ON waiter.id = ANY (%(places)s::bigint[])
"""

OF_PROCESS = "SELECT id, number FROM {waiters} WHERE process = %(process)s::bigint"

# Those of processes that were not heard of for so long. Who is only slow joins again.
SWEEP = """
WITH dead AS (
    SELECT waiter.id
    FROM {waiters} AS waiter LEFT JOIN {processes} AS process ON process.id = waiter.process
    WHERE coalesce(process.seen_at, 0) < {now} - %(silent)s::bigint
    FOR UPDATE OF waiter SKIP LOCKED
), silent AS (
    DELETE FROM {processes} WHERE seen_at < {now} - {forgotten}
)
DELETE FROM {waiters} AS waiter USING dead WHERE waiter.id = dead.id
"""

FORGET = """
DELETE FROM {processes} USING set_config('synchronous_commit', 'off', true) AS durability
WHERE id = %(process)s::bigint
"""

QUALIFIED_NAME = """
SELECT quote_ident(nspname) || '.' || quote_ident(relname)
FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE pg_class.oid = to_regclass(%s)
"""

OFFER: Final = 400_000
"""Microseconds for which a lock is offered to who waits for it."""
ALIVE: Final = 700_000
"""Microseconds for which a process that waits counts as alive unless it is heard of."""
TICK: Final = 0.25
"""Seconds after which it is."""
FORGOTTEN: Final = 3_600_000_000

LAST: Final = 2**63 - 1
"""The place of who is in no queue."""


# Where sessions are SERIALIZABLE or REPEATABLE READ by default, contention would be an error.
READ_COMMITTED = "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL READ COMMITTED"


def binding_on_server(cursor: Any) -> Any:
    """Return a cursor for the same connection that sends parameters apart from their statement.

    Who may see all sessions' statements (pg_stat_activity, the server's log of errors) would see
    the owner in them. psycopg 2 knows no other way than to write parameters into the statement.
    """
    from django.db.backends.postgresql.psycopg_any import is_psycopg3

    if not is_psycopg3:
        return cursor
    from psycopg import Cursor
    from psycopg.rows import tuple_row

    return Cursor(cursor.connection, row_factory=tuple_row)


class PostgreSQLStatements(Statements):
    """INSERT … ON CONFLICT with RETURNING, on a table whose name has its schema.

    With the schema in the name, a tenant's search_path does not split a lock.
    """

    queues_waiters = True
    cleans_pages = True

    def __init__(self, connection: BaseDatabaseWrapper, table: str) -> None:
        super().__init__(connection, table)
        names = {
            "table": table,
            "waiters": connection.ops.quote_name(LockWaiter._meta.db_table),
            "processes": connection.ops.quote_name(WaitingProcess._meta.db_table),
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
        values: dict[str, Any] = names | {
            "now": NOW["postgresql"],
            "alive": ALIVE,
            "offer": OFFER,
            "forgotten": FORGOTTEN,
        }
        next_waiter = NEXT_WAITER.strip().format(**values)
        self._complete: Callable[[str], str] = partial(
            str.format, **values, next_waiter=next_waiter
        )
        self.acquire_sql, self.renew_sql, self.release_sql, self.guard_sql = map(
            self._complete, (ACQUIRE, RENEW, RELEASE, GUARD)
        )
        self._hand_over_sql, self._hand_on_sql, self._take_sql = map(
            self._complete, (HAND_OVER, HAND_ON, TAKE)
        )
        self._join_sql, self._leave_sql, self._vouch_sql, self._forget_sql = map(
            self._complete, (JOIN, LEAVE, VOUCH, FORGET)
        )
        self._sweep_sql, self._of_process_sql = map(self._complete, (SWEEP, OF_PROCESS))

    def use(self, cursor: Any) -> None:
        super().use(binding_on_server(cursor))
        if not is_behind_pooler(self.connection.settings_dict):  # else it is others' session too
            self.execute(READ_COMMITTED, {})

    def _checked_cursor(self) -> Any:
        return binding_on_server(super()._checked_cursor())

    def has_all_characters(self) -> bool:
        driver: Any = self.connection.connection
        return driver.info.parameter_status("server_encoding") in ("UTF8", "SQL_ASCII")

    def renew(self, parameters: Parameters) -> list[tuple[str, bool, int | None]]:
        if len(unpack(parameters)) == 1:
            return super().renew(parameters)
        # One for a few rows compares each lease with each row: 1,000 leases among 10,000 rows took
        # 1.4 seconds.
        with self._unprepared():
            return super().renew(parameters)

    def clean(self, sql: str, parameters: Parameters) -> list[Any]:
        """Change a page of rows by a statement of cleaning.py."""
        with self._unprepared():
            return self.fetch(self._complete(sql), parameters)

    @contextmanager
    def _unprepared(self) -> Iterator[None]:
        """Prepare nothing in the block: the plan would be kept when the table grows."""
        driver: Any = self.connection.connection
        threshold = getattr(driver, "prepare_threshold", None)
        if threshold is None:  # nothing is prepared anyway, as by psycopg 2
            yield
            return
        driver.prepare_threshold = None
        try:
            yield
        finally:
            driver.prepare_threshold = threshold

    def hand_over(self, parameters: Parameters) -> HandOver:
        rows = self.fetch(self._hand_over_sql, parameters)
        if not rows:
            return HandOver.NOT_HELD
        [(handed_over, _, only_dead)] = rows
        if handed_over:
            return HandOver.TO_WAITER
        return HandOver.PAST_THE_DEAD if only_dead else HandOver.TO_NOBODY

    def take(self, parameters: Parameters) -> Row | None:
        """Take what was offered, unless the offer has ended."""
        rows = self.fetch(self._take_sql, parameters)
        return Row(*rows[0]) if rows else None

    def listen(self, process: int) -> int:
        """Hear of what is offered to the waiters of this process; return the session's number."""
        self.execute(f"LISTEN distlock_{process:d}", {})
        [(session,)] = self.fetch("SELECT pg_backend_pid()", {})
        return int(session)

    def notify(self, process: int) -> None:
        """Let that process hear something that means nothing."""
        self.fetch("SELECT pg_notify(%(channel)s, '0')", {"channel": f"distlock_{process:d}"})

    def hand_on(self, semaphore: str) -> None:
        """Offer a lock that nobody holds to the first who waits for it."""
        self.fetch(self._hand_on_sql, {"semaphore": semaphore})

    def join(self, parameters: Parameters) -> tuple[int, bool, bool]:
        """Let one wait, at the end or at its former place; tell if that is free, if it is alone."""
        [(place, is_free, is_alone)] = self.fetch(self._join_sql, parameters)
        return place, is_free, is_alone

    def leave(self, place: int) -> bool:
        """Let one wait no more; False if it had been offered the lock."""
        return self.execute(self._leave_sql, {"place": place}) == 1

    def vouch(self, process: int, places: list[int]) -> list[Any]:
        """Say that this process is alive; return the session, and what is known of its waiters."""
        return self.fetch(self._vouch_sql, {"process": process, "places": places})

    def waiters_of(self, process: int) -> list[tuple[int, int]]:
        """Return the place of each row that this process has in the table, and its number."""
        return self.fetch(self._of_process_sql, {"process": process})

    def forget(self, process: int) -> None:
        """Let this process wait no more."""
        self.execute(self._forget_sql, {"process": process})

    def sweep(self, silent: int) -> None:
        """Remove the waiters of processes that have not been heard of for so long."""
        self.execute(self._sweep_sql, {"silent": silent})
