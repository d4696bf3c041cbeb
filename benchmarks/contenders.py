"""The lock libraries that are compared, each used as in its README.

Each is a function that acquires a lock, waiting for it if it is to, and returns a function that
releases it; None if somebody else holds the lock. A lock's object is made for each acquisition,
since this package makes one, too. Leases are for a minute. Only this package's are renewed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, cast
from unittest.mock import patch

from benchmarks import stores
from benchmarks.every_store import (
    DJANGO_REDIS,
    POSTGRESQL,
    REDIS,
    STORES,
)

if TYPE_CHECKING:
    import redis

TTL = 60
RETRY = 0.05
"""Seconds between two tries of a library that doesn't wait."""
OURS, BARE = "django-distlock", "bare-commands"
REDIS_PY, REDIS_LOCK, CACHE_LOCK = "redis-py", "python-redis-lock", "django-redis"
POTTERY, SHERLOCK = "pottery", "sherlock"
PGLOCK, MUTEX = "django-pglock", "django-db-mutex"
UNQUEUED, GET_LOCK = "without a queue", "with GET_LOCK"
COMPARE_AND_DELETE = """
    if redis.call("GET", KEYS[1]) == ARGV[1] then
        return redis.call("DEL", KEYS[1])
    end
    return 0
"""

Release = Callable[[], Any]


class Acquire(Protocol):
    """Acquire the lock, and return a function that releases it; None if it is refused."""

    def __call__(self, semaphore: str, *, wait: bool) -> Release | None: ...


def take(acquire: Acquire, semaphore: str, *, wait: bool = True) -> Release:
    """Acquire a lock that can be had, and return the function that releases it."""
    release = acquire(semaphore, wait=wait)
    assert release
    return release


def ours(backend: str = "default") -> Acquire:
    """Return this package, on a store that is configured."""
    # Not before Django is set up: importing its models needs that.
    from django_distlock import acquire_lock

    def acquire(semaphore: str, *, wait: bool) -> Release | None:
        lease = acquire_lock(semaphore, ttl=TTL, timeout=None if wait else 0, backend=backend)
        return lease.release if lease else None

    return acquire


def unqueued() -> Acquire:
    """Return this package without its queue in a table: waiters poll, and the first one wins."""
    from django_distlock.backends.database import DatabaseBackend

    acquire_queued = ours()

    def acquire(semaphore: str, *, wait: bool) -> Release | None:
        with patch.object(DatabaseBackend, "join", return_value=None):
            return acquire_queued(semaphore, wait=wait)

    return acquire


def get_lock() -> Acquire:
    """Return this package with MySQL's GET_LOCK as the queue: its holder alone tries."""
    from django.db import connection

    acquire_unqueued = unqueued()

    def acquire(semaphore: str, *, wait: bool) -> Release | None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT GET_LOCK(%s, 60)", [semaphore])
            assert cursor.fetchone() == (1,)
            try:
                return acquire_unqueued(semaphore, wait=wait)
            finally:
                cursor.execute("DO RELEASE_LOCK(%s)", [semaphore])

    return acquire


def bare() -> Acquire:
    """Return the least code that could lock; it can't wait."""
    client = redis_client()
    digest = client.script_load(COMPARE_AND_DELETE)

    def acquire(semaphore: str, *, wait: bool) -> Release | None:
        assert not wait
        if not client.set(semaphore, "owner", nx=True, px=TTL * 1000):
            return None
        return partial(client.evalsha, digest, 1, semaphore, "owner")

    return acquire


def redis_py() -> Acquire:
    """Return redis-py's own lock, which waits by asking every 0.1 s."""
    client = redis_client()

    def acquire(semaphore: str, *, wait: bool) -> Release | None:
        lock = client.lock(semaphore, timeout=TTL)
        return cast("Release", lock.release) if lock.acquire(blocking=wait) else None

    return acquire


def redis_lock() -> Acquire:
    """Return python-redis-lock, which waits in BLPOP."""
    from redis_lock import Lock

    # A command may take 5 s by default: too short for a wait.
    client = redis_client(socket_timeout=TTL + 5)

    def acquire(semaphore: str, *, wait: bool) -> Release | None:
        lock = Lock(client, semaphore, expire=TTL)
        return cast("Release", lock.release) if lock.acquire(blocking=wait) else None

    return acquire


def pottery() -> Acquire:
    """Return pottery's Redlock, of one server."""
    from pottery import Redlock

    masters = {redis_client()}

    def acquire(semaphore: str, *, wait: bool) -> Release | None:
        lock = Redlock(key=semaphore, masters=masters, auto_release_time=TTL)
        return lock.release if lock.acquire(blocking=wait) else None

    return acquire


def sherlock() -> Acquire:
    """Return sherlock's lock in Redis."""
    from sherlock import RedisLock

    client = redis_client()

    def acquire(semaphore: str, *, wait: bool) -> Release | None:
        lock = RedisLock(semaphore, client=client, expire=TTL, timeout=TTL)
        return cast("Release", lock.release) if lock.acquire(blocking=wait) else None

    return acquire


def cache_lock() -> Acquire:
    """Return the lock of django-redis' cache, which is redis-py's."""
    from django.core.cache import caches

    cache: Any = caches[DJANGO_REDIS]

    def acquire(semaphore: str, *, wait: bool) -> Release | None:
        lock = cache.lock(semaphore, timeout=TTL)
        return cast("Release", lock.release) if lock.acquire(blocking=wait) else None

    return acquire


def mutex() -> Acquire:
    """Return django-db-mutex, which doesn't wait: it is tried again and again."""
    from db_mutex.db_mutex import db_mutex
    from db_mutex.exceptions import DBMutexError

    def acquire(semaphore: str, *, wait: bool) -> Release | None:
        block = db_mutex(semaphore)
        while True:
            try:
                block.__enter__()
            except DBMutexError:
                if not wait:
                    return None
                time.sleep(RETRY)
            else:
                return partial(block.__exit__, None, None, None)

    return acquire


def pglock() -> Acquire:
    """Return django-pglock's advisory lock, on Django's connection in autocommit."""
    from pglock import advisory

    def acquire(semaphore: str, *, wait: bool) -> Release | None:
        block = advisory(semaphore) if wait else advisory(semaphore, timeout=0)
        return partial(block.__exit__, None, None, None) if block.__enter__() else None

    return acquire


def redis_client(**options: Any) -> redis.Redis:
    """Return a client with its default settings."""
    import redis

    return redis.Redis.from_url(stores.location(), **options)


PEERS: dict[str, str] = {
    REDIS_PY: REDIS,
    REDIS_LOCK: REDIS,
    CACHE_LOCK: DJANGO_REDIS,
    POTTERY: REDIS,
    SHERLOCK: REDIS,
    PGLOCK: POSTGRESQL,
    MUTEX: POSTGRESQL,
}
"""The other libraries, and where each keeps its locks."""
CONTENDERS: dict[str, Callable[[], Acquire]] = {
    OURS: ours,
    **{store: partial(ours, store) for store in STORES},
    BARE: bare,
    REDIS_PY: redis_py,
    REDIS_LOCK: redis_lock,
    CACHE_LOCK: cache_lock,
    POTTERY: pottery,
    SHERLOCK: sherlock,
    PGLOCK: pglock,
    MUTEX: mutex,
    UNQUEUED: unqueued,
    GET_LOCK: get_lock,
}
"""Each contender by its name: this package's are those of its stores."""
