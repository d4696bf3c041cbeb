"""The actions on a lock's row: their parameters, and the statements that each database defines."""

import json
import math
from collections.abc import Iterable
from copy import copy
from datetime import datetime
from enum import Enum
from typing import Any, ClassVar, Final, NamedTuple, Self

from django.db.backends.base.base import BaseDatabaseWrapper

from django_distlock.fields import to_datetime
from django_distlock.records import KEPT, REFUSED, Claim, Grant, Owner, Pause, Refusal

Parameters = dict[str, Any]
"""The named parameters of a statement.

- All: `semaphore`, `owner`, `holder`, and `ttl`, in microseconds or None.
- A release: `keep`, the microseconds for which others are kept out, and the owner `after` it.
- A renewal: `leases`, as JSON of a list of objects with a semaphore, an owner and a ttl.
- An acquisition where there is a queue: `place`, before which nobody may wait.
- A forced release: `semaphore` and `token`.
- Joining a queue: `process`, the `number` of the waiter there, its former `place` or None, whether
  to send the process's `heartbeat`, and whether it joins `again`, since the reply was lost.
"""

TEXTS: Final = ("holder", "reason", "by")

LAST: Final = 2**63 - 1
"""The `place` of an acquisition that has waited in no queue."""


class Hidden(str):
    """A text with owners in it; its repr, which tracebacks show, hides them."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "<hidden>"


def lock_parameters(semaphore: str, owner: str, ttl: float | None, holder: str = "") -> Parameters:
    """Return the parameters of an acquisition."""
    return {
        "semaphore": semaphore,
        "owner": owner,
        "ttl": microseconds(ttl),
        "holder": holder,
        "place": LAST,
    }


def lease_parameters(lease: Claim) -> Parameters:
    """Return the parameters of an action on a lease."""
    return lock_parameters(lease.semaphore, lease.owner, lease.ttl)


def renewal_parameters(leases: Iterable[Claim]) -> Parameters:
    """Return the parameters of a renewal of these leases."""
    return pack(
        {"semaphore": lease.semaphore, "owner": lease.owner, "ttl": microseconds(lease.ttl)}
        for lease in leases
    )


def pack(leases: Iterable[Parameters]) -> Parameters:
    """Return the parameters of a renewal of these leases."""
    return {"leases": Hidden(json.dumps([*leases]))}


def unpack(parameters: Parameters) -> list[Parameters]:
    """Return the leases in the parameters of a renewal."""
    return [one | {"owner": Owner(one["owner"])} for one in json.loads(parameters["leases"])]


def microseconds(seconds: float | None) -> int | None:
    """Return the seconds in microseconds, rounded up: a lease is never shorter than asked for."""
    return None if seconds is None else math.ceil(seconds * 1_000_000)


class Answer(NamedTuple):
    """What a statement returns of an attempt; the times are in microseconds since the epoch."""

    kind: str
    """`granted`; else why not: `held`, only `kept` from others, `paused`, or others `queued`."""
    token: int
    acquired_at: int
    expires_at: int | None
    """The end of the lease, or of the pause."""
    text: str
    """The holder, or the reason of the pause."""
    seen_at: int

    def outcome(self) -> Grant | Refusal:
        """Return it as a store answers."""
        expires_at = moment(self.expires_at)
        if self.kind == "granted":
            return Grant(self.token, to_datetime(self.acquired_at), expires_at)
        if self.kind == "queued":
            return REFUSED
        seen_at = to_datetime(self.seen_at)
        if self.kind == "paused":
            reason = Pause("", seen_at, expires_at, self.text).refusal
            return Refusal(expires_at=expires_at, seen_at=seen_at, reason=reason)
        reason = KEPT if self.kind == "kept" else ""
        return Refusal(self.text, moment(self.acquired_at), expires_at, seen_at, reason)


def moment(microseconds: int | None) -> datetime | None:
    """Return a time of the database, which may be none."""
    return None if microseconds is None else to_datetime(microseconds)


def outcome(rows: list[Any]) -> Grant | Refusal:
    """Return what the first row says, or the pause that lasts longest.

    Without a row, the attempt was refused.
    """
    if not rows:
        return REFUSED
    answer = Answer(*rows[0])
    if answer.kind == "paused" and len(rows) > 1:
        pauses = map(Answer._make, rows)
        answer = max(pauses, key=lambda pause: (pause.expires_at is None, pause.expires_at))
    return answer.outcome()


class HandOver(Enum):
    """The result of a release to the first waiter."""

    NOT_HELD = "it was not this owner's"
    TO_WAITER = "it was handed over"
    TO_NOBODY = "nobody waits for it"
    PAST_THE_DEAD = "only processes without a heartbeat wait for it"


class Statements:
    """The statements for one connection, in SQL that returns what it wrote by RETURNING."""

    queues_waiters: ClassVar[bool] = False
    """There is a queue of waiters, and a release notifies the first one: see QueueStatements."""

    cleans_pages: ClassVar[bool] = False
    """It has clean(), which changes a page of rows by a statement of cleaning.py."""

    acquire_sql: str
    renew_sql: str
    release_sql: str
    guard_sql: str
    force_release_sql: str

    def __init__(self, connection: BaseDatabaseWrapper, table: str) -> None:
        self.connection = connection
        self._cursor: Any = None

    @property
    def polls_queue(self) -> bool:
        """Whether there is a queue of waiters, who look at it: see PolledQueueStatements."""
        return False

    def fitting(self, parameters: Parameters) -> Parameters:
        """Return the parameters with characters of TEXTS escaped that the table can't have.

        They are for people only; a semaphore with such characters is refused.
        """
        texts = {name: parameters[name] for name in TEXTS if name in parameters}
        if "".join(texts.values()).isascii() or self.has_all_characters():
            return parameters
        return parameters | {
            name: text.encode("ascii", "backslashreplace").decode() for name, text in texts.items()
        }

    def has_all_characters(self) -> bool:
        """Return whether the connection can send each character, and the table keep it."""
        return True

    def acquire(self, parameters: Parameters) -> Grant | Refusal:
        """Write the row unless another owner has an unexpired lease."""
        return outcome(self.fetch(self.acquire_sql, parameters))

    def renew(self, parameters: Parameters) -> list[tuple[str, bool, int | None]]:
        """Renew the leases; return the owner of each held one, whether it was renewed, and its end.

        A lease whose row is locked is not waited for.
        """
        return self.fetch(self.renew_sql, parameters)

    def release(self, parameters: Parameters) -> bool:
        """Replace the owner if the lease is still this owner's; return whether it was."""
        return self.execute(self.release_sql, parameters) == 1

    def hand_over(self, parameters: Parameters) -> HandOver:
        """Release to the first waiter: a plain release found some, or found no lease."""
        return HandOver.NOT_HELD

    def force_release(self, parameters: Parameters) -> bool:
        """Release the lock if the grant with this token still holds it; return whether it did."""
        return self.execute(self.force_release_sql, parameters) == 1

    def wait_for_attempts(self) -> None:
        """Wait for the attempts that have begun before a pause, and so can't see it.

        Except on PostgreSQL, it is written only then, since attempts lock the pauses they look at.
        """

    def guard(self, parameters: Parameters) -> bool:
        """Keep others out until the transaction ends; return whether the lease is this owner's."""
        return bool(self.fetch(self.guard_sql, parameters))

    def on(self, connection: BaseDatabaseWrapper) -> Self:
        """Return the same statements for another connection."""
        other = copy(self)
        other.connection, other._cursor = connection, None
        return other

    def use(self, cursor: Any) -> None:
        """Send everything by this cursor, whose connection nobody else uses."""
        self._cursor = cursor

    def cursor(self) -> Any:
        """Return a cursor of the driver, because Django's would log the owner."""
        return self._cursor or self._checked_cursor()

    def _checked_cursor(self) -> Any:
        """Have Django open the connection if need be, and check that it can be used now."""
        checked = self.connection.cursor()
        self.connection.validate_no_broken_transaction()
        return checked.cursor

    def execute(self, sql: str, parameters: Parameters) -> int:
        """Run a statement; return the number of rows that it changed."""
        cursor = self.cursor()
        cursor.execute(sql, parameters)
        found: int = cursor.rowcount
        return found

    def fetch(self, sql: str, parameters: Parameters) -> list[Any]:
        """Run a statement; return all its rows."""
        cursor = self.cursor()
        cursor.execute(sql, parameters)
        rows: list[Any] = cursor.fetchall()
        return rows
