"""SQLite: one statement per action, on the caller's connection.

A database file has one writer at a time, so a connection of our own would only wait for the
caller's. Others see what the caller's transaction writes to the locks when it commits.
"""

import math
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import cached_property
from typing import Any, Final

from django.db.backends.base.base import BaseDatabaseWrapper

from django_distlock.clocks import NOW
from django_distlock.models import KEPT, LockPause
from django_distlock.records import REFUSED, Grant, Refusal

from .errors import RowLocked
from .polled_queue import Look
from .queue_file import QueueFile, queue_file
from .statements import LAST, Parameters, Statements, outcome

# Why an attempt is refused: a holder, or the pause that lasts longest.
# Sent before the INSERT, which takes the file's write lock even if it inserts nothing: it would
# wait for a transaction that writes, or fail one that has read and is about to write.
REFUSING = """
SELECT
    iif(owner = '{kept}', 'kept', 'held'), token, acquired_at, expires_at, holder, {now}
FROM {table}
WHERE semaphore = :semaphore AND owner NOT IN ('', :owner)
    AND (expires_at IS NULL OR expires_at > {now})
UNION ALL SELECT * FROM (
    SELECT 'paused', NULL, NULL, until, reason, {now}
    FROM {pauses}
    WHERE substr(:semaphore, 1, length(prefix)) = prefix AND (until IS NULL OR until > {now})
        AND NOT EXISTS (
            SELECT 1 FROM {table}
            WHERE semaphore = :semaphore AND owner = :owner
                AND (expires_at IS NULL OR expires_at > {now})
        )
    ORDER BY until IS NULL DESC, until DESC LIMIT 1
)
"""

# Within one statement the clock stands still; it is read after the wait for the file. It counts
# milliseconds, rounded down: without another step, a lease would end up to 1 ms too soon.
ACQUIRE = """
INSERT INTO {table} AS lock (semaphore, owner, token, holder, acquired_at, expires_at)
SELECT :semaphore, :owner, {now}, :holder, {now}, {now} + {step} + :ttl
WHERE NOT EXISTS ({refusing})
ON CONFLICT (semaphore) DO UPDATE SET
    owner = excluded.owner,
    token = CASE
        WHEN lock.owner = excluded.owner THEN lock.token
        ELSE max(lock.token + 1, excluded.token)
    END,
    holder = excluded.holder,
    acquired_at = excluded.acquired_at,
    renewed_at = NULL,
    expires_at = excluded.expires_at
RETURNING 'granted', token, acquired_at, expires_at, holder, 0
"""

# CROSS JOIN, so that each lease's row is looked up by its semaphore, and not the other way round.
RENEW = """
WITH lease AS MATERIALIZED (
    SELECT
        lock.semaphore, {now} AS renewed_at,
        {now} + {step} + json_extract(value, '$.ttl') AS expires_at
    FROM json_each(:leases) CROSS JOIN {table} AS lock
    ON lock.semaphore = json_extract(value, '$.semaphore')
        AND lock.owner = json_extract(value, '$.owner')
    WHERE lock.expires_at IS NULL OR lock.expires_at > {now}
)
UPDATE {table} AS lock SET renewed_at = lease.renewed_at, expires_at = lease.expires_at
FROM lease WHERE lock.semaphore = lease.semaphore
RETURNING owner, 1, expires_at
"""

RELEASE = """
UPDATE {table} SET owner = :after, expires_at = {now} + iif(:keep > 0, {step} + :keep, 0)
WHERE semaphore = :semaphore AND owner = :owner
    AND (expires_at IS NULL OR expires_at > {now})
"""

FORCE_RELEASE = """
UPDATE {table} SET owner = '', expires_at = {now}
WHERE semaphore = :semaphore AND token = :token AND owner <> ''
    AND (expires_at IS NULL OR expires_at > {now})
"""

# A transaction that wrote keeps all others from writing until it ends.
GUARD = """
SELECT 1 FROM {table}
WHERE semaphore = :semaphore AND owner = :owner AND (expires_at IS NULL OR expires_at > {now})
"""

STEP: Final = 1_000
"""Microseconds between two steps of the clock."""

NORMAL: Final = 1
"""The value of PRAGMA synchronous that doesn't flush the log at every commit."""


class SQLiteStatements(Statements):
    """INSERT … ON CONFLICT with RETURNING (SQLite 3.35)."""

    connection: Any

    def __init__(self, connection: BaseDatabaseWrapper, table: str) -> None:
        super().__init__(connection, table)
        pauses = connection.ops.quote_name(LockPause._meta.db_table)
        values = {"table": table, "pauses": pauses, "now": NOW["sqlite"], "step": STEP}
        self.refusing_sql = values["refusing"] = REFUSING.format(**values, kept=KEPT)
        self.acquire_sql, self.renew_sql = ACQUIRE.format(**values), RENEW.format(**values)
        self.release_sql, self.guard_sql = RELEASE.format(**values), GUARD.format(**values)
        self.force_release_sql = FORCE_RELEASE.format(**values)

    def acquire(self, parameters: Parameters) -> Grant | Refusal:
        # In a transaction, a read takes a snapshot, after which it can't wait to write.
        may_read = not self.connection.in_atomic_block
        if may_read and (refusing := self.fetch(self.refusing_sql, parameters)):
            return outcome(refusing)
        if may_read and parameters["place"] == LAST and self._is_queued(parameters["semaphore"]):
            return REFUSED
        try:
            granted = self.fetch(self.acquire_sql, parameters)
        except self.connection.Database.OperationalError:
            # Another writer takes longer than this may wait. Is the lock held anyway?
            if refusing := self.fetch(self.refusing_sql, parameters):
                return outcome(refusing)
            raise
        return outcome(granted or self.fetch(self.refusing_sql, parameters))

    @property
    def polls_queue(self) -> bool:
        return self._queue is not None

    @cached_property
    def _queue(self) -> QueueFile | None:
        self.connection.ensure_connection()
        [(_, _, path)] = self.connection.connection.execute("PRAGMA database_list").fetchall()[:1]
        return queue_file(path)

    def _is_queued(self, semaphore: str) -> bool:
        """Return whether the lock is for those in its queue. If that can't be read, it isn't."""
        with suppress(RowLocked):
            return self._queue is not None and self._queue.has_waiters(semaphore)
        return False

    def join(self, parameters: Parameters) -> int:
        """Add a waiter to the queue. See PolledQueueStatements for this and the next methods."""
        assert self._queue is not None  # noqa: S101 - for the type checker: polls_queue
        return self._queue.join(parameters["semaphore"], parameters["place"])

    def look(self, parameters: Parameters) -> Look:
        assert self._queue is not None  # noqa: S101
        ahead, is_there = 0, True
        with suppress(RowLocked):  # without a look at the queue, anybody may try
            ahead, is_there = self._queue.look(parameters["semaphore"], parameters["place"])
        refusing = self.fetch(self.refusing_sql, parameters)
        refusal = outcome(refusing) if refusing else None
        assert not refusal  # noqa: S101 - it is no grant
        return Look(ahead, is_there, False, math.inf, refusal)

    def heartbeat(self, parameters: Parameters) -> None:
        assert self._queue is not None  # noqa: S101
        self._queue.heartbeat(parameters["semaphore"], parameters["place"])

    def leave(self, parameters: Parameters) -> None:
        assert self._queue is not None  # noqa: S101
        if parameters["place"] is not None:
            self._queue.leave(parameters["place"])

    def release(self, parameters: Parameters) -> bool:
        # If a power failure loses a release, the lease ends with its ttl. Without a ttl, flush.
        if parameters["ttl"] is None:
            return super().release(parameters)
        self.connection.ensure_connection()
        with not_flushed(self.connection):
            return super().release(parameters)

    def execute(self, sql: str, parameters: Parameters) -> int:
        with closing(self.cursor()) as cursor:
            cursor.execute(sql, parameters)
            found: int = cursor.rowcount
        return found

    def fetch(self, sql: str, parameters: Parameters) -> list[Any]:
        # Closed at once, because a statement with unread rows keeps the file locked.
        with closing(self.cursor()) as cursor:
            cursor.execute(sql, parameters)
            rows: list[Any] = cursor.fetchall()
        return rows

    def _checked_cursor(self) -> Any:
        super()._checked_cursor()
        # Django's cursor takes parameters in another style.
        return self.connection.connection.cursor()


@contextmanager
def not_flushed(connection: BaseDatabaseWrapper) -> Iterator[None]:
    """Make commits in this block not wait for the disk, where that does no harm.

    With a write-ahead log, a power failure can lose the last commits only, and the next commit that
    waits makes them durable too. The setting can't be changed in a transaction, which begins by
    itself if autocommit is off. Connections with a shared cache share the setting.
    """
    driver = connection.connection
    [level] = driver.execute("PRAGMA synchronous").fetchone()
    if (
        level <= NORMAL
        or connection.in_atomic_block
        or not connection.autocommit
        or driver.in_transaction
        or "cache=shared" in str(connection.settings_dict["NAME"])
        or driver.execute("PRAGMA journal_mode").fetchone() != ("wal",)
    ):
        yield
        return
    try:
        driver.execute(f"PRAGMA synchronous = {NORMAL}")
        yield
    finally:
        driver.execute(f"PRAGMA synchronous = {level}")
