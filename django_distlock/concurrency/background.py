"""The thread that a store has in each process that holds leases in it.

It renews them, and does what must not be done where its occasion arises. Each store has one of its
own, so that one that hangs costs nobody what he holds in another.
"""

import logging
import math
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from django.db import connections

from django_distlock import clocks
from django_distlock.conf import lock_backends
from django_distlock.exceptions import InvalidLockBackend
from django_distlock.redaction.tracebacks import clear_variables
from django_distlock.runtime import lacks_threads

from .renewal import Renewals
from .wakeups import Wakeup

if TYPE_CHECKING:
    from django_distlock.leases.lease import Lease

logger = logging.getLogger("django_distlock")

IDLE: Final = 60.0
"""Seconds after which the thread ends if there is nothing to renew and no work is expected.

What the store keeps open is closed then: an idle process needs no connection for locks.
"""

WATCH_INTERVAL: Final = 0.1
"""Seconds between two looks at which leases there are, while something may hang."""

WAKE_ME: Final = math.inf
WILL_LOOK: Final = -math.inf


class Background:
    """A daemon thread that is there as long as leases are to be renewed or work is expected.

    Where threads can't run, as in uWSGI without --enable-threads, none of that is done.
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
        # Reentrant: what is collected in between may leave a locked block that was abandoned.
        self._changing = threading.RLock()
        self.thread: threading.Thread | None = None
        # When the thread looks at the leases next. Before it looks at which there are, it wants to
        # be woken by whoever adds one meanwhile; so nobody has to take a lock for that.
        self.looks_at = WAKE_ME
        """When the thread looks at the leases next, by the local monotonic clock."""
        self._woken_for = -math.inf
        """When the lease was due that woke the thread last."""
        self._used = -math.inf
        """When the store was last used, by the local monotonic clock."""

    def renew(self, lease: "Lease") -> None:
        """Renew the lease until that is stopped, or nobody refers to it."""
        if lease.pid != self._pid:  # forked by somebody who doesn't call Python's hooks
            self._begin()
        self.renewals.add(lease)
        if lease.due < self.looks_at:
            self._woken_for = lease.due
            with self._changing:
                self._wake()

    def stop_renewal(self, lease: "Lease") -> None:
        """Renew the lease no more. Safe in a finalizer."""
        self.renewals.remove(lease)

    def pin(self, user: object) -> None:
        """Keep the thread running until unpin(): the user may have work for it."""
        with self._changing:
            self._pinned.add(user)
            if not self._runs():
                self._wake()

    def close_when_idle(self) -> None:
        """Have what the store keeps open closed when it hasn't been used for IDLE seconds.

        Where no thread can be started, that is left to the end of the process.
        """
        self._used = clocks.monotonic()
        if not self._runs():
            with self._changing:
                if not self._runs():
                    self._wake(needed=False)

    def unpin(self, user: object) -> None:
        """Keep the thread for this user no longer. Safe in a finalizer."""
        self._pinned.discard(user)

    def submit(self, work: Callable[[], object]) -> None:
        """Let the thread do it. Safe in a finalizer: no lock is waited for, no thread started."""
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
            logger.error("uWSGI needs --enable-threads: without it no lease is renewed.")
        name = f"django_distlock {self.alias}"
        thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.thread = thread  # first: an interruption of start() doesn't end it
        try:
            thread.start()
        except RuntimeError:  # no more threads, or the interpreter is about to end
            self.thread = None
            if needed:
                logger.exception("No thread could be started: leases end without being renewed.")

    def _run(self) -> None:
        try:
            self._work_and_renew()
        finally:
            self.looks_at = WAKE_ME  # another thread, if this one was killed by an error

    def _work_and_renew(self) -> None:
        idle = False
        while not (idle and self._end()):
            self.looks_at = WAKE_ME
            due = self.renewals.next_due()
            now = clocks.monotonic()
            # Or else each lease that is released before we look would wake us once more.
            if self._woken_for > now:
                due = min(due, self._woken_for)
            idle = due == math.inf
            self.looks_at = now + IDLE if idle else due
            if self._wakeup.wait(0 if self._work else self.looks_at - now):
                idle = False
            work = self._work.popleft() if self._work else None
            self.looks_at = WILL_LOOK
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
        """Let the losses that fall due in the block be told in time, however long it takes.

        A store may hang in it, or a signal's receiver. The thread that tells them ends with it.
        """
        done = threading.Event()
        if len(self.renewals):
            name = f"django_distlock {self.alias} losses"
            watch = threading.Thread(target=self._watch, args=[done], name=name, daemon=True)
            with suppress(RuntimeError):  # no more threads: they are told after the block
                watch.start()
        try:
            yield
        finally:
            done.set()

    def _watch(self, done: threading.Event) -> None:
        while not done.wait(self.renewals.next_end(within=WATCH_INTERVAL)):
            _survive(self.renewals.mark_expired)
            connections.close_all()  # which receivers have opened

    def _close(self) -> None:
        with suppress(InvalidLockBackend):  # as when a test's settings had it, and are gone
            lock_backends[self.alias].close()

    def _end(self) -> bool:
        with self._changing:
            self.looks_at = WAKE_ME
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
        logger.exception("What was left to the background failed.")


backgrounds: dict[str, Background] = {}
"""Those of this process, by the store's alias: see background()."""


def background(alias: str) -> Background:
    """Return the thread of the store, which need not run yet."""
    found = backgrounds.get(alias)
    return found or backgrounds.setdefault(alias, Background(alias))


os.register_at_fork(after_in_child=backgrounds.clear)
