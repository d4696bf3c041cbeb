"""The thread that writes this process's events, in batches.

It is apart from those that renew leases: a database that hangs costs no lease. Its connections are
its own, so no transaction of other code is touched; they are closed after each batch.
"""

import atexit
import os
import threading
from collections import defaultdict, deque
from datetime import datetime
from typing import Final, NamedTuple

from django.db import DataError, IntegrityError, connections

from django_distlock import clocks
from django_distlock.arguments import printable
from django_distlock.concurrency.wakeups import Wakeup
from django_distlock.logs import room_logger
from django_distlock.models import LockEvent
from django_distlock.records import EventKind
from django_distlock.redaction.tracebacks import clear_variables
from django_distlock.threads import NoThread, start_daemon

from .databases import Place

logger = room_logger("events")

DELAY: Final = 1.0
"""Seconds for which events are collected before they are written."""
LONGEST_DELAY: Final = 30.0
"""Seconds between two attempts while a database can't be written to, at most."""
IDLE: Final = 60.0
"""Seconds without an event after which the thread ends."""
MOST: Final = 10_000
"""How many events wait to be written, at most; further ones are dropped."""
BATCH: Final = 500
"""How many are written by one statement."""
AT_EXIT: Final = 3.0
"""Seconds that the end of the process waits for the last ones to be written."""
REPEATED: Final = 60.0
"""Seconds until the same warning is repeated."""
REFUSED: Final = (DataError, IntegrityError, OverflowError, TypeError, ValueError)
"""The errors for a row that can't be written."""


class Event(NamedTuple):
    """An event that is to be written; durations are in seconds. See LockEvent."""

    place: Place
    kind: EventKind
    backend: str
    semaphore: str
    at: datetime
    token: int | None = None
    holder: str = ""
    waited: float | None = None
    held: float | None = None
    by: str = ""
    reason: str = ""

    def row(self) -> LockEvent:
        """Return the row to write."""
        return LockEvent(
            kind=self.kind.value,
            backend=self.backend,
            semaphore=self.semaphore,
            at=self.at,
            token=self.token,
            holder=printable(self.holder),
            waited=_microseconds(self.waited),
            held=_microseconds(self.held),
            by=printable(self.by),
            reason=printable(self.reason),
        )


class Writer:
    """The events of this process that are not written yet, and the thread that writes them."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Forget the events, as in a forked child: they are the parent's."""
        self._events: deque[Event] = deque()
        self._dropped = 0
        self._added = Wakeup()
        self._is_awake = False
        self._ending = threading.Event()
        # Reentrant: a finalizer or a signal handler may add an event while it is held.
        self._starting = threading.RLock()
        self._thread: threading.Thread | None = None
        self._warned: dict[str, float] = {}

    def add(self, event: Event) -> None:
        """Write the event soon. Safe in a finalizer and in an event loop: waits for nothing."""
        if len(self._events) >= MOST:
            self._dropped += 1
            return
        self._events.append(event)
        if not self._is_awake:
            self._is_awake = True
            self._wake()

    def _wake(self) -> None:
        with self._starting:
            if self._thread is None or not self._thread.is_alive():
                self._ending.clear()
                self._thread = threading.Thread(target=self._run, name="django_distlock events")
                try:
                    start_daemon(self._thread)
                except NoThread as error:
                    self._thread = None
                    self.warn("Events are only written when the process ends: %s", error)
            self._added.set()

    def finish(self, seconds: float) -> None:
        """Write all events that there are, and end the thread; wait so long for it at most."""
        thread = self._thread
        if thread is None or not thread.is_alive():
            self._write()
            return
        self._ending.set()
        self._added.set()
        thread.join(seconds)

    def _run(self) -> None:
        delay = DELAY
        while self._added.wait(IDLE) or not self._end():
            self._ending.wait(delay)
            self._is_awake = False
            is_done = self._write()
            connections.close_all()
            if self._ending.is_set() and (self._end() or not is_done):
                return
            delay = DELAY if is_done else min(2 * delay, LONGEST_DELAY)
            if not is_done:
                self._is_awake = True
                self._added.set()

    def _end(self) -> bool:
        """Tell whether there is nothing to write. Then the next event starts another thread."""
        with self._starting:
            if self._events:
                return False
            self._thread = None
            return True

    def _write(self) -> bool:
        """Write the events; return whether there is none left that may be written later."""
        events = [self._events.popleft() for _ in range(len(self._events))]
        is_done = True
        for using, group in _by_database(events).items():
            try:
                LockEvent.objects.using(using).bulk_create(
                    [event.row() for event in group], batch_size=BATCH
                )
            except REFUSED:
                self._write_each(using, group)
            except Exception as error:  # noqa: BLE001 - whatever it is, locks go on
                clear_variables(error, None)
                is_done = False
                self._events.extendleft(reversed(group))
                self.warn("Events of locks can't be written to %r, retrying: %s", using, error)
        if self._dropped:
            dropped, self._dropped = self._dropped, 0
            self.warn("%d events of locks were dropped: there were too many at once.", dropped)
        return is_done

    def _write_each(self, using: str, events: list[Event]) -> None:
        """Write events one by one: the database refuses at least one of them."""
        for event in events:
            try:
                event.row().save(using=using, force_insert=True)
            except Exception as error:  # noqa: BLE001 - the others are to be written
                self.warn("An event of %r was refused: %s", event.semaphore, error)

    def warn(self, message: str, *arguments: object) -> None:
        """Log a warning, unless the same message was logged lately."""
        now = clocks.monotonic()
        if now - self._warned.get(message, -REPEATED) >= REPEATED:
            self._warned[message] = now
            logger.warning(message, *arguments)


def _by_database(events: list[Event]) -> dict[str, list[Event]]:
    """Group the events; what a test left is not written to the database that comes after it."""
    found: defaultdict[str, list[Event]] = defaultdict(list)
    for event in events:
        if event.place.is_current():
            found[event.place.using].append(event)
    return found


def _microseconds(seconds: float | None) -> int | None:
    return None if seconds is None else max(0, round(seconds * 1_000_000))


writer: Final = Writer()
"""This process's."""
os.register_at_fork(after_in_child=writer.forget)


def write_at_exit() -> None:
    """Write the last events when the process ends, after it has released its leases."""
    atexit.register(writer.finish, AT_EXIT)
