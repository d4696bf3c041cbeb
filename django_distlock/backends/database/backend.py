"""DatabaseBackend: acquire, renew and release locks that are rows of a table."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cached_property
from operator import attrgetter, methodcaller
from time import sleep
from typing import ClassVar, cast

from django.db import connections as connections_by_alias

from django_distlock import clocks
from django_distlock.backends.base import QueueingStore
from django_distlock.backends.batches import BatchedRenewals
from django_distlock.exceptions import LockBackendUnavailable
from django_distlock.models import KEPT
from django_distlock.records import (
    LOST,
    REFUSED,
    Claim,
    Grant,
    Owner,
    Place,
    Refusal,
    Released,
    Renewal,
    RenewalOutcome,
)

from .errors import Conflict, RowLocked
from .listening import Listener, listener
from .listing import ListingDatabaseBackend
from .own_connection import is_behind_pooler
from .pausing import PausingDatabaseBackend
from .places import Attempting, QueuedPlace, had_to_wait, places
from .polled_places import PolledPlace, granted_places
from .queue import ALIVE
from .statements import (
    HandOver,
    Parameters,
    lease_parameters,
    lock_parameters,
    microseconds,
    moment,
    pack,
    renewal_parameters,
)
from .transactional import TransactionalDatabaseBackend

BATCH = 1_000
"""How many leases one statement renews."""

ROW_LOCKED = "a transaction has its row locked"

NO_LEASE: Parameters = {"semaphore": "", "owner": "", "ttl": 0}
"""A lease that can't exist."""

SILENT = 1.0
"""Seconds after which a failed statement counts as one that the database didn't answer."""

ROW_WAIT = 0.05
"""Seconds for which an attempt waits for a row that another transaction has locked."""

FIRST_PAUSE = 0.0005
"""Seconds before the first retry in that time; each further pause is twice as long.

MariaDB's own wait counts whole seconds. PostgreSQL's is as long as ROW_WAIT, so nothing is retried.
"""


class DatabaseBackend(
    ListingDatabaseBackend, PausingDatabaseBackend, TransactionalDatabaseBackend, QueueingStore
):
    """A store in a table of the database with the alias `using`.

    On PostgreSQL, MariaDB and MySQL, each process has `connections` connections for locks alone, so
    a grant doesn't depend on the caller's transaction. On these, a call ends within `store_timeout`
    seconds, with an answer or with `LockBackendUnavailable`, even if packets get lost.

    On SQLite and other databases, locks use the caller's connection, with its own settings. A lock
    that is acquired inside a transaction is visible to others, and kept, when that commits.

    **Not guaranteed:** that a grant survives a failover to a replica that hasn't received it. On
    PostgreSQL and SQLite, a power failure may undo a release; the lock then ends with its ttl.

    Lock statements contain a secret, so they are in no log and pass no `execute_wrapper`.
    """

    supports_fencing: ClassVar[bool] = True
    supports_unlimited_ttl: ClassVar[bool] = True

    def acquire(
        self, semaphore: str, owner: str, ttl: float | None, holder: str
    ) -> Grant | Refusal:
        parameters = lock_parameters(semaphore, owner, ttl, holder)
        waiting = places.get(owner) if places else None
        try:
            if waiting is None:
                return self._acquire_row(parameters)
            return waiting.attempt(self._run, self._acquire_row, parameters)
        except RowLocked:
            return REFUSED

    def _acquire_row(self, parameters: Parameters) -> Grant | Refusal:
        """Retry while another transaction has the row locked, for ROW_WAIT seconds at most.

        A renewal, a purge or a refused attempt locks the row for a moment; that is not a holder.
        """
        deadline = clocks.monotonic() + ROW_WAIT
        pause = FIRST_PAUSE
        while True:
            try:
                return self._run(lambda sql: sql.acquire(sql.fitting(parameters)), (Conflict,))
            except RowLocked:
                left = deadline - clocks.monotonic()
                if left <= 0:
                    raise
                sleep(min(pause, left))
                pause *= 2

    def renew(self, leases: Sequence[Claim]) -> dict[str, Renewal]:
        if len(leases) == 1:
            return self._renew(leases)
        renewals = BatchedRenewals()
        batches = [leases[first : first + BATCH] for first in range(0, len(leases), BATCH)]
        self._renew_each(batches, renewals)
        return renewals.result()

    def _renew_each(
        self, batches: list[Sequence[Claim]], renewals: BatchedRenewals
    ) -> Exception | None:
        """Renew each batch until the database is down; return the error that shows that."""
        down: Exception | None = None
        for batch in batches:
            if down is None:
                down = self._renew_batch(batch, renewals)
            else:
                renewals.add_failed(batch, down)
        return down

    def _renew_batch(self, batch: Sequence[Claim], renewals: BatchedRenewals) -> Exception | None:
        """Renew a batch, or each of its leases alone if one makes it fail. See _renew_each()."""
        began = clocks.monotonic()
        try:
            renewals.add(self._renew(batch))
        except Exception as error:  # noqa: BLE001 - a driver that can't encode a text raises its own
            answers = clocks.monotonic() - began < SILENT and self._answers()
            if answers and len(batch) > 1:
                return self._renew_each([[lease] for lease in batch], renewals)
            renewals.add_failed(batch, error)
            return None if answers else error
        return None

    def _answers(self) -> bool:
        """Return whether the database answers a renewal, by one of a lease that can't exist."""
        with suppress(Exception):
            self._run(lambda sql: sql.renew(pack([NO_LEASE])))
            return True
        return False

    def _renew(self, leases: Sequence[Claim]) -> dict[str, Renewal]:
        parameters = renewal_parameters(leases)
        rows = self._run(lambda sql: sql.renew(parameters))
        lost: dict[str, Renewal] = {Owner(lease.owner): LOST for lease in leases}
        return lost | {Owner(owner): _renewal(renewed, end) for owner, renewed, end in rows}

    def release(self, lease: Claim, keep: float = 0) -> Released:
        parameters = lease_parameters(lease)
        parameters["after"], parameters["keep"] = KEPT if keep else "", microseconds(keep)
        place = granted_places.pop(lease.owner, None) if granted_places else None
        if place is not None:
            released = self._run(lambda sql: sql.release(parameters))
            with suppress(LockBackendUnavailable):  # the row is outdated soon
                place.delete(self._run)
            return Released.HANDED_OVER if released else Released.NOT_HELD
        others_wait = had_to_wait(lease.owner) and not keep
        if not others_wait and self._run(lambda sql: sql.release(parameters)):
            return Released.FREED
        return Released.NOT_HELD if keep else self._hand_over(parameters)

    def _hand_over(self, parameters: Parameters) -> Released:
        """Release the lock to its first waiter, if it is this owner's."""
        result = self._run(lambda sql: sql.hand_over(parameters))
        if result is HandOver.PAST_THE_DEAD:
            # Otherwise the next release is as slow. An error here changes nothing about this one.
            with suppress(LockBackendUnavailable):
                self._run(methodcaller("sweep", ALIVE))
        if result is HandOver.NOT_HELD:
            return Released.NOT_HELD
        return Released.HANDED_OVER if result is HandOver.TO_WAITER else Released.FREED

    @property
    def queues_all(self) -> bool:
        return self._listener() is not None

    def join(
        self, semaphore: str, owner: str, holder: str, wake: Callable[[], object]
    ) -> Place | None:
        listening = self._listener()
        if listening is None:
            return self._join_polling(semaphore, owner, holder)
        if not self._run(attrgetter("queues_waiters")):
            listening.suspend()
            return None
        waiting = QueuedPlace(listening, semaphore, owner, holder, wake)
        return waiting if waiting.join(self._run) else None

    def _join_polling(self, semaphore: str, owner: str, holder: str) -> Place | None:
        """Join a queue that the waiter looks at, if there is one, and if others can see it wait."""
        if connections_by_alias[self.using].in_atomic_block and not self._uses_own_connections():
            return None
        if not self._run(attrgetter("polls_queue")):
            return None
        waiting = PolledPlace(semaphore, owner, holder)
        waiting.join(self._run)
        return waiting

    def leave(self, place: Place, granted: bool) -> None:
        # Run by this object, not by the one that joined: a task may leave in another thread.
        cast("Attempting", place).leave(self._run, granted=granted)

    def _listener(self) -> Listener | None:
        """Return what receives the offers to this process's waiters, where that is possible."""
        if not self._can_listen or not self._uses_own_connections():
            return None
        if is_behind_pooler(connections_by_alias.settings[self.using]):
            return None
        found = listener(self.using, self.connections, type(self).statements, self.store_timeout)
        return found if found.may_listen() else None

    @cached_property
    def _can_listen(self) -> bool:
        """Whether the database sends notifications, and the driver can wait for them."""
        if connections_by_alias[self.using].vendor != "postgresql":
            return False
        from django.db.backends.postgresql.psycopg_any import is_psycopg3

        return is_psycopg3


def _renewal(renewed: bool, end: int | None) -> Renewal:
    if renewed:
        return Renewal(RenewalOutcome.RENEWED, moment(end))
    return Renewal(RenewalOutcome.HELD, moment(end), ROW_LOCKED)
