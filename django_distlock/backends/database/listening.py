"""The waiters of this process on PostgreSQL, and the connection on which they are woken.

A release hands the lock over to the first waiter in the table, and notifies its process: see
postgresql.py. One thread of each process that waits hears that, and vouches for all its waiters.
"""

import atexit
import logging
import math
import os
import secrets
import selectors
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from operator import methodcaller
from typing import Any, Final

from django.db import connections
from django.db.backends.base.base import NO_DB_ALIAS, BaseDatabaseWrapper
from django.db.backends.signals import connection_created

from django_distlock import clocks
from django_distlock.runtime import lacks_threads

from .connections import OwnConnection, own_connections, place
from .errors import POSTGRESQL
from .places import QueuedPlace
from .postgresql import ALIVE, TICK, PostgreSQLStatements
from .statements import Statements

logger = logging.getLogger("django_distlock")

IDLE: Final = 60.0
"""Seconds without a waiter after which the connection is closed."""
DROWSY: Final = 1.0
"""Seconds without a waiter after which the thread has to be woken by the next one."""
ENDING: Final = 5.0
"""Seconds that its end is waited for."""
PROBING: Final = 1.0
"""Seconds in which a notification to ourselves has to arrive."""
DEAF: Final = (1.0, 5.0, 30.0, 300.0)
"""Seconds after which it is tried again, if it did not: the first time, and later on."""
SWEEPING: Final = 2.0
"""Seconds between two times that the rows of those who wait no more are removed."""
LONGEST_RETRY: Final = 1.0


class Deaf(Exception):
    """Notifications don't arrive: a pooler is in between that hands out sessions."""


class Listener:
    """A daemon thread that is there as long as there are waiters, and its connection."""

    def __init__(
        self,
        alias: str,
        size: int,
        statements: Callable[[BaseDatabaseWrapper], Statements],
        timeout: float,
    ) -> None:
        self.process = secrets.randbits(62)
        self.hears = False
        """Whether what is offered to the waiters is heard."""
        self.sleeps = False
        """Whether the thread has to be woken when a waiter comes."""
        self._alias = alias
        self._size = size
        self._make = statements
        self._timeout = timeout
        self._places: dict[int, QueuedPlace] = {}
        # Reentrant: a signal's handler, or what is collected in between, may wait for a lock, too.
        self._changing = threading.RLock()
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._heard_itself = False
        self._deaf_until = -1.0
        self._probed = 0
        self._vouched = -math.inf
        self._due = self._sweeps_at = 0.0
        self._poked, self._pokes = os.pipe()
        os.set_blocking(self._poked, False)
        os.set_blocking(self._pokes, False)

    def may_hear(self) -> bool:
        """Tell whether it is worth a try."""
        return self._deaf_until < 0 or clocks.monotonic() >= self._deaf_until

    def be_deaf(self) -> float:
        """Hear nothing for so many seconds: for longer each time, unless the last is long ago."""
        now = clocks.monotonic()
        if now - self._deaf_until > DEAF[-1]:
            self._probed = 0
        seconds = DEAF[min(self._probed, len(DEAF) - 1)]
        self._probed += 1
        self._deaf_until = now + seconds
        return seconds

    def is_silent(self) -> bool:
        """Tell whether the process has not vouched for its waiters for a while."""
        return clocks.monotonic() - self._vouched > 1.5 * TICK

    def add(self, waiter: QueuedPlace) -> bool:
        """Wake this waiter as soon as something is heard; False if that can't be done.

        Until then it tries again and again.
        """
        with self._changing:
            self._places[waiter.number] = waiter
            if self._thread is None and not self._start():
                return False
        if self.sleeps:
            self._poke()
        return True

    def remove(self, waiter: QueuedPlace) -> None:
        """Wake it no more."""
        self._places.pop(waiter.number, None)

    def close(self) -> None:
        """Listen no more, until the next waiter comes."""
        thread = self._thread
        if thread is None or thread is threading.current_thread():
            return
        self._stopping = True
        self._poke()
        thread.join(ENDING)

    def _poke(self) -> None:
        with suppress(BlockingIOError):  # it has been poked often enough
            os.write(self._pokes, b".")

    def _start(self) -> bool:
        if lacks_threads():
            return False
        name = f"django_distlock {self._alias} waiters"
        thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._stopping = False
        try:
            thread.start()
        except RuntimeError:  # no more threads, or the interpreter is about to end
            return False
        self._thread = thread
        return True

    def _work(self) -> None:
        pause = 0.0
        while not self._ended(pause):
            own = OwnConnection(self._alias, self._make)
            try:
                self._listen(own)
                pause = 0
            except Deaf:
                pause = self.be_deaf()
            except Exception as error:  # noqa: BLE001 - whatever it is, it is tried again
                logger.info("Waiting for locks goes on without being woken: %s", error)
                pause = min(2 * pause + TICK / 2, LONGEST_RETRY)
            finally:
                self.hears = self.sleeps = False
                own.close()
            for waiter in list(self._places.values()):
                waiter.wake()

    def _ended(self, pause: float) -> bool:
        """Wait before another try, and tell whether there is nobody to make it for."""
        if pause and self._places and not self._stopping:
            with selectors.DefaultSelector() as selector:
                selector.register(self._poked, selectors.EVENT_READ)
                self._wait(selector, None, pause)
        with self._changing:
            ended = self._stopping or not self._places
            if ended:
                self._thread = None
            return ended

    def _listen(self, own: OwnConnection) -> None:
        """Hear notifications until there has been nobody to wake for a while."""
        statements: Any = own.statements(self._deadline())
        driver = statements.connection.connection
        driver.add_notify_handler(lambda heard: self._hear(int(heard.payload)))
        session = statements.listen(self.process)
        with selectors.DefaultSelector() as selector:
            selector.register(driver.fileno(), selectors.EVENT_READ)
            selector.register(self._poked, selectors.EVENT_READ)
            self._probe(selector, driver)
            self._due = self._sweeps_at = 0
            self.hears = True
            last = clocks.monotonic()
            while not self._stopping:
                now = clocks.monotonic()
                if self._places:
                    last = now
                    if now >= self._due:
                        own.deadline = self._deadline()
                        self._tick(statements, session, now)
                    pause = self._due - clocks.monotonic()
                elif now - last >= IDLE:
                    break
                else:
                    pause = TICK
                    if now - last >= DROWSY:
                        self.sleeps = True
                        pause = 0 if self._places else last + IDLE - now
                self._wait(selector, driver, pause)
                self.sleeps = False
        own.deadline = self._deadline()
        statements.forget(self.process)

    def _deadline(self) -> float:
        """Return until when the database has to answer."""
        return clocks.monotonic() + self._timeout

    def _probe(self, selector: selectors.BaseSelector, driver: Any) -> None:
        """Raise Deaf unless what another session sends arrives while ours is idle."""
        self._heard_itself = False
        pool = own_connections(self._alias, self._size, self._make)
        pool.do(methodcaller("notify", self.process), self._deadline())
        until, late = clocks.monotonic() + PROBING, False
        while not self._heard_itself:
            if late:
                raise Deaf
            left = until - clocks.monotonic()
            late = left <= 0  # it looks once more, since the process may have been stopped
            self._wait(selector, driver, left)

    def _wait(self, selector: selectors.BaseSelector, driver: Any, seconds: float) -> None:
        for key, _ in selector.select(max(0, seconds)):
            if key.fd == self._poked:
                with suppress(BlockingIOError):
                    os.read(self._poked, 4096)
            else:
                connection = driver.pgconn
                connection.consume_input()
                while (heard := connection.notifies()) is not None:
                    self._hear(int(heard.extra))

    def _hear(self, number: int) -> None:
        if not number:
            self._heard_itself = True
        elif (waiter := self._places.get(number)) is not None:
            waiter.offer()

    def _tick(self, statements: PostgreSQLStatements, session: int, now: float) -> None:
        """Vouch for all waiters of the process, and see to it that none waits for nothing."""
        waiting = {each.id: each for each in list(self._places.values()) if each.id is not None}
        rows = statements.vouch(self.process, list(waiting))
        if rows[0][0] != session:
            raise Deaf
        self._vouched = now
        pause, free = TICK, set()
        for _, found, semaphore, left in rows:
            waiting.pop(found, None)
            if left is None:
                continue
            if left <= 0:
                free.add(semaphore)
            else:
                pause = min(pause, left / 1_000_000 + 0.001)
        for missing in waiting.values():
            missing.miss()
        for semaphore in free:
            self._try(partial(statements.hand_on, semaphore))
        if now >= self._sweeps_at:
            self._sweeps_at = now + SWEEPING
            self._try(partial(self._sweep, statements))
        self._due = now + pause

    def _sweep(self, statements: PostgreSQLStatements) -> None:
        """Remove who waits no more, but didn't get to say so: of other processes, and of ours.

        Of ours are those whose joining was interrupted, or whose leaving failed. A row that is read
        here was written for somebody who was among the places already.
        """
        for row, number in statements.waiters_of(self.process):
            if number not in self._places:
                statements.leave(row)
        statements.sweep(5 * ALIVE)

    def _try(self, action: Callable[[], object]) -> None:
        """Do it now, or at the next time, if another transaction is in the way."""
        try:
            action()
        except Exception as error:
            if getattr(error, "sqlstate", None) not in POSTGRESQL:
                raise


listeners: dict[tuple[Any, ...], Listener] = {}
"""Those of this process: see listener()."""
_inherited: list[Listener] = []


def listener(
    alias: str,
    size: int,
    statements: Callable[[BaseDatabaseWrapper], Statements],
    timeout: float,
) -> Listener:
    """Return this process's listener for the database that DATABASES has now for the alias."""
    key = (alias, *place(connections.settings[alias]), statements)
    found = listeners.get(key)
    if found is None:
        found = listeners.setdefault(key, Listener(alias, size, statements, timeout))
    return found


def close_listeners() -> None:
    """Close the connections of all listeners of this process."""
    for each in list(listeners.values()):
        each.close()


def _close_before_drop(connection: BaseDatabaseWrapper, **kwargs: Any) -> None:
    if connection.alias == NO_DB_ALIAS:
        close_listeners()


def _begin_anew() -> None:
    """Leave the parent's sockets alone, as a child that was forked: not even collect them."""
    _inherited.extend(listeners.values())
    listeners.clear()


connection_created.connect(_close_before_drop, dispatch_uid="django_distlock.listeners")
os.register_at_fork(after_in_child=_begin_anew)
atexit.register(close_listeners)
