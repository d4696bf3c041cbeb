"""The libraries' `with` blocks, with a lease of two seconds: each as in its README.

A block waits for its lock. A library that can renew locks while they are held does so.
"""

from __future__ import annotations

import time
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from benchmarks.contenders import MUTEX, OURS, PGLOCK, REDIS_LOCK, REDIS_PY, RETRY, redis_client

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    import redis

    Block = Callable[[str, str], AbstractContextManager[Any]]
    """Takes a name, and where this package keeps the lock."""

TTL = 2


def ours(name: str, store: str) -> AbstractContextManager[Any]:
    """Return this package's block. It yields a lease, and is renewed."""
    from django_distlock import distributed_lock

    return distributed_lock(name, timeout=None, ttl=TTL, backend=store)


def redis_py(name: str, store: str) -> AbstractContextManager[Any]:
    """Return redis-py's block, which is not renewed."""
    lock: AbstractContextManager[Any] = client().lock(name, timeout=TTL)
    return lock


def redis_lock(name: str, store: str) -> AbstractContextManager[Any]:
    """Return python-redis-lock's block, which a thread renews."""
    from redis_lock import Lock

    lock: AbstractContextManager[Any] = Lock(client(), name, expire=TTL, auto_renewal=True)
    return lock


def pglock(name: str, store: str) -> AbstractContextManager[Any]:
    """Return django-pglock's block: its lock lasts as long as the connection to the database."""
    from pglock import advisory

    return advisory(name)


@contextmanager
def mutex(name: str, store: str) -> Iterator[None]:
    """Retry django-db-mutex's block, which doesn't wait. DB_MUTEX_TTL_SECONDS is its ttl."""
    from db_mutex.db_mutex import db_mutex
    from db_mutex.exceptions import DBMutexError

    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(db_mutex(name))
                break
            except DBMutexError:
                time.sleep(RETRY)
        yield


BLOCKS: dict[str, Block] = {
    REDIS_PY: redis_py,
    REDIS_LOCK: redis_lock,
    PGLOCK: pglock,
    MUTEX: mutex,
    OURS: ours,
}


@cache
def client() -> redis.Redis:
    """Return this process's client."""
    return redis_client(socket_timeout=TTL + 5)  # python-redis-lock waits in BLPOP for the ttl


def losses() -> tuple[type[Exception], ...]:
    """Return the errors that say that a lock was lost."""
    from db_mutex.exceptions import DBMutexTimeoutError
    from redis.exceptions import LockError
    from redis_lock import NotAcquired

    from django_distlock import LockLost

    return LockLost, LockError, NotAcquired, DBMutexTimeoutError
