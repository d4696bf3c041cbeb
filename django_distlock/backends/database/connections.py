"""The process's own connections for locks.

On PostgreSQL and MySQL's family, lock SQL doesn't run on the caller's connection. So a grant is
visible at once, survives the caller's rollback, and leaves the caller's transaction alone.
"""

import atexit
import os
import threading
from collections.abc import Callable
from functools import partial
from itertools import cycle
from typing import Any, TypeVar

from django.db import connections
from django.db.backends.base.base import NO_DB_ALIAS, BaseDatabaseWrapper
from django.db.backends.signals import connection_created

from django_distlock import clocks

from .errors import HARMLESS
from .own_connection import Make, OwnConnection
from .statements import Statements

T = TypeVar("T")


class InUse(TimeoutError):
    """Other threads used all connections until the deadline."""


class OwnConnections:
    """This process's connections to one database that are for locks alone."""

    def __init__(self, alias: str, size: int, make: Make) -> None:
        self.all = [OwnConnection(alias, make) for _ in range(size)]
        self._turns = cycle(self.all)
        self._users: set[int] = set()
        """The threads that use a connection or wait for one."""
        self.known: Statements | None = None
        """Statements that have been prepared once; their connection may be closed by now."""
        self._open_another = partial(OwnConnection, alias, make)

    def do(self, action: Callable[[Statements], T], deadline: float) -> T:
        """Do the action on the first free connection; TimeoutError if none is by the deadline.

        A signal's handler or the garbage collector may interrupt a thread in here and call this
        again. It would wait for a connection that its own thread uses, or for threads that wait for
        that one. So it opens another connection for this action alone.

        An exception may be raised at any point in here, too. Releasing a lock that this thread
        doesn't hold does no harm.
        """
        thread = threading.get_ident()
        if thread in self._users:
            return self._do_apart(action, deadline)
        try:
            self._users.add(thread)
            own = self._choose()
            try:
                if not own.lock.acquire(timeout=max(0, deadline - clocks.monotonic())):
                    raise InUse
                return own.do(action, deadline)
            except (*HARMLESS, InUse):
                raise
            except BaseException:
                self.suspect()
                raise
            finally:
                try:  # noqa: SIM105 - suppress() could be interrupted
                    own.lock.release()
                except RuntimeError:
                    pass
        finally:
            self._users.discard(thread)

    def _do_apart(self, action: Callable[[Statements], T], deadline: float) -> T:
        another = self._open_another()
        try:
            return another.do(action, deadline)
        finally:
            another.close()

    def _choose(self) -> OwnConnection:
        """Return the first free connection; if all are in use, each in turn."""
        for each in self.all:
            if not each.is_used:
                return each
        return next(self._turns)

    def close_idle(self) -> None:
        """Close the connections that no thread uses."""
        for each in self.all:
            each.close_if_idle()

    def suspect(self) -> None:
        """Close each connection before its next use."""
        for each in self.all:
            each.suspect()


_pools: dict[tuple[Any, ...], OwnConnections] = {}


def own_connections(alias: str, size: int, make: Make) -> OwnConnections:
    """Return this process's connections to the alias's current database."""
    # A test's database has another name under the same alias.
    key = (alias, *database_of(connections.settings[alias]), size, make)
    pool = _pools.get(key)
    if pool is None:
        pool = _pools.setdefault(key, OwnConnections(alias, size, make))
    return pool


def database_of(settings: dict[str, Any]) -> tuple[Any, ...]:
    """Return which database a connection with these settings leads to."""
    return settings["NAME"], settings["HOST"], settings["PORT"]


def close_own_connections() -> None:
    """Close all idle own connections of this process."""
    for pool in list(_pools.values()):
        pool.close_idle()


def _close_before_drop(connection: BaseDatabaseWrapper, **kwargs: Any) -> None:
    """Close all when Django connects to no database: it may be about to drop one."""
    if connection.alias == NO_DB_ALIAS:
        close_own_connections()


connection_created.connect(_close_before_drop, dispatch_uid="django_distlock.own_connections")
# Before a fork, not after it: a child that closes a shared socket would end the parent's session.
# A pool that another thread uses belongs to the parent; the child makes new ones.
os.register_at_fork(before=close_own_connections, after_in_child=_pools.clear)
atexit.register(close_own_connections)
