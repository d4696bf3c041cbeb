"""The lock under which with_lock runs a command.

In a store that needs no table it is a lease, as acquire_lock() gives one. In a database it is two:

1. the database's own lock on the semaphore, which needs no table;
2. the lease, a row of this package's table, if the table exists and has all its columns.

Two with_lock commands never run at once, whatever becomes of the table. Each holds the database's
own lock from before its command starts until after it has ended. It is taken first, so it doesn't
matter what either of them finds of the table: none, a half of it, an older one, or all. Nor does it
matter when it is created, by the command itself or by another process.

The lease in addition keeps out acquire_lock() in the site's own code, and shows the command in
lists, where an operator can release it. Without the table that code can't acquire anything. When
the table appears while the command runs, with_lock acquires the lease within CHECK_INTERVAL. If
other code was quicker, the lock counts as lost. So does the database's own lock without a lease,
when its connection ends. With a lease, that alone keeps others out until the connection is back: a
process that gets the database's own lock meanwhile finds the row, and waits for it.

Behind a pooler a session's lock is not safe, and other databases have none that with_lock knows.
There it needs the table, and refuses to run without it.
"""

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final, NamedTuple

from django.db import Error, connections

from django_distlock import clocks
from django_distlock.arguments import printable
from django_distlock.backends.base import BaseLockBackend
from django_distlock.backends.database import DatabaseBackend
from django_distlock.backends.database.errors import is_unmigrated
from django_distlock.exceptions import LockBackendUnavailable, LockNotSupported
from django_distlock.leases.owned_lease import OwnedLease
from django_distlock.locks.acquisition import Acquisition
from django_distlock.locks.api import acquire, report_refusal
from django_distlock.locks.undo import undo
from django_distlock.records import REFUSED, Refusal

from .database_lock import DatabaseLock, NoDatabaseLock, database_lock

CHECK_INTERVAL: Final = 1.0
"""Seconds between two checks whether the lock is still held."""
CONNECTION_ENDED: Final = "the connection that held the database's own lock has ended"


class LockRequest(NamedTuple):
    """The lock that a command needs; durations in seconds."""

    semaphore: str
    backend: str
    ttl: float
    label: str


class CommandLock:
    """The lock under which a command runs: see this module."""

    def __init__(self, store: BaseLockBackend, request: LockRequest, grace: float) -> None:
        """Validate the request: TypeError or ValueError.

        If the lease can't be renewed, the lock counts as lost so early that `grace` seconds later,
        when the command is killed, the lease has not ended.
        """
        self.lease: OwnedLease | None = None
        self.loss = ""
        """Why the lock was lost; empty as long as it is held."""
        self._store = store
        self._request = request
        self._interval = min(CHECK_INTERVAL, request.ttl / 6)
        self._margin = grace + self._interval
        self._own: DatabaseLock | None = None
        self._why_none = ""
        """Why the database's own lock can't be used."""
        self._released = threading.Event()
        self._watch: threading.Thread | None = None
        self._acquisition(timeout=0)
        try:
            self._own = database_lock(store, request.semaphore)
        except NoDatabaseLock as error:
            self._why_none = str(error)

    def acquire(self, timeout: float | None) -> None:
        """Acquire the lock, or raise LockNotAcquired when `timeout` seconds have passed.

        None waits as long as it takes. LockBackendUnavailable: the store can't be reached, or there
        is no table and no other way to lock.
        """
        acquisition = self._acquisition(timeout)
        self._acquire_own(acquisition)
        left = None if timeout is None else max(0.0, acquisition.deadline - clocks.monotonic())
        try:
            self.lease = self._acquire_lease(left)
        except LockBackendUnavailable as error:
            if not self._lacks_table(error):
                raise
            if self._own is None:
                raise LockBackendUnavailable(
                    f"{error} Before that, with_lock would need the database's own lock, but "
                    f"{self._why_none}. Or give --backend another store."
                ) from error
        # For hours, perhaps, no statement is sent on the connections that were opened here.
        connections.close_all()

    def _acquire_own(self, acquisition: Acquisition) -> None:
        """Acquire the database's own lock by the deadline, if it has one."""
        while self._own is not None:
            left = acquisition.deadline - clocks.monotonic()
            try:
                if self._own.acquire(max(0.0, left)):
                    return
            except NoDatabaseLock as error:
                self._own.release()
                self._own, self._why_none = None, str(error)
                return
            if left <= 0:
                acquisition.refusal = self._describe_holder()
                acquisition.refused_at = clocks.monotonic()
                report_refusal(acquisition)
                raise acquisition.contention()

    def _describe_holder(self) -> Refusal:
        """Return what the table says of the holder of the database's own lock."""
        with suppress(LockBackendUnavailable, LockNotSupported):
            if lock := self._store.find(self.semaphore):
                return Refusal(lock.holder, lock.acquired_at, lock.expires_at, lock.seen_at)
        return REFUSED

    def _acquire_lease(self, timeout: float | None) -> OwnedLease:
        acquisition = self._acquisition(timeout)
        try:
            lease = acquire(acquisition)
            if lease is None:
                raise acquisition.contention()
            acquisition.retain(lease)
        except BaseException:
            undo(acquisition)
            raise
        return lease

    def _acquisition(self, timeout: float | None) -> Acquisition:
        return Acquisition(
            semaphore=self._request.semaphore,
            timeout=timeout,
            ttl=self._request.ttl,
            renew=True,
            label=self._request.label,
            backend=self._request.backend,
            reentrant=False,
            min_hold=None,
            max_hold=None,
        )

    def _lacks_table(self, error: LockBackendUnavailable) -> bool:
        """Return whether the error is that the table is missing, or older than this package."""
        cause = error.__cause__
        return (
            isinstance(self._store, DatabaseBackend)
            and isinstance(cause, Error)
            and is_unmigrated(connections[self._store.using].vendor, cause)
        )

    @property
    def semaphore(self) -> str:
        """The lock's name."""
        return self._request.semaphore

    @property
    def token(self) -> int | None:
        """The fencing token; None without a lease, or in a store that has none."""
        return None if self.lease is None else self.lease.token

    def watch(self, on_loss: Callable[[], object]) -> None:
        """Check in another thread whether the lock is held; if not, set `loss`, and call this."""
        self._watch = threading.Thread(
            target=self._check_often, args=[on_loss], name="django_distlock with_lock", daemon=True
        )
        self._watch.start()

    def _check_often(self, on_loss: Callable[[], object]) -> None:
        while not self._released.wait(self._interval):
            try:
                self.check()
            except Exception as error:  # noqa: BLE001 - whatever it is, nobody else would check
                self.loss = f"it could not be checked: {error!r}"
            connections.close_all()
            if self.loss:
                on_loss()
                return

    def check(self) -> None:
        """Set `loss` if the lock is not held any more; acquire what is missing of it."""
        self.check_clock()
        if self.lease is None:
            self._check_own()
        elif not self.loss and self._own is not None and not self._own.is_held():
            with suppress(LockBackendUnavailable, NoDatabaseLock):
                self._own.acquire()  # its connection had ended

    def check_clock(self) -> None:
        """Set `loss` if the lease is lost or about to end, by the local clock."""
        lease = self.lease
        if lease is None:
            return
        if not lease.held:
            self.loss = _describe(lease)
        elif lease.remaining <= self._margin:
            self.loss = f"its lease could not be renewed, and ends in {lease.remaining:.0f} seconds"

    def _check_own(self) -> None:
        """Check the database's own lock, which stands alone; and whether there is a table now."""
        if self._own is None or not self._own.is_held():
            self.loss = CONNECTION_ENDED
            return
        acquisition = self._acquisition(timeout=0)
        try:
            self.lease = acquire(acquisition)
        except LockBackendUnavailable:
            return  # it will be tried again
        refusal = acquisition.refusal
        if self.lease is None and refusal.holder:
            self.loss = f"{printable(refusal.holder)} acquired it when its table was created"

    def release(self) -> None:
        """Release the lock; set `loss` if it had been lost.

        LockBackendUnavailable: it may be held until its ttl has passed.
        """
        self._released.set()
        if self._watch is not None:
            self._watch.join()
        try:
            if self.lease is None:
                if self._own is not None and not self._own.is_held():
                    self.loss = self.loss or CONNECTION_ENDED
            elif not self.lease.release():
                self.loss = self.loss or _describe(self.lease)
        finally:
            if self._own is not None:
                self._own.release()


def _describe(lease: OwnedLease) -> str:
    return f"{lease} {lease.describe_status()}"
