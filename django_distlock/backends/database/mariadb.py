"""MariaDB: INSERT … ON DUPLICATE KEY UPDATE can return the row, so it takes one statement."""

import json
import re
from collections.abc import Callable
from typing import ClassVar, Final, TypeVar

from django.db.backends.base.base import BaseDatabaseWrapper

from django_distlock.records import Grant, Refusal

from .mysql import MySQLStatements, encoded
from .statements import Answer, Parameters, unpack

T = TypeVar("T")

PARAMETER: Final = re.compile(r"%\(\w+\)s")
UNKNOWN_STATEMENT: Final = 1243  # ER_UNKNOWN_STMT_HANDLER

# Assignments run from left to right, so @answer is decided first: for a new row, and again for one
# that is there. `token` in VALUES is the clock, read once; with a timeout of 0, no wait for the row
# makes it outdated. In a pause, a new row is that of a free lock, because a statement that writes
# nothing could return nothing.
ACQUIRE_RETURNING = """
{at_once}
INSERT INTO {table} (semaphore, owner, token, holder, acquired_at, expires_at)
VALUES (
    %(semaphore)s,
    if((@answer := if((@pause := ({paused})) IS NULL, 1, 0)), %(owner)s, ''),
    {now},
    if(@answer, %(holder)s, ''),
    if(@answer, token, NULL),
    if(@answer, token + %(ttl)s, token)
)
ON DUPLICATE KEY UPDATE
    token = if(
        (
            @answer := CASE
                WHEN owner NOT IN ('', %(owner)s)
                    AND (expires_at IS NULL OR expires_at > VALUES(token)) THEN 2
                WHEN owner = %(owner)s
                    AND (expires_at IS NULL OR expires_at > VALUES(token)) THEN 1
                WHEN queued_until > VALUES(token) AND %(place)s = {last} THEN 3
                ELSE @answer
            END
        ) = 1 AND owner <> %(owner)s,
        greatest(token + 1, VALUES(token)),
        token
    ),
    owner = if(@answer = 1, %(owner)s, owner),
    holder = if(@answer = 1, %(holder)s, holder),
    acquired_at = if(@answer = 1, VALUES(token), acquired_at),
    renewed_at = if(@answer = 1, NULL, renewed_at),
    expires_at = if(@answer = 1, VALUES(token) + %(ttl)s, expires_at)
RETURNING
    CASE @answer
        WHEN 0 THEN 'paused'
        WHEN 1 THEN 'granted'
        WHEN 3 THEN 'queued'
        ELSE if(owner = '{kept}', 'kept', 'held')
    END,
    token, acquired_at, expires_at, holder, {now}, @pause
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


class MariaDBStatements(MySQLStatements):
    """One statement an action."""

    at_once: ClassVar[str] = "SET STATEMENT innodb_lock_wait_timeout = 0 FOR"

    def __init__(self, connection: BaseDatabaseWrapper, table: str) -> None:
        super().__init__(connection, table)
        self.prepared_acquire = PreparedStatement("acquire", self.complete(ACQUIRE_RETURNING))
        self.prepared_release = PreparedStatement("release", self.release_sql)
        self.renew_sql = self.complete(RENEW_RETURNING)

    def acquire(self, parameters: Parameters) -> Grant | Refusal:
        [(*row, pause)] = self._run(self.prepared_acquire, self.fetch, encoded(parameters))
        answer = Answer(*row)
        if answer.kind == "paused":
            until, reason = json.loads(pause)
            answer = answer._replace(expires_at=until, text=reason)
        return answer.outcome()

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
