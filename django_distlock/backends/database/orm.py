"""Any other database that Django supports, by the ORM: correct, in more round trips.

The database's clock is read first. An outdated time is safe: it only refuses a lock that has just
expired, and shortens the lease by the duration of the statements. A step of the clock is added to
the lease, because the clock may have shown this time for a while already.

An attempt that looked at the pauses before one began may be granted the lock a moment after that.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any, Final, TypeVar

from django.db import IntegrityError, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import BigIntegerField, Case, F, Q, Value, When
from django.db.models.functions import Greatest

from django_distlock.clocks import read_clock
from django_distlock.fields import to_datetime, to_microseconds
from django_distlock.models import KEPT, Lock, LockPause, LockQuerySet
from django_distlock.records import KEPT as KEPT_REASON
from django_distlock.records import REFUSED, Grant, Pause, Refusal

from .statements import Parameters, Statements, moment, unpack

T = TypeVar("T")

STEP: Final = 16_000
"""Microseconds between two steps of a database's clock at most; Windows has such ticks."""


def unlogged(action: Callable[["ORMStatements", Parameters], T]) -> Callable[..., T]:
    """Keep the parameters, with the owner, out of Django's debug log."""

    @wraps(action)
    def hidden(statements: "ORMStatements", parameters: Parameters) -> T:
        connection: Any = statements.connection
        logging = connection.make_debug_cursor
        connection.make_debug_cursor = connection.make_cursor
        try:
            return action(statements, parameters)
        finally:
            connection.make_debug_cursor = logging

    return hidden


class ORMStatements(Statements):
    """A conditional UPDATE, else an INSERT, on the caller's connection."""

    def __init__(self, connection: BaseDatabaseWrapper, table: str) -> None:
        super().__init__(connection, table)
        self.locks: LockQuerySet = Lock.objects.using(connection.alias)

    @unlogged
    def acquire(self, parameters: Parameters) -> Grant | Refusal:
        semaphore, owner, ttl = parameters["semaphore"], parameters["owner"], parameters["ttl"]
        now = to_microseconds(read_clock(self.connection))
        expires_at = None if ttl is None else now + STEP + ttl
        row = self.locks.filter(semaphore=semaphore)
        values: dict[str, Any] = {
            "owner": owner,
            "holder": parameters["holder"],
            "acquired_at": now,
            "renewed_at": None,
            "expires_at": expires_at,
        }
        pause = self._pause(semaphore, now)
        if pause is not None and not self._own(parameters, now).exists():
            return pause
        free = Q(owner__in=["", owner]) | Q(expires_at__lte=now)
        refusal = None
        if self._writers_exclude_each_other():
            refusal = _refusal(row.exclude(free), now)
        if refusal is not None:
            return refusal
        token = Case(
            When(owner=owner, then=F("token")),
            default=Greatest(F("token") + 1, Value(now), output_field=BigIntegerField()),
        )
        if row.filter(free).update(**values, token=token):
            granted = row.filter(owner=owner).values_list("token", flat=True).first()
            return REFUSED if granted is None else _grant(granted, now, expires_at)
        if (refusal := _refusal(row, now)) is not None:
            return refusal
        try:
            with transaction.atomic(using=self.locks.db):
                row.create(semaphore=semaphore, **values, token=now)
        except IntegrityError:  # another owner was faster
            return REFUSED
        return _grant(now, now, expires_at)

    @unlogged
    def renew(self, parameters: Parameters) -> list[tuple[str, bool, int | None]]:
        now = to_microseconds(read_clock(self.connection))
        ends: list[tuple[str, bool, int | None]] = []
        for lease in unpack(parameters):
            end = None if lease["ttl"] is None else now + STEP + lease["ttl"]
            if self._own(lease, now).update(renewed_at=now, expires_at=end):
                ends.append((lease["owner"], True, end))
        return ends

    @unlogged
    def release(self, parameters: Parameters) -> bool:
        now = to_microseconds(read_clock(self.connection))
        keep = parameters["keep"] and STEP + parameters["keep"]
        rest = {"owner": parameters["after"], "expires_at": now + keep}
        return bool(self._own(parameters, now).update(**rest))

    def force_release(self, parameters: Parameters) -> bool:
        with transaction.atomic(using=self.locks.db):  # so that a failure is not the caller's
            return self.locks.held().filter(**parameters).mark_released()

    @unlogged
    def guard(self, parameters: Parameters) -> bool:
        now = to_microseconds(read_clock(self.connection))
        own = self._own(parameters, now)
        if self.connection.features.has_select_for_update:
            own = own.select_for_update()
        return bool(own.values_list("token"))

    def _pause(self, semaphore: str, now: int) -> Refusal | None:
        """Return the refusal by the pause that lasts longest, if one is in force."""
        prefixes = [semaphore[:length] for length in range(len(semaphore) + 1)]
        pauses = LockPause.objects.using(self.locks.db).filter(prefix__in=prefixes)
        in_force = pauses.filter(Q(until=None) | Q(until__gt=now))
        pause = in_force.order_by(F("until").desc(nulls_first=True)).first()
        if pause is None:
            return None
        reason = Pause("", to_datetime(now), pause.until, pause.reason).refusal
        return Refusal(expires_at=pause.until, seen_at=to_datetime(now), reason=reason)

    def _writers_exclude_each_other(self) -> bool:
        """Return whether an UPDATE waits for other writers even if it finds no row, as SQLite's."""
        connection = self.connection
        return not (connection.features.has_select_for_update or connection.in_atomic_block)

    def _own(self, parameters: Parameters, now: int) -> LockQuerySet:
        """Return the row, if this owner still has an unexpired lease on it."""
        own = self.locks.filter(semaphore=parameters["semaphore"], owner=parameters["owner"])
        return own.filter(Q(expires_at=None) | Q(expires_at__gt=now))


def _grant(token: int, now: int, expires_at: int | None) -> Grant:
    return Grant(token, to_datetime(now), moment(expires_at))


def _refusal(rows: LockQuerySet, now: int) -> Refusal | None:
    """Return what the row says of its holder, if there is a row."""
    for row in rows:
        reason = KEPT_REASON if row.owner == KEPT else ""
        return Refusal(row.holder, row.acquired_at, row.expires_at, to_datetime(now), reason)
    return None
