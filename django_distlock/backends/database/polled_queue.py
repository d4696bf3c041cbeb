"""The queue of waiters on MySQL's family, which notifies nobody.

The first waiter of each process has a row in a table, and looks every few milliseconds whether its
turn has come. While anybody waits, the lock's own row says so until a moment from now: an
acquisition that has not waited is refused without a look at the queue, and costs nothing more.

No statement touches both tables, none but those by primary key locks a waiter's row, and each is a
transaction of its own: so none can be part of a deadlock.
"""

import math
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from django_distlock import clocks
from django_distlock.records import Refusal

from . import queue
from .statements import Answer, Parameters, Statements

SWEEPING: Final = 2.0
"""Seconds between two removals of the rows of waiters that are gone."""

JOIN = """
INSERT INTO {waiters} (id, semaphore, owner, holder, process, number, seen_at)
VALUES (%(place)s, %(semaphore)s, %(owner)s, %(holder)s, 0, 0, {now})
"""

# The holder may have a row still: that is deleted after its release.
LOOK = """
SELECT
    (
        SELECT count(*) FROM {waiters} AS waiter
        WHERE semaphore = %(semaphore)s AND id < %(place)s AND seen_at > {now} - {alive}
            AND waiter.owner <> coalesce(held.owner, '')
    ),
    (SELECT count(*) FROM {waiters} WHERE id = %(place)s),
    EXISTS (
        SELECT 1 FROM {waiters}
        WHERE semaphore = %(semaphore)s AND id > %(place)s AND seen_at > {now} - {alive}
    ),
    queued_until - {now},
    CASE
        WHEN owner IN ('', %(owner)s) OR expires_at <= {now} THEN ''
        WHEN owner = '{kept}' THEN 'kept'
        ELSE 'held'
    END,
    token, acquired_at, expires_at, holder, {now}
FROM (SELECT 1 AS one) AS asked LEFT JOIN {table} AS held ON semaphore = %(semaphore)s
"""

HEARTBEAT = "UPDATE {waiters} SET seen_at = {now} WHERE id = %(place)s"

# Keep others than waiters from acquiring the lock, until the next heartbeat but one or so.
RESERVE = """
{at_once} UPDATE {table} SET queued_until = {now} + {alive} WHERE semaphore = %(semaphore)s
"""

LEAVE = "DELETE FROM {waiters} WHERE id = %(place)s"

OTHERS = """
SELECT 1 FROM {waiters} WHERE semaphore = %(semaphore)s AND seen_at > {now} - {alive} LIMIT 1
"""

UNRESERVE = """
{at_once} UPDATE {table} SET queued_until = NULL WHERE semaphore = %(semaphore)s
"""

GONE = "SELECT id FROM {waiters} WHERE seen_at < {now} - {swept} LIMIT 1000"


class Look(NamedTuple):
    """What a waiter sees in its queue."""

    ahead: int
    """How many living waiters are before it."""
    is_there: bool
    """Whether it is in the queue."""
    is_followed: bool
    """Whether others are behind it."""
    reserved: float
    """Seconds for which the lock's row keeps it for those in the queue."""
    refusal: Refusal | None
    """The answer of a held lock, which names its holder; None if it is free."""


class PolledQueueStatements(Statements):
    """The statements of the queue."""

    @property
    def polls_queue(self) -> bool:
        return True

    def complete_queue(self, complete: Callable[[str], str]) -> None:
        """Fill the tables' names into the statements."""
        self._join_sql, self._leave_sql = complete(JOIN), complete(LEAVE)
        self._look_sql, self._others_sql = complete(LOOK), complete(OTHERS)
        self._heartbeat_sql, self._gone_sql = complete(HEARTBEAT), complete(GONE)
        self._reserve_sql, self._unreserve_sql = complete(RESERVE), complete(UNRESERVE)
        self._sweep_at = -math.inf

    def for_columns(self, parameters: Parameters) -> Parameters:
        """Return the parameters in the types of their columns."""
        return parameters

    def write(self, sql: str, parameters: Parameters) -> Any:
        """Run a statement that doesn't wait for others, else RowLocked; return its cursor."""
        cursor = self.cursor()
        cursor.execute(sql, parameters)
        return cursor

    def join(self, parameters: Parameters) -> int:
        """Add a waiter to the queue, at the end or at its former place; return its place."""
        self.sweep()
        cursor = self.write(self._join_sql, self.for_columns(parameters))
        place: int = parameters["place"] or cursor.lastrowid
        return place

    def look(self, parameters: Parameters) -> Look:
        """Return what is before the waiter in this place."""
        [row] = self.fetch(self._look_sql, self.for_columns(parameters))
        ahead, is_there, is_followed, reserved, *answer = row
        kind = answer[0]
        refusal = Answer(*answer).outcome() if kind else None
        assert not refusal  # noqa: S101 - for the type checker: it is no grant
        return Look(ahead, bool(is_there), bool(is_followed), (reserved or 0) / 1_000_000, refusal)

    def heartbeat(self, parameters: Parameters) -> None:
        """Show that a waiter is alive."""
        self.write(self._heartbeat_sql, parameters)

    def reserve(self, parameters: Parameters) -> None:
        """Keep the lock for those in the queue, for a moment."""
        self.write(self._reserve_sql, self.for_columns(parameters))

    def leave(self, parameters: Parameters) -> None:
        """Remove a waiter from the queue; let anybody have the lock if it was the last one."""
        parameters = self.for_columns(parameters)
        if parameters["place"] is not None:
            self.write(self._leave_sql, parameters)
        if not self.fetch(self._others_sql, parameters):
            self.write(self._unreserve_sql, parameters)

    def sweep(self) -> None:
        """Delete the rows of waiters that are gone, every SWEEPING seconds."""
        if clocks.monotonic() < self._sweep_at:
            return
        self._sweep_at = clocks.monotonic() + SWEEPING
        for (place,) in self.fetch(self._gone_sql, {}):
            self.write(self._leave_sql, {"place": place})


def queue_values() -> dict[str, int]:
    """Return the numbers in the statements."""
    return {"alive": queue.ALIVE, "swept": queue.SWEPT}
