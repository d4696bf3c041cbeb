"""MariaDB and MySQL.

Rows are updated, never inserted and deleted in turn: that gave 2,497 deadlocks in 3,600 iterations.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final, TypeVar

from django.db.backends.base.base import BaseDatabaseWrapper

from django_distlock.clocks import NOW
from django_distlock.models import KEPT, Lock
from django_distlock.records import REFUSED, Grant, Owner, Refusal

from .statements import Answer, Parameters, Statements, outcome, pack, unpack

T = TypeVar("T")

PARAMETER: Final = re.compile(r"%\(\w+\)s")
UNKNOWN_STATEMENT: Final = 1243  # ER_UNKNOWN_STMT_HANDLER

# Assignments run from left to right, so @free is decided first, and once. `token` in VALUES is the
# clock, read once too; with a timeout of 0, no wait for the row makes it outdated.
ACQUIRE_RETURNING = """
SET STATEMENT innodb_lock_wait_timeout = 0 FOR
INSERT INTO {table} (semaphore, owner, token, holder, acquired_at, expires_at)
VALUES (%(semaphore)s, %(owner)s, {now}, %(holder)s, token, token + %(ttl)s)
ON DUPLICATE KEY UPDATE
    token = if(
        (@free := owner IN ('', VALUES(owner)) OR expires_at <= VALUES(token))
        AND owner <> VALUES(owner),
        greatest(token + 1, VALUES(token)),
        token
    ),
    owner = if(@free, VALUES(owner), owner),
    holder = if(@free, VALUES(holder), holder),
    acquired_at = if(@free, VALUES(acquired_at), acquired_at),
    renewed_at = if(@free, NULL, renewed_at),
    expires_at = if(@free, VALUES(expires_at), expires_at)
RETURNING
    CASE owner WHEN %(owner)s THEN 'granted' WHEN '{kept}' THEN 'kept' ELSE 'held' END,
    token, acquired_at, expires_at, holder, {now}
"""

ACQUIRE_UPDATE = """
UPDATE {table} SET
    token = if(owner = %(owner)s, token, greatest(token + 1, {now})),
    owner = %(owner)s,
    holder = %(holder)s,
    acquired_at = {now},
    renewed_at = NULL,
    expires_at = {now} + %(ttl)s
WHERE semaphore = %(semaphore)s AND (owner IN ('', %(owner)s) OR expires_at <= {now})
"""
# Not a bare ON DUPLICATE KEY UPDATE: with FOUND_ROWS, which Django sets, "inserted" and "held by
# another owner" both count one row.
ACQUIRE_INSERT = """
INSERT IGNORE INTO {table} (semaphore, owner, token, holder, acquired_at, expires_at)
VALUES (%(semaphore)s, %(owner)s, {now}, %(holder)s, {now}, {now} + %(ttl)s)
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
# The SELECT finds and locks each row, so the INSERT always finds it as a duplicate.
RENEW_RETURNING = """
INSERT INTO {table} (semaphore, owner, token, holder, acquired_at, renewed_at, expires_at)
SELECT {table}.semaphore, {table}.owner, token, holder, acquired_at, {now}, {now} + ttl
FROM {leases}
WHERE expires_at IS NULL OR expires_at > {now}
FOR UPDATE SKIP LOCKED
ON DUPLICATE KEY UPDATE renewed_at = VALUES(renewed_at), expires_at = VALUES(expires_at)
RETURNING owner, 1, expires_at
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


class MySQLStatements(Statements):
    """UPDATE the row if it is free, else INSERT one; then read the row."""

    def __init__(self, connection: BaseDatabaseWrapper, table: str) -> None:
        super().__init__(connection, table)

        def complete(sql: str) -> str:
            return sql.format(table=table, now=NOW["mysql"], leases=LEASES.format(table=table))

        self.update_sql, self.insert_sql = complete(ACQUIRE_UPDATE), complete(ACQUIRE_INSERT)
        self.granted_sql = complete(GRANTED)
        self.renewable_sql, self.mine_sql = complete(RENEWABLE), complete(MINE)
        self.renew_sql, self.renew_one_sql = complete(RENEW_UPDATE), complete(RENEW_ONE)
        self.release_sql, self.guard_sql = complete(RELEASE), complete(GUARD)

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

    def guard(self, parameters: Parameters) -> bool:
        return super().guard(encoded(parameters))


class MariaDBStatements(MySQLStatements):
    """One statement an action: MariaDB's INSERT … ON DUPLICATE KEY UPDATE can return the row."""

    def __init__(self, connection: BaseDatabaseWrapper, table: str) -> None:
        super().__init__(connection, table)
        acquire_sql = ACQUIRE_RETURNING.format(table=table, now=NOW["mysql"], kept=KEPT)
        self.prepared_acquire = PreparedStatement("acquire", acquire_sql)
        self.prepared_release = PreparedStatement("release", self.release_sql)
        leases = LEASES.format(table=table)
        self.renew_sql = RENEW_RETURNING.format(table=table, now=NOW["mysql"], leases=leases)

    def acquire(self, parameters: Parameters) -> Grant | Refusal:
        return outcome(self._run(self.prepared_acquire, self.fetch, encoded(parameters)))

    def renew(self, parameters: Parameters) -> list[tuple[str, bool, int | None]]:
        if not self.connection.features.has_select_for_update_skip_locked:
            return self._renew_each(parameters)
        renewed = self.fetch(self.renew_sql, parameters)
        if len(renewed) == len(unpack(parameters)):
            return renewed
        return [*self.fetch(self.mine_sql, parameters), *renewed]

    def release(self, parameters: Parameters) -> bool:
        return self._run(self.prepared_release, self.execute, encoded(parameters)) == 1

    def _run(
        self,
        statement: "PreparedStatement",
        how: Callable[[str, Parameters], T],
        parameters: Parameters,
    ) -> T:
        try:
            return how(statement.execute_sql, parameters)
        except Exception as error:  # an error of the driver, whichever that is
            if error.args[:1] != (UNKNOWN_STATEMENT,):
                raise
        self.cursor().execute(statement.prepare_sql, [statement.text])
        return how(statement.execute_sql, parameters)


class PreparedStatement:
    """A statement that the session keeps parsed, which saves a fifth of its time.

    A session that doesn't have it yet prepares it: a new one, or another one chosen by a proxy.
    MariaDB's EXECUTE takes values; MySQL's doesn't.
    """

    def __init__(self, name: str, sql: str) -> None:
        self.text = PARAMETER.sub("?", sql)
        self.prepare_sql = f"PREPARE distlock_{name} FROM %s"
        values = ", ".join(match[0] for match in PARAMETER.finditer(sql))
        self.execute_sql = f"EXECUTE distlock_{name} USING {values}"


def encoded(parameters: Parameters) -> Parameters:
    """Return the parameters with the semaphore in bytes, as in its column."""
    return parameters | {"semaphore": parameters["semaphore"].encode()}
