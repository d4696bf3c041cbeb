"""The databases' own locks that with_lock takes, and tables that are missing or older."""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from django.db import connections

from django_distlock import lock_backends
from django_distlock.backends.database import connections as own
from django_distlock.management.with_lock.database_lock import SessionLock, database_lock
from tests.support.databases import another_session
from tests.support.processes import forked
from tests.support.with_lock import NAME

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextmanager
def own_lock(alias: str, semaphore: str = NAME) -> Iterator[Callable[[], None]]:
    """Hold the database's own lock in another process; yield a function that releases it."""
    close_sessions()
    (held, holds), (releasing, release) = os.pipe(), os.pipe()

    def hold() -> None:
        os.close(release)
        lock = database_lock(lock_backends[alias], semaphore)
        assert lock is not None
        assert lock.acquire()
        os.write(holds, b"held")
        os.read(releasing, 1)
        lock.release()

    with ExitStack() as files:
        for file in (held, releasing):
            files.callback(os.close, file)
        with forked(hold), ExitStack() as holding:
            holding.callback(os.close, release)
            os.close(holds)  # a child that fails ends the pipe, and this wait
            assert os.read(held, 4)
            yield holding.close


def close_sessions() -> None:
    """Close those that a forked child would share with this process."""
    own.close_own_connections()
    connections.close_all()


@contextmanager
def renamed(alias: str, change: str, undo: str) -> Iterator[Callable[[], None]]:
    """Change the table in the block, or until the yielded function is called."""

    def alter(sql: str) -> None:
        own.close_own_connections()
        with another_session(alias) as session, session.cursor() as cursor:
            cursor.execute(f"ALTER TABLE {sql}")

    with ExitStack() as undone:
        alter(change)
        undone.callback(alter, undo)
        yield undone.close


def without_table(alias: str) -> Any:
    """Hide the table in a block. See renamed()."""
    return renamed(alias, "distlock_lock RENAME TO elsewhere", "elsewhere RENAME TO distlock_lock")


def with_older_table(alias: str) -> Any:
    """Hide a column in a block, as if a migration had yet to add it. See renamed()."""
    return renamed(
        alias,
        "distlock_lock RENAME COLUMN holder TO elsewhere",
        "distlock_lock RENAME COLUMN elsewhere TO holder",
    )


def holder_of(alias: str) -> int | None:
    """Return the session that has the database's own lock."""
    lock = database_lock(lock_backends[alias], NAME)
    assert isinstance(lock, SessionLock)
    find = {
        "postgresql": "SELECT pid FROM pg_locks WHERE locktype = 'advisory'",
        "mysql": "SELECT IS_USED_LOCK(%(name)s)",
    }
    with another_session(alias) as session, session.cursor() as cursor:
        cursor.execute(find[session.vendor], lock.parameters)
        [found] = cursor.fetchone() or [None]
    return None if found is None else int(found)


def kill_holder(alias: str) -> int:
    """End the session that has the database's own lock; return which that was."""
    killed = holder_of(alias)
    assert killed is not None
    kill = {"postgresql": "SELECT pg_terminate_backend(%s)", "mysql": "KILL %s"}
    with another_session(alias) as session, session.cursor() as cursor:
        cursor.execute(kill[session.vendor], [killed])
    return killed
