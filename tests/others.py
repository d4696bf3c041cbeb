"""What tests of transactions do in the place of others: of threads, operators and servers."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from asgiref.sync import sync_to_async
from django.db import connections

from django_distlock import Lease, acquire_lock, lock_backends

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from django_distlock.backends.database.connections import OwnConnection

T = TypeVar("T")


class Interrupted(BaseException):
    """What a signal's handler raises."""


def acquire(alias: str, semaphore: str = "a", **arguments: Any) -> Lease:
    """Acquire what must be free."""
    lease = acquire_lock(semaphore, backend=alias, **arguments)
    assert lease is not None
    return lease


def until(condition: Callable[[], bool]) -> None:
    """Wait for what no event tells of."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def elsewhere(call: Callable[[], T]) -> T:
    """Call in another thread, as another request would."""

    def work() -> T:
        try:
            return call()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(work).result(60)


@contextmanager
def used_elsewhere(connection: OwnConnection) -> Iterator[None]:
    """Have another thread use one of the locks' own connections in the block."""
    using, done = threading.Event(), threading.Event()

    def use() -> None:
        with connection.lock:
            connection.is_used = True
            using.set()
            done.wait(60)
            connection.is_used = False

    thread = threading.Thread(target=use)
    thread.start()
    try:
        assert using.wait(60)
        yield
    finally:
        done.set()
        thread.join(60)


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run async code, and close what it opened in the thread that asgiref has for sync code."""

    async def run_and_close() -> T:
        try:
            return await main
        finally:
            await sync_to_async(connections.close_all)()

    return asyncio.run(run_and_close())


def free_for_others(alias: str, *, timeout: float = 0) -> bool:
    """Tell whether another thread gets the lock, and let it give it back."""

    def take_and_return() -> bool:
        lease = acquire_lock("a", backend=alias, timeout=timeout)
        return lease is not None and lease.release()

    return elsewhere(take_and_return)


def outlast(lease: Lease) -> None:
    """Wait until the lease has expired by the local clock."""
    while lease.remaining:
        time.sleep(lease.remaining)


def take_away(lease: Lease) -> None:
    """Force the release, as an operator would."""
    token = lease.token
    assert token is not None
    assert elsewhere(lambda: lock_backends[lease.backend].force_release(lease.semaphore, token))


def kill_session(alias: str) -> None:
    """Let another session end this thread's."""
    own, kill = {
        "postgresql": ("SELECT pg_backend_pid()", "SELECT pg_terminate_backend(%s)"),
        "mysql": ("SELECT connection_id()", "KILL %s"),
    }[connections[alias].vendor]
    with connections[alias].cursor() as cursor:
        cursor.execute(own)
        (session,) = cursor.fetchone()
    other = connections[alias].copy()
    with other.cursor() as cursor:
        cursor.execute(kill, [session])
    other.close()


def sessions(alias: str) -> int:
    """Return how many sessions the server has; SQLite has none."""
    query = {
        "postgresql": "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'",
        "mysql": "SELECT count(*) FROM information_schema.processlist WHERE user = 'root'",
        "sqlite": "SELECT 0",
    }
    with connections[alias].cursor() as cursor:
        cursor.execute(query[connections[alias].vendor])
        return int(cursor.fetchone()[0])


class isolated:  # noqa: N801 - a block
    """Connect with another isolation level in the block."""

    def __init__(self, alias: str, level: str) -> None:
        self.connection = connections[alias]
        self.level: Any = level
        if self.connection.vendor == "postgresql":
            from django.db.backends.postgresql.psycopg_any import IsolationLevel

            self.level = IsolationLevel[level.upper().replace(" ", "_")]

    def __enter__(self) -> None:
        self.connection.close()
        self.connection.settings_dict["OPTIONS"]["isolation_level"] = self.level

    def __exit__(self, *exception: object) -> None:
        self.connection.close()
        del self.connection.settings_dict["OPTIONS"]["isolation_level"]


@contextmanager
def holding(alias: str, semaphore: str = "a", **arguments: Any) -> Iterator[Lease]:
    """Hold what must be free; at the end it is, though the lease may be thought to be lost."""
    lease = acquire(alias, semaphore, **arguments)
    try:
        yield lease
    finally:
        if not lease.release():
            lock_backends[alias].release(lease)


@contextmanager
def paused_before_writing(alias: str, meanwhile: Callable[[], object]) -> Iterator[None]:
    """Let another thread do this right before the block's first UPDATE is sent.

    Or BEGIN, where others can't write from then on, as on SQLite.
    """
    pauses = [meanwhile]

    def pause(execute: Any, sql: str, *arguments: Any) -> Any:
        if pauses and sql.startswith(("BEGIN", "UPDATE")):
            elsewhere(pauses.pop())
        return execute(sql, *arguments)

    with connections[alias].execute_wrapper(pause):
        yield
    assert not pauses
