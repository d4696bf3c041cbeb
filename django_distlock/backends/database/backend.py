"""The database backend: which connection, which statements, and what an error means."""

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from functools import cached_property
from itertools import chain
from operator import attrgetter, methodcaller
from time import sleep
from typing import Any, ClassVar, TypeVar, cast

from django.core.checks import CheckMessage
from django.db import DEFAULT_DB_ALIAS, Error, InterfaceError, OperationalError
from django.db import connections as connections_by_alias
from django.db.backends.base.base import BaseDatabaseWrapper

from django_distlock import clocks
from django_distlock.arguments import validate_text, validate_whole
from django_distlock.backends.base import (
    ListingStore,
    QueueingStore,
    TransactionalStore,
    validate_claim,
    validate_listing,
)
from django_distlock.backends.batches import Outcome
from django_distlock.backends.cache_checks import validate_store_timeout
from django_distlock.backends.sockets.pools import Budget
from django_distlock.exceptions import InvalidLockBackend, LockBackendUnavailable
from django_distlock.fields import to_datetime
from django_distlock.models import KEPT, Lock, LockQuerySet
from django_distlock.records import (
    LOST,
    Claim,
    Grant,
    LockInfo,
    LockState,
    Owner,
    Place,
    Released,
    Renewal,
    RenewalOutcome,
)
from django_distlock.runtime import is_in_testcase
from django_distlock.semaphores.validation import InvalidSemaphore, validate_prefix
from django_distlock.transactions import has_snapshots

from . import cleaning
from .connections import InUse, OwnConnections, is_behind_pooler, own_connections, place
from .errors import (
    Conflict,
    RowLocked,
    is_missing_table,
    is_read_only,
    is_unknown_character,
    translate,
)
from .listening import Listener, listener
from .mysql import MariaDBStatements, MySQLStatements
from .orm import ORMStatements
from .places import QueuedPlace, had_to_wait, places
from .postgresql import PostgreSQLStatements
from .queue import ALIVE
from .sqlite import SQLiteStatements, check_file
from .statements import LAST, HandOver, Parameters, Row, Statements, pack

T = TypeVar("T")

BATCH = 1_000
"""How many leases are renewed by one statement."""
ROW_LOCKED = "a transaction has its row locked"

NOBODYS: Parameters = {"semaphore": "", "owner": "", "ttl": 0}
"""A lease that there can't be."""

SILENT = 1.0
"""Seconds after which a statement that failed is taken for one that had no answer."""

TRIES = 10
"""How often a statement is sent that a deadlock, or another's lock on the row, keeps stopping."""

ROW_WAIT = 0.05
"""Seconds for which a try waits for a row that another transaction has locked."""

FIRST_PAUSE = 0.0005
"""Seconds until the first of the tries meanwhile; from one to the next it doubles.

MariaDB's own wait has whole seconds; PostgreSQL's is as long as this, and is over then.
"""


class DatabaseBackend(ListingStore, QueueingStore, TransactionalStore):
    """Keeps locks in the Lock model's table of the database alias `using`.

    On PostgreSQL and MySQL's family it has `connections` connections of its own per process, so
    that a grant doesn't depend on the caller's transaction. On SQLite and other databases it uses
    the caller's: what is acquired inside a transaction is visible, and kept, when that commits.

    On its own connections a call ends within `store_timeout` seconds, with an answer or with
    LockBackendUnavailable, whatever becomes of the packets. On the caller's, his settings count.

    It does not guarantee that a grant survives a failover to a replica that hasn't received it. On
    PostgreSQL and SQLite a power failure may undo a release; the lock then ends with its ttl.

    What it sends is in no log and passes no `execute_wrapper`: it has the owner in it.
    """

    supports_fencing: ClassVar[bool] = True
    supports_unlimited_ttl: ClassVar[bool] = True
    keeps_expired: ClassVar[bool] = True
    own_connection_vendors: ClassVar[frozenset[str]] = frozenset({"postgresql", "mysql"})

    def __init__(
        self,
        alias: str,
        *,
        using: str = DEFAULT_DB_ALIAS,
        ttl: float | None = 60,
        connections: int = 2,
        store_timeout: float = 2,
        guard_commits: bool = True,
    ) -> None:
        super().__init__(alias, ttl=ttl, guard_commits=guard_commits)
        self.store_timeout = validate_store_timeout(alias, store_timeout)
        try:
            connections = validate_whole("connections", connections, 1)
            using = validate_text("using", using, ", an alias in DATABASES")
        except (TypeError, ValueError) as error:
            raise InvalidLockBackend(f"DISTLOCK[{alias!r}]: {error}") from error
        if using not in connections_by_alias:
            raise InvalidLockBackend(
                f"DISTLOCK[{alias!r}]: there is no database {using!r}; DATABASES has: "
                f"{', '.join(connections_by_alias)}."
            )
        self.using = using
        self.connections = self.threads = connections
        self._callers: Statements | None = None
        self._budget = Budget(store_timeout)

    def time_budget(self) -> Budget:
        return self._budget

    def joins_transaction(self) -> bool:
        if self._uses_own_connections():
            return False
        return connections_by_alias[self.using].in_atomic_block

    def guard(self, lease: Claim, using: str) -> bool | None:
        if using != self.using:
            return None
        parameters = _parameters(lease.semaphore, lease.owner, lease.ttl)
        caller = connections_by_alias[using]
        if not self._uses_own_connections():
            statements = self._on_caller()
        elif place(caller.settings_dict) == place(connections_by_alias.settings[using]):
            if has_snapshots(caller):
                return self._guard_by_renewal(lease)
            statements = self._known().on(caller)
        else:
            return None  # somebody has it lead elsewhere, to a tenant's database perhaps
        try:
            with caller.wrap_database_errors:
                return statements.guard(parameters)
        except Error as error:
            if is_read_only(caller.vendor, error):
                return True  # nothing was written under the lock
            raise

    def _known(self) -> Statements:
        """Return statements that may be sent on any connection to this database."""
        pool = self._own_connections()
        if pool.known is None:
            pool.known = self._run(lambda statements: statements)
        return pool.known

    def _guard_by_renewal(self, lease: Claim) -> bool:
        """Let the lease last its ttl from now: a transaction with a snapshot can't lock its row.

        Not if that was renewed since it began.
        """
        outcome = self.renew([lease])[lease.owner].outcome
        if outcome is RenewalOutcome.HELD:
            raise self._error(RowLocked("another transaction has locked the lock's row"))
        return outcome is RenewalOutcome.RENEWED

    def acquire(self, semaphore: str, owner: str, ttl: float | None, holder: str) -> Grant | None:
        parameters = _parameters(semaphore, owner, ttl, holder)
        waiting = places.get(owner) if places else None
        if waiting is not None:
            parameters["place"] = waiting.id
        try:
            row = waiting.take(self._run, parameters) if waiting is not None else None
            if row is None:
                row = self._acquire_row(parameters)
        except RowLocked:
            return None
        if row is None:
            if waiting is not None:
                waiting.join_again(self._run)
            return None
        return Grant(row.token, to_datetime(row.acquired_at), _end(row.expires_at))

    def _acquire_row(self, parameters: Parameters) -> Row | None:
        """Try again while another transaction has the row locked, for ROW_WAIT seconds at most.

        A renewal, a purge, or a refused try has it locked for a moment: that is not a holder.
        """
        deadline = clocks.monotonic() + ROW_WAIT
        pause = FIRST_PAUSE
        while True:
            try:
                return self._run(lambda lock: lock.acquire(lock.fitting(parameters)), (Conflict,))
            except RowLocked:
                left = deadline - clocks.monotonic()
                if left <= 0:
                    raise
                sleep(min(pause, left))
                pause *= 2

    @property
    def queues_all(self) -> bool:
        return self._listener() is not None

    def join(
        self,
        semaphore: str,
        owner: str,
        holder: str,
        wake: Callable[[], object],
    ) -> Place | None:
        listening = self._listener()
        if listening is None:
            return None
        if not self._run(attrgetter("queues_waiters")):
            listening.suspend()
            return None
        waiting = QueuedPlace(listening, semaphore, owner, holder, wake)
        return waiting if waiting.join(self._run) else None

    def leave(self, place: Place, granted: bool) -> None:
        # Not by the object of the thread that joined: a task may leave in another one.
        cast("QueuedPlace", place).leave(self._run, granted=granted)

    def _listener(self) -> Listener | None:
        """Return who hears of what is offered to the waiters of this process, if that is heard."""
        if not self._can_listen or not self._uses_own_connections():
            return None
        if is_behind_pooler(connections_by_alias.settings[self.using]):
            return None
        found = listener(self.using, self.connections, type(self).statements, self.store_timeout)
        return found if found.may_listen() else None

    @cached_property
    def _can_listen(self) -> bool:
        """Tell whether the database sends notifications, and the driver has them at hand."""
        if connections_by_alias[self.using].vendor != "postgresql":
            return False
        from django.db.backends.postgresql.psycopg_any import is_psycopg3

        return is_psycopg3

    def caller(self) -> BaseDatabaseWrapper | None:
        return None if self._uses_own_connections() else connections_by_alias[self.using]

    def can_renew(self) -> bool:
        if self._may_have_own_connections:
            return self._uses_own_connections()
        caller = connections_by_alias[self.using]
        # A row that isn't committed yet is not there for another thread. On SQLite that has to wait
        # until it is, unless that is never.
        return not caller.in_atomic_block or (
            caller.vendor == "sqlite" and not is_in_testcase(caller)
        )

    def renew(self, leases: Sequence[Claim]) -> dict[str, Renewal]:
        if len(leases) == 1:
            return self._renew(leases)
        outcome = Outcome()
        batches = [leases[first : first + BATCH] for first in range(0, len(leases), BATCH)]
        self._renew_each(batches, outcome)
        return outcome.result()

    def _renew_each(self, batches: list[Sequence[Claim]], outcome: Outcome) -> Exception | None:
        """Renew each of these; return why nothing more is asked, if the database is down."""
        down: Exception | None = None
        for batch in batches:
            if down is None:
                down = self._renew_batch(batch, outcome)
            else:
                outcome.failed(batch, down)
        return down

    def _renew_batch(self, batch: Sequence[Claim], outcome: Outcome) -> Exception | None:
        """Renew these; if it is one of them that can't be, each by itself. See _renew_each()."""
        began = clocks.monotonic()
        try:
            outcome.answered(self._renew(batch))
        except Exception as error:  # noqa: BLE001 - what a driver can't encode is none of Django's
            answers = clocks.monotonic() - began < SILENT and self._answers()
            if answers and len(batch) > 1:
                return self._renew_each([[lease] for lease in batch], outcome)
            outcome.failed(batch, error)
            return None if answers else error
        return None

    def _answers(self) -> bool:
        """Tell whether the database renews anything: it is asked to for a lease of nobody."""
        with suppress(Exception):
            self._run(lambda lock: lock.renew(pack([NOBODYS])))
            return True
        return False

    def _renew(self, leases: Sequence[Claim]) -> dict[str, Renewal]:
        parameters = pack(map(_lease, leases))
        rows = self._run(lambda lock: lock.renew(parameters))
        lost: dict[str, Renewal] = {Owner(lease.owner): LOST for lease in leases}
        return lost | {Owner(owner): _renewal(renewed, end) for owner, renewed, end in rows}

    def release(self, lease: Claim, keep: float = 0) -> Released:
        parameters = _parameters(lease.semaphore, lease.owner, lease.ttl)
        parameters["after"], parameters["keep"] = KEPT if keep else "", _microseconds(keep)
        others_wait = had_to_wait(lease.owner) and not keep
        if not others_wait and self._run(lambda lock: lock.release(parameters)):
            return Released.FREED
        return Released.NOT_HELD if keep else self._hand_over(parameters)

    def _hand_over(self, parameters: Parameters) -> Released:
        """Release what others wait for, if it is the owner's."""
        result = self._run(lambda lock: lock.hand_over(parameters))
        if result is HandOver.PAST_THE_DEAD:
            # So that the next release is as fast as any; this one is done, whatever comes of it.
            with suppress(LockBackendUnavailable):
                self._run(methodcaller("sweep", ALIVE))
        if result is HandOver.NOT_HELD:
            return Released.NOT_HELD
        return Released.HANDED_OVER if result is HandOver.TO_WAITER else Released.FREED

    def held(self, prefix: str = "", limit: int | None = None) -> Iterator[LockInfo]:
        prefix, limit = validate_listing(prefix, limit)
        locks = self._locks(prefix).unreleased().with_state()[:limit]
        # Rows that are not all read would keep an SQLite file locked, and what is done about one of
        # them from waiting for whoever writes.
        with self._unavailable():
            is_sqlite = connections_by_alias[self.using].vendor == "sqlite"
            yield from map(_info, list(locks) if is_sqlite else locks.iterator())

    def force_release(self, semaphore: str, token: int) -> bool:
        semaphore, token = validate_claim(semaphore, token)
        held = self._locks().held().filter(semaphore=semaphore, token=token)
        with self._unavailable():
            released = held.mark_released()
        if released:
            self.send_force_released(semaphore, token)
        return released

    def clear_stale(self, prefix: str = "", *, dry_run: bool = False) -> Iterator[LockInfo]:
        return self._clean(prefix, cleaning.clear_stale(), dry_run)

    def purge_released(
        self, older_than: timedelta, prefix: str = "", *, dry_run: bool = False
    ) -> Iterator[LockInfo]:
        return self._clean(prefix, cleaning.purge_released(older_than), dry_run)

    def _clean(self, prefix: str, job: cleaning.Job, dry_run: bool) -> Iterator[LockInfo]:
        prefix = validate_prefix(prefix)
        locks = self._locks(prefix)
        with self._unavailable():
            if dry_run:
                yield from map(_info, chain.from_iterable(cleaning.batches(locks, job)))
            elif self._run(attrgetter("cleans_pages")):
                yield from cleaning.change_pages(prefix, job, self._send_clean)
            else:
                yield from map(_info, cleaning.change(locks, job))

    def _send_clean(self, sql: str, parameters: Parameters) -> list[Any]:
        """Change a page of rows, in a transaction of its own if that can be."""
        told = parameters | {"joins": self.joins_transaction()}
        return self._run(methodcaller("clean", sql, told))

    @property
    def keeps_open(self) -> bool:
        return self._uses_own_connections()

    def close(self) -> None:
        if self._may_have_own_connections:
            self._own_connections().close_idle()

    def check(self, **kwargs: Any) -> list[CheckMessage]:
        connection = connections_by_alias[self.using]
        return [*check_file(self.alias, connection)] if connection.vendor == "sqlite" else []

    @classmethod
    def statements(cls, connection: BaseDatabaseWrapper) -> Statements:
        """Return what is to be sent on this connection; a subclass may choose other statements."""
        table = connection.ops.quote_name(Lock._meta.db_table)
        match connection.vendor:
            case "postgresql":
                return PostgreSQLStatements(connection, table)
            case "sqlite" if connection.features.can_return_columns_from_insert:
                return SQLiteStatements(connection, table)
            case "mysql" if connection.features.can_return_columns_from_insert:
                return MariaDBStatements(connection, table)
            case "mysql":
                return MySQLStatements(connection, table)
        return ORMStatements(connection, table)

    def _run(
        self,
        action: Callable[[Statements], T],
        retried: tuple[type[Exception], ...] = (Conflict, RowLocked),
    ) -> T:
        """Do the action on the right connection, again after these errors, and translate others."""
        deadline = self._budget.deadline()
        for _ in range(TRIES):
            try:
                return self._once(action, deadline)
            except retried as error:
                last = error
                if clocks.monotonic() >= deadline:
                    break
        raise self._error(last)

    def _once(self, action: Callable[[Statements], T], deadline: float) -> T:
        """Do it: by the deadline on a connection of our own, in its own time on the caller's."""
        sent = False

        def send(statements: Statements) -> T:
            nonlocal sent
            sent = True
            return _do(action, statements)

        try:
            if self._uses_own_connections():
                return self._own_connections().do(send, deadline)
            return _do(action, self._on_caller())
        except InUse as error:
            reason = f"all {self.connections} connections for locks have been in use for too long"
            raise self._error(reason) from error
        except TimeoutError as error:
            reason = f"no answer in {self.store_timeout} seconds"
            raise self._error(reason, reply_lost=sent) from error
        except Error as error:
            if is_unknown_character(connections_by_alias[self.using].vendor, error):
                # Text for people fits: see Statements.fitting().
                reason = "the encoding of the database can't have this semaphore"
                raise InvalidSemaphore(f"DISTLOCK[{self.alias!r}]: {reason}.") from error
            lost = sent and isinstance(error, InterfaceError | OperationalError)
            raise self._error(error, reply_lost=lost) from error

    def _own_connections(self) -> OwnConnections:
        return own_connections(self.using, self.connections, type(self).statements)

    def _uses_own_connections(self) -> bool:
        if not self._may_have_own_connections:
            return False
        if "django.test.testcases" not in sys.modules:
            return True  # without looking the connection up, which takes longer than anything here
        return not is_in_testcase(connections_by_alias[self.using])

    @cached_property
    def _may_have_own_connections(self) -> bool:
        return connections_by_alias[self.using].vendor in self.own_connection_vendors

    def _on_caller(self) -> Statements:
        caller = connections_by_alias[self.using]
        found = self._callers
        if found is None or found.connection is not caller:
            found = self._callers = self.statements(caller)
        return found

    def _locks(self, prefix: str = "") -> LockQuerySet:
        found = Lock.objects.using(self.using).defer("owner")
        return found.with_prefix(prefix)

    @contextmanager
    def _unavailable(self) -> Iterator[None]:
        try:
            yield
        except Error as error:
            raise self._error(error) from error

    def _error(self, error: Exception | str, *, reply_lost: bool = False) -> LockBackendUnavailable:
        # PostgreSQL's second line, the detail, may have the row with the owner.
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        message = f"DISTLOCK[{self.alias!r}]: {reason}"
        vendor = connections_by_alias[self.using].vendor
        if isinstance(error, Error) and is_missing_table(vendor, error):
            message += f"; run manage.py migrate --database {self.using}."
        return LockBackendUnavailable(message, reply_lost=reply_lost)


def _do(action: Callable[[Statements], T], statements: Statements) -> T:
    """Do the action; raise what its error says about the row, or it as an error of Django's."""
    connection: Any = statements.connection
    try:
        return action(statements)
    except (Error, connection.Database.Error) as failure:
        try:
            with connection.wrap_database_errors:
                raise failure
        except Error as error:
            if kind := translate(connection.vendor, error):
                raise kind(str(error)) from error
            raise


def _parameters(semaphore: str, owner: str, ttl: float | None, holder: str = "") -> Parameters:
    return {
        "semaphore": semaphore,
        "owner": owner,
        "ttl": _microseconds(ttl),
        "holder": holder,
        "place": LAST,
    }


def _lease(lease: Claim) -> dict[str, Any]:
    return {"semaphore": lease.semaphore, "owner": lease.owner, "ttl": _microseconds(lease.ttl)}


def _microseconds(seconds: float | None) -> int | None:
    """Return the least that is not shorter."""
    return None if seconds is None else math.ceil(seconds * 1_000_000)


def _renewal(renewed: bool, end: int | None) -> Renewal:
    if renewed:
        return Renewal(RenewalOutcome.RENEWED, _end(end))
    return Renewal(RenewalOutcome.HELD, _end(end), ROW_LOCKED)


def _end(microseconds: int | None) -> datetime | None:
    return None if microseconds is None else to_datetime(microseconds)


def _info(lock: Lock) -> LockInfo:
    return LockInfo(
        semaphore=lock.semaphore,
        state=LockState(lock.state),
        token=lock.token,
        holder=lock.holder,
        acquired_at=lock.acquired_at,
        expires_at=lock.expires_at,
        seen_at=lock.seen_at,
    )
