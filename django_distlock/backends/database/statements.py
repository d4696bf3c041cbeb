"""The three actions on a lock's row, as each database does them best."""

import json
from collections.abc import Iterable
from copy import copy
from enum import Enum
from typing import Any, ClassVar, Final, NamedTuple, Self

from django.db.backends.base.base import BaseDatabaseWrapper

from django_distlock.records import Owner

Parameters = dict[str, Any]
"""What a statement is told: semaphore, owner, holder, and ttl, in microseconds or None.

A release is told for how many microseconds to `keep` the semaphore from others, by the owner that
is in the row `after` it. A renewal is told the `leases`: JSON of a list of semaphore, owner, ttl.

Where waiters have a queue, an acquisition is told the `place` before which nobody may wait. Joining
is told the `process` and its `number` for the waiter, the former `place` or None, whether to send
the process's `heartbeat`, and whether it joins `again`, since the reply was lost.
"""

LAST: Final = 2**63 - 1
"""The `place` of an acquisition that has waited in no queue."""


class Hidden(str):
    """A text that has owners in it: no traceback shows it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "<hidden>"


def pack(leases: Iterable[Parameters]) -> Parameters:
    """Return what a renewal of these leases is told."""
    return {"leases": Hidden(json.dumps([*leases]))}


def unpack(parameters: Parameters) -> list[Parameters]:
    """Return the leases that a renewal is told."""
    return [one | {"owner": Owner(one["owner"])} for one in json.loads(parameters["leases"])]


class Row(NamedTuple):
    """A grant as the database returns it; the times are in microseconds since the epoch."""

    token: int
    acquired_at: int
    expires_at: int | None


class HandOver(Enum):
    """What became of a lock that was to be released, though others may wait for it."""

    NOT_HELD = "it was not this owner's"
    TO_WAITER = "it was handed over"
    TO_NOBODY = "nobody waits for it"
    PAST_THE_DEAD = "only processes that are not heard of wait for it"


class Statements:
    """What is sent on one connection, by SQL that says by RETURNING what it wrote."""

    queues_waiters: ClassVar[bool] = False
    """There is a table of those who wait, and what a release offers them is heard of."""

    cleans_pages: ClassVar[bool] = False
    """It has clean(), which changes a page of rows by a statement of cleaning.py."""

    acquire_sql: str
    renew_sql: str
    release_sql: str
    guard_sql: str

    def __init__(self, connection: BaseDatabaseWrapper, table: str) -> None:
        self.connection = connection
        self._cursor: Any = None

    def fitting(self, parameters: Parameters) -> Parameters:
        """Return the parameters with a holder that the table can have: it is for people only."""
        holder: str = parameters["holder"]
        if holder.isascii() or self.has_all_characters():
            return parameters
        return parameters | {"holder": holder.encode("ascii", "backslashreplace").decode()}

    def has_all_characters(self) -> bool:
        """Tell whether each text can be sent on the connection, and kept."""
        return True

    def acquire(self, parameters: Parameters) -> Row | None:
        """Write the row and return it, or None if another owner has an unexpired lease."""
        rows = self.fetch(self.acquire_sql, parameters)
        return Row(*rows[0]) if rows else None

    def renew(self, parameters: Parameters) -> list[tuple[str, bool, int | None]]:
        """Write new ends of the leases; return the owner of each that is still held, and its end.

        And, between them, whether it was renewed: one whose row is locked is not waited for.
        """
        return self.fetch(self.renew_sql, parameters)

    def release(self, parameters: Parameters) -> bool:
        """Replace the owner if it is still this one and the lease has not expired."""
        return self.execute(self.release_sql, parameters) == 1

    def hand_over(self, parameters: Parameters) -> HandOver:
        """Release it to who waits first: a plain release was refused since somebody waits."""
        return HandOver.NOT_HELD

    def guard(self, parameters: Parameters) -> bool:
        """Tell whether the lease is ours, and keep others out till the end of the transaction."""
        return bool(self.fetch(self.guard_sql, parameters))

    def on(self, connection: BaseDatabaseWrapper) -> Self:
        """Return the same statements for another connection."""
        other = copy(self)
        other.connection, other._cursor = connection, None
        return other

    def use(self, cursor: Any) -> None:
        """Send everything by this cursor, of a connection that nobody else uses."""
        self._cursor = cursor

    def cursor(self) -> Any:
        """Return a cursor of the driver's: the owner has no place in Django's debug log."""
        return self._cursor or self._checked_cursor()

    def _checked_cursor(self) -> Any:
        """Let Django see to it that the connection is there, and usable here and now."""
        checked = self.connection.cursor()
        self.connection.validate_no_broken_transaction()
        return checked.cursor

    def execute(self, sql: str, parameters: Parameters) -> int:
        """Run a statement and return how many rows it found."""
        cursor = self.cursor()
        cursor.execute(sql, parameters)
        found: int = cursor.rowcount
        return found

    def fetch(self, sql: str, parameters: Parameters) -> list[Any]:
        """Run a statement and return all rows."""
        cursor = self.cursor()
        cursor.execute(sql, parameters)
        rows: list[Any] = cursor.fetchall()
        return rows
