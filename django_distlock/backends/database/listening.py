"""The thread that receives PostgreSQL's notifications for the waiters of this process.

A release hands the lock over to the first waiter in the table, and notifies its process: see
queue.py. The listener's session receives that, sends the process's heartbeat, and hands over
locks that expired.
"""

import atexit
import math
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from operator import methodcaller
from typing import Any, ClassVar, Final, TypeVar, cast

from django.db import connections
from django.db.backends.base.base import NO_DB_ALIAS, BaseDatabaseWrapper
from django.db.backends.signals import connection_created

from django_distlock import clocks
from django_distlock.backends import listening
from django_distlock.backends.listening import CannotListen
from django_distlock.backends.sockets.readiness import READ, readiness

from .connections import database_of, own_connections
from .errors import POSTGRESQL
from .own_connection import Make, OwnConnection
from .places import QueuedPlace
from .postgresql import PostgreSQLStatements
from .queue import SWEPT, TICK

T = TypeVar("T")

PROBING: Final = 1.0
"""Seconds within which a notification to ourselves has to arrive."""
SWEEPING: Final = 2.0
"""Seconds between two removals of the rows of waiters that are gone."""


@dataclass(frozen=True)
class Database:
    """A database in which locks are kept; connections to it are made as the first store says."""

    alias: str
    target: tuple[Any, ...]
    statements: Make
    connections: int = field(compare=False)
    timeout: float = field(compare=False)

    def __str__(self) -> str:
        return f"The database {self.alias!r}"


class Session:
    """A PostgreSQL session on which this process receives notifications."""

    def __init__(self, own: OwnConnection, deadline: float) -> None:
        self.own = own
        self.statements = cast("PostgreSQLStatements", own.statements(deadline))
        self.due_at = self.sweep_at = 0.0
        self.pid = -1
        """The server's number for the session."""
        self._driver: Any = self.statements.connection.connection

    def listen(self, process: int, heard: Callable[[int], object]) -> None:
        """Subscribe to what is sent to this process; `heard` is called with each number."""
        self._driver.add_notify_handler(lambda notification: heard(int(notification.payload)))
        self.pid = self.statements.listen(process)
        self._heard = heard
        self._wait = readiness(self._driver.fileno(), READ)

    def receive(self, seconds: float) -> None:
        """Wait for notifications for so many seconds at most."""
        if not self._wait(seconds):
            return
        connection = self._driver.pgconn
        connection.consume_input()
        while (notification := connection.notifies()) is not None:
            self._heard(int(notification.extra))


class Listener(listening.Listener[Database, QueuedPlace, Session]):
    """See listening.Listener."""

    suspensions: ClassVar[tuple[float, ...]] = (1.0, 5.0, 30.0, 300.0)

    def __init__(self, server: Database) -> None:
        super().__init__(server)
        self.process = secrets.randbits(62)
        self._heard_itself = False
        self._heartbeat_at = -math.inf

    def is_silent(self) -> bool:
        """Return whether the process has sent no heartbeat for a while."""
        return clocks.monotonic() - self._heartbeat_at > 1.5 * TICK

    @contextmanager
    def connect(self) -> Iterator[Session]:
        own = OwnConnection(self.server.alias, self.server.statements)
        try:
            session = Session(own, self._deadline())
            session.listen(self.process, self._hear)
            self._probe(session)
            yield session
            own.deadline = self._deadline()
            session.statements.forget(self.process)
        finally:
            own.close()

    def _probe(self, session: Session) -> None:
        """Raise CannotListen unless what another session sends arrives while ours is idle."""
        self._heard_itself = False
        pool = own_connections(self.server.alias, self.server.connections, self.server.statements)
        pool.do(methodcaller("notify", self.process), self._deadline())
        until, late = clocks.monotonic() + PROBING, False
        while not self._heard_itself:
            if late:
                raise CannotListen("no notification arrives: is there a pooler in between?")
            left = until - clocks.monotonic()
            late = left <= 0  # look once more: the process may have been stopped in between
            session.receive(max(0.0, left))

    def attend(self, connection: Session) -> float:
        if not self._places:
            return TICK
        if clocks.monotonic() >= connection.due_at:
            connection.own.deadline = self._deadline()
            self._tick(connection)
        return connection.due_at - clocks.monotonic()

    def receive(self, connection: Session, seconds: float) -> None:
        connection.receive(seconds)

    def failed(self, error: Exception, *, was_listening: bool) -> None:
        """Wake the waiters: they poll until the thread listens again."""
        for waiting in self.places():
            waiting.wake()

    def _hear(self, number: int) -> None:
        if not number:
            self._heard_itself = True
        elif (waiting := self._places.get(number)) is not None:
            waiting.offer()

    def _tick(self, session: Session) -> None:
        """Send the heartbeat; wake waiters that lost their rows, and hand over expired locks."""
        now = clocks.monotonic()
        waiting = {each.id: each for each in self.places() if each.id is not None}
        rows = session.statements.heartbeat(self.process, list(waiting))
        if rows[0][0] != session.pid:
            raise CannotListen("a pooler hands out another session for each statement")
        self._heartbeat_at = now
        pause, free = TICK, dict[str, QueuedPlace]()
        for _, found, semaphore, left in rows:
            place = waiting.pop(found, None)
            if left is None or place is None:
                continue
            if left <= 0:
                free.setdefault(semaphore, place)
            else:
                pause = min(pause, left / 1_000_000 + 0.001)
        for missing in waiting.values():
            missing.miss()
        for semaphore, place in free.items():
            if not self._try(partial(session.statements.offer_free, semaphore)):
                place.wake()  # a lock that was paused before its first grant has no row
        if now >= session.sweep_at:
            session.sweep_at = now + SWEEPING
            self._try(partial(self._sweep, session.statements))
        session.due_at = now + pause

    def _sweep(self, statements: PostgreSQLStatements) -> None:
        """Remove the rows of waiters that are gone without having left, ours and others'.

        Ours are the ones whose joining was interrupted, or whose leaving failed. A row that is read
        here was written for a waiter that was among the places already.
        """
        for row, number in statements.waiters_of(self.process):
            if number not in self._places:
                statements.leave(row)
        statements.sweep(SWEPT)

    def _try(self, action: Callable[[], T]) -> T | None:
        """Do it, unless another transaction is in the way: then at the next tick."""
        try:
            return action()
        except Exception as error:
            if getattr(error, "sqlstate", None) not in POSTGRESQL:
                raise
            return None

    def _deadline(self) -> float:
        """Return until when the database has to answer."""
        return clocks.monotonic() + self.server.timeout


def listener(alias: str, size: int, statements: Make, timeout: float) -> Listener:
    """Return this process's listener for the database that DATABASES has now for the alias."""
    target = database_of(connections.settings[alias])
    return Listener.of(Database(alias, target, statements, size, timeout))


def close_listeners() -> None:
    """Close the sessions of all listeners of this process."""
    for each in list(listening.listeners.values()):
        if isinstance(each, Listener):
            each.close()


def _close_before_drop(connection: BaseDatabaseWrapper, **kwargs: Any) -> None:
    """Leave a database that may be about to be dropped: Django connects to none for that."""
    if connection.alias == NO_DB_ALIAS:
        close_listeners()


connection_created.connect(_close_before_drop, dispatch_uid="django_distlock.listeners")
atexit.register(close_listeners)
