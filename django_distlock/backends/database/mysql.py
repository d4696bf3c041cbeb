"""MySQL, and what MariaDB does as MySQL does.

Rows are updated, never inserted and deleted in turn: that causes deadlocks.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, ClassVar

from django.db.backends.base.base import BaseDatabaseWrapper

from django_distlock.clocks import NOW
from django_distlock.models import KEPT, Lock, LockPause, LockWaiter
from django_distlock.records import REFUSED, Grant, Owner, Refusal

from .polled_queue import PolledQueueStatements, queue_values
from .statements import LAST, Answer, Parameters, outcome, pack, unpack

# The pause that lasts longest of those that are in force, as JSON of its end and its reason. Locked
# until the attempt ends: so a pause begins when the attempts that can't see it have ended.
PAUSED = """
SELECT json_array(until, reason) FROM {pauses}
WHERE left(CAST(%(semaphore)s AS BINARY), length(prefix)) = prefix
    AND (until IS NULL OR until > {now})
ORDER BY until IS NULL DESC, until DESC LIMIT 1
LOCK IN SHARE MODE
"""

ACQUIRE_UPDATE = """
UPDATE {table} SET
    token = if(owner = %(owner)s, token, greatest(token + 1, {now})),
    owner = %(owner)s,
    holder = %(holder)s,
    acquired_at = {now},
    renewed_at = NULL,
    expires_at = {now} + %(ttl)s
WHERE semaphore = %(semaphore)s AND (
    owner = %(owner)s AND (expires_at IS NULL OR expires_at > {now})
    OR (owner IN ('', %(owner)s) OR expires_at <= {now}) AND NOT EXISTS ({paused})
        AND (%(place)s < {last} OR queued_until IS NULL OR queued_until <= {now})
)
"""
# Not a bare ON DUPLICATE KEY UPDATE: with FOUND_ROWS, which Django sets, "inserted" and "held by
# another owner" both count one row.
ACQUIRE_INSERT = """
INSERT IGNORE INTO {table} (semaphore, owner, token, holder, acquired_at, expires_at)
SELECT %(semaphore)s, %(owner)s, {now}, %(holder)s, {now}, {now} + %(ttl)s
FROM DUAL WHERE NOT EXISTS ({paused})
"""
GRANTED = """
SELECT 'granted', token, acquired_at, expires_at, holder, 0 FROM {table}
WHERE semaphore = %(semaphore)s AND owner = %(owner)s
"""

# In a small table the optimizer prefers to read, and so to lock, every row. FORCE INDEX makes it
# lock the leases' own rows only. CONVERT lets the escapes in the JSON be any character, whatever
# the charset of the connection.
LEASES = """
JSON_TABLE(CONVERT(%(leases)s USING utf8mb4), '$[*]' COLUMNS (
    semaphore VARCHAR(255) CHARACTER SET utf8mb4 PATH '$.semaphore',
    owner VARCHAR(32) PATH '$.owner',
    ttl BIGINT PATH '$.ttl'
)) AS lease STRAIGHT_JOIN {table} FORCE INDEX (PRIMARY)
ON {table}.semaphore = CAST(lease.semaphore AS BINARY)
    AND {table}.owner = CAST(lease.owner AS BINARY)
"""
RENEWABLE = """
SELECT {table}.owner FROM {leases}
WHERE expires_at IS NULL OR expires_at > {now}
FOR UPDATE SKIP LOCKED
"""
RENEW_UPDATE = """
UPDATE {leases} SET renewed_at = {now}, expires_at = {now} + ttl
"""
MINE = """
SELECT {table}.owner, 0, expires_at FROM {leases}
WHERE expires_at IS NULL OR expires_at > {now}
"""
RENEW_ONE = """
UPDATE {table} SET renewed_at = {now}, expires_at = {now} + %(ttl)s
WHERE semaphore = %(semaphore)s AND owner = %(owner)s
    AND (expires_at IS NULL OR expires_at > {now})
"""

RELEASE = """
UPDATE {table} SET owner = %(after)s, expires_at = {now} + %(keep)s
WHERE semaphore = %(semaphore)s AND owner = %(owner)s
    AND (expires_at IS NULL OR expires_at > {now})
"""

FORCE_RELEASE = """
UPDATE {table} SET owner = '', expires_at = {now}
WHERE semaphore = %(semaphore)s AND token = %(token)s AND owner <> ''
    AND (expires_at IS NULL OR expires_at > {now})
"""

# MariaDB's spelling of FOR SHARE, which MySQL understands too.
GUARD = """
SELECT 1 FROM {table}
WHERE semaphore = %(semaphore)s AND owner = %(owner)s
    AND (expires_at IS NULL OR expires_at > {now})
LOCK IN SHARE MODE
"""

CHARSETS = """
SELECT @@character_set_client, character_set_name FROM information_schema.columns
WHERE table_schema = database() AND table_name = %(table)s AND column_name = 'holder'
"""


class MySQLStatements(PolledQueueStatements):
    """UPDATE the row if it is free, else INSERT one; then read the row."""

    at_once: ClassVar[str] = ""
    """Before a statement that is not to wait for a row."""

    def __init__(self, connection: BaseDatabaseWrapper, table: str) -> None:
        super().__init__(connection, table)

        pauses = connection.ops.quote_name(LockPause._meta.db_table)
        waiters = connection.ops.quote_name(LockWaiter._meta.db_table)
        values: dict[str, Any] = {"table": table, "now": NOW["mysql"], "kept": KEPT, "last": LAST}
        values |= {"waiters": waiters, "at_once": self.at_once, **queue_values()}
        values["leases"] = LEASES.format(**values)
        values["paused"] = PAUSED.strip().format(**values, pauses=pauses)

        def complete(sql: str) -> str:
            return sql.format(**values)

        self.update_sql, self.insert_sql = complete(ACQUIRE_UPDATE), complete(ACQUIRE_INSERT)
        self.granted_sql = complete(GRANTED)
        self.renewable_sql, self.mine_sql = complete(RENEWABLE), complete(MINE)
        self.renew_sql, self.renew_one_sql = complete(RENEW_UPDATE), complete(RENEW_ONE)
        self.release_sql, self.guard_sql = complete(RELEASE), complete(GUARD)
        self.force_release_sql = complete(FORCE_RELEASE)
        self.complete_queue(complete)
        self.complete = complete

    def for_columns(self, parameters: Parameters) -> Parameters:
        return encoded(parameters)

    def acquire(self, parameters: Parameters) -> Grant | Refusal:
        parameters = encoded(parameters)
        for sql in (self.update_sql, self.insert_sql):
            if self.execute(sql, parameters):
                return outcome(self.fetch(self.granted_sql, parameters))
        return REFUSED

    def has_all_characters(self) -> bool:
        found = self.fetch(CHARSETS, {"table": Lock._meta.db_table})
        return set(found) == {("utf8mb4", "utf8mb4")}

    def renew(self, parameters: Parameters) -> list[tuple[str, bool, int | None]]:
        if not self.connection.features.has_select_for_update_skip_locked:
            return self._renew_each(parameters)
        with self._transaction():
            unlocked = {Owner(owner) for (owner,) in self.fetch(self.renewable_sql, parameters)}
            self.execute(
                self.renew_sql, pack(one for one in unpack(parameters) if one["owner"] in unlocked)
            )
            mine = self.fetch(self.mine_sql, parameters)
        return [(Owner(owner), owner in unlocked, end) for owner, _, end in mine]

    def _renew_each(self, parameters: Parameters) -> list[tuple[str, bool, int | None]]:
        """Renew each lease, waiting for locked rows: MariaDB before 10.6 can't skip them."""
        ends = []
        for lease in map(encoded, unpack(parameters)):
            if self.execute(self.renew_one_sql, lease):
                found = map(Answer._make, self.fetch(self.granted_sql, lease))
                ends += [(lease["owner"], True, row.expires_at) for row in found]
        return ends

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Open a transaction if there is none, in less time than Django's `atomic` takes."""
        if self.connection.in_atomic_block:
            yield
            return
        self.execute("START TRANSACTION", {})
        try:
            yield
        except BaseException:
            with suppress(Exception):  # the connection may be gone
                self.execute("ROLLBACK", {})
            raise
        self.execute("COMMIT", {})

    def release(self, parameters: Parameters) -> bool:
        return super().release(encoded(parameters))

    def force_release(self, parameters: Parameters) -> bool:
        return super().force_release(encoded(parameters))

    def guard(self, parameters: Parameters) -> bool:
        return super().guard(encoded(parameters))


def encoded(parameters: Parameters) -> Parameters:
    """Return the parameters with the semaphore in bytes, as in its column."""
    return parameters | {"semaphore": parameters["semaphore"].encode()}
