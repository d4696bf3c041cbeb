"""The background thread that each store has in a process that holds its leases.

It renews the leases, and does work that can't be done in place, such as in the midst of a rollback.
Each store has a thread of its own, so that a store that hangs costs no leases in another.
"""

import math
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

from django.db import connections

from django_distlock import clocks
from django_distlock.backends.listening import on_lost_connection
from django_distlock.conf import lock_backends
from django_distlock.exceptions import InvalidLockBackend
from django_distlock.logs import room_logger
from django_distlock.redaction.tracebacks import clear_variables
from django_distlock.threads import lacks_threads

from .renewal import Renewable, Renewals
from .wakeups import Wakeup

logger = room_logger("renewal")

IDLE: Final = 60.0
"""Seconds after which the thread ends if there is nothing to renew and nothing pins it.

The store's connections are closed then: an idle process needs none for locks.
"""

WATCH_INTERVAL: Final = 0.1
"""Seconds between two checks for expired leases while a store or a receiver may hang."""

WAKE_FOR_ANY: Final = math.inf
"""Wake the thread for every lease that is added."""
WAKE_FOR_NONE: Final = -math.inf
"""Do not wake the thread: it scans the leases next anyway."""


class Background:
    """A daemon thread that runs as long as there are leases to renew or something pins it.

    Where threads can't run, as in uWSGI without --enable-threads, nothing is renewed.
    """

    def __init__(self, alias: str) -> None:
        self.alias = alias
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self.renewals = Renewals(self.alias)
        self._work: deque[Callable[[], object]] = deque()
        self._wakeup = Wakeup()
        self._pinned: set[object] = set()
        # Reentrant: garbage collection may end an abandoned generator, and its locked block, here.
        self._changing = threading.RLock()
        self.thread: threading.Thread | None = None
        self.scans_at = WAKE_FOR_ANY
        """When the thread scans the leases next, by the local monotonic clock.

        Reset before scanning, so that a lease added during the scan wakes the thread: adding one
        takes no lock.
        """
        self._woken_for = -math.inf
        """When the lease was due that woke the thread last."""
        self._used = -math.inf
        """When the store was last used, by the local monotonic clock."""

    def renew(self, lease: Renewable) -> None:
        """Renew the lease until stop_renewal(), or until nothing refers to it."""
        if lease.pid != self._pid:  # a fork that did not call Python's hooks
            self._begin()
        self.renewals.add(lease)
        if lease.due < self.scans_at:
            self._woken_for = lease.due
            with self._changing:
                self._wake()

    def stop_renewal(self, lease: object) -> None:
        """Stop renewing the lease. Safe in a finalizer."""
        self.renewals.remove(lease)

    def pin(self, user: object) -> None:
        """Keep the thread running until unpin(): the user may have work for it."""
        with self._changing:
            self._pinned.add(user)
            if not self._runs():
                self._wake()

    def close_when_idle(self) -> None:
        """Close the store's connections when it has not been used for IDLE seconds.

        Where no thread can be started, they stay open until the process ends.
        """
        self._used = clocks.monotonic()
        if not self._runs():
            with self._changing:
                if not self._runs():
                    self._wake(needed=False)

    def unpin(self, user: object) -> None:
        """End a pin(). Safe in a finalizer."""
        self._pinned.discard(user)

    def submit(self, work: Callable[[], object]) -> None:
        """Do this work in the thread. Safe in a finalizer: waits for no lock, starts no thread."""
        self._work.append(work)
        self._wakeup.set()

    def _runs(self) -> bool:
        return self.thread is not None and self.thread.is_alive()

    def _wake(self, *, needed: bool = True) -> None:
        if self._runs():
            self._wakeup.set()
            return
        if lacks_threads():
            if not needed:
                return
            logger.error(
                "uWSGI needs --enable-threads: without it no lease is renewed.",
                extra={"backend": self.alias},
            )
        name = f"django_distlock {self.alias}"
        thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.thread = thread  # first: an interruption of start() doesn't end it
        try:
            thread.start()
        except RuntimeError:  # no more threads, or the interpreter is about to end
            self.thread = None
            if needed:
                logger.exception(
                    "No thread could be started: leases end without being renewed.",
                    extra={"backend": self.alias},
                )

    def _run(self) -> None:
        try:
            self._work_and_renew()
        finally:
            self.scans_at = WAKE_FOR_ANY  # start another thread, if an error ended this one

    def _work_and_renew(self) -> None:
        idle = False
        while not (idle and self._end()):
            self.scans_at = WAKE_FOR_ANY
            due = self.renewals.next_due()
            now = clocks.monotonic()
            # Otherwise each lease released before the scan would wake the thread again.
            if self._woken_for > now:
                due = min(due, self._woken_for)
            idle = due == math.inf
            self.scans_at = now + IDLE if idle else due
            if self._wakeup.wait(0 if self._work else self.scans_at - now):
                idle = False
            work = self._work.popleft() if self._work else None
            self.scans_at = WAKE_FOR_NONE
            if work is None and self.renewals.next_due() > clocks.monotonic():
                continue
            idle = False
            with self._watched():
                for step in (work, self.renewals.renew_due, connections.close_all):
                    if step is not None:
                        _survive(step)
        _survive(self._close)

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Mark leases that expire during the block as lost in time, however long the block takes.

        A store may hang in it, or a signal's receiver. The thread that does so ends with the block.
        """
        done = threading.Event()
        if len(self.renewals):
            name = f"django_distlock {self.alias} losses"
            watch = threading.Thread(target=self._watch, args=[done], name=name, daemon=True)
            with suppress(RuntimeError):  # no more threads: they are marked after the block
                watch.start()
        try:
            yield
        finally:
            done.set()

    def _watch(self, done: threading.Event) -> None:
        while not done.wait(self.renewals.next_end(within=WATCH_INTERVAL)):
            _survive(self.renewals.mark_expired)
            connections.close_all()  # opened by receivers

    def _close(self) -> None:
        with suppress(InvalidLockBackend):  # it was in the settings of a test that is over
            lock_backends[self.alias].close()

    def _end(self) -> bool:
        with self._changing:
            self.scans_at = WAKE_FOR_ANY
            is_used = clocks.monotonic() - self._used < IDLE
            if self._pinned or len(self.renewals) or self._work or is_used:
                return False
            self.thread = None
            return True


def _survive(step: Callable[[], object]) -> None:
    try:
        step()
    except BaseException as error:  # even sys.exit() in a signal's receiver
        clear_variables(error, None)
        logger.exception("Work of the background thread failed.")


backgrounds: dict[str, Background] = {}
"""Those of this process, by the alias of the store. See background()."""


def background(alias: str) -> Background:
    """Return the background of this store. Its thread need not run yet."""
    found = backgrounds.get(alias)
    return found or backgrounds.setdefault(alias, Background(alias))


def _renew_soon(alias: str) -> None:
    """Find out which leases ended with the store's connection, if any."""
    renewing = background(alias)
    renewing.submit(renewing.renewals.hasten)


on_lost_connection.append(_renew_soon)
os.register_at_fork(after_in_child=backgrounds.clear)
