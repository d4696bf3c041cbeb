"""The lock libraries that are compared, each used as in its README.

Each is a function that acquires a lock, waiting for it or failing if it is held, and returns a
function that releases it. A lock's object is made for each acquisition, since this package makes
one, too. Leases are for a minute. Only this package's are renewed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, cast

from benchmarks import stores

if TYPE_CHECKING:
    import redis

TTL = 60
OURS, BARE = "django-distlock", "bare-commands"
REDIS_PY, REDIS_LOCK = "redis-py", "python-redis-lock"
POTTERY, SHERLOCK = "pottery", "sherlock"
PGLOCK, MUTEX = "django-pglock", "django-db-mutex"
# This package's own stores, when they are compared; the second has this alias.
REDIS, LOCK_SERVER = "Redis", "lock server"
COMPARE_AND_DELETE = """
    if redis.call("GET", KEYS[1]) == ARGV[1] then
        return redis.call("DEL", KEYS[1])
    end
    return 0
"""

Release = Callable[[], Any]


class Acquire(Protocol):
    """Acquire the lock, and return a function that releases it."""

    def __call__(self, semaphore: str, *, wait: bool) -> Release: ...


def ours(backend: str = "default") -> Acquire:
    """Return this package, on a store that is configured."""
    # Not before Django is set up: importing its models needs that.
    from django_distlock import acquire_lock

    def acquire(semaphore: str, *, wait: bool) -> Release:
        lease = acquire_lock(semaphore, ttl=TTL, timeout=None if wait else 0, backend=backend)
        assert lease
        return lease.release

    return acquire


def bare() -> Acquire:
    """Return the least code that could lock; it can't wait."""
    client = redis_client()
    digest = client.script_load(COMPARE_AND_DELETE)

    def acquire(semaphore: str, *, wait: bool) -> Release:
        assert not wait
        assert client.set(semaphore, "owner", nx=True, px=TTL * 1000)
        return partial(client.evalsha, digest, 1, semaphore, "owner")

    return acquire


def redis_py() -> Acquire:
    """Return redis-py's own lock, which waits by asking every 0.1 s."""
    client = redis_client()

    def acquire(semaphore: str, *, wait: bool) -> Release:
        lock = client.lock(semaphore, timeout=TTL)
        assert lock.acquire(blocking=wait)
        return cast("Release", lock.release)

    return acquire


def redis_lock() -> Acquire:
    """Return python-redis-lock, which waits in BLPOP."""
    from redis_lock import Lock

    # A command may take 5 s by default: too short for a wait.
    client = redis_client(socket_timeout=TTL + 5)

    def acquire(semaphore: str, *, wait: bool) -> Release:
        lock = Lock(client, semaphore, expire=TTL)
        assert lock.acquire(blocking=wait)
        return cast("Release", lock.release)

    return acquire


def pottery() -> Acquire:
    """Return pottery's Redlock, of one server."""
    from pottery import Redlock

    masters = {redis_client()}

    def acquire(semaphore: str, *, wait: bool) -> Release:
        lock = Redlock(key=semaphore, masters=masters, auto_release_time=TTL)
        assert lock.acquire(blocking=wait)
        return lock.release

    return acquire


def sherlock() -> Acquire:
    """Return sherlock's lock in Redis."""
    from sherlock import RedisLock

    client = redis_client()

    def acquire(semaphore: str, *, wait: bool) -> Release:
        lock = RedisLock(semaphore, client=client, expire=TTL)
        assert lock.acquire(blocking=wait)
        return cast("Release", lock.release)

    return acquire


def pglock() -> Acquire:
    """Return django-pglock's advisory lock, on Django's connection in autocommit."""
    from pglock import advisory

    def acquire(semaphore: str, *, wait: bool) -> Release:
        block = advisory(semaphore) if wait else advisory(semaphore, timeout=0)
        assert block.__enter__()
        return partial(block.__exit__, None, None, None)

    return acquire


def redis_client(**options: Any) -> redis.Redis:
    """Return a client with its default settings."""
    import redis

    return redis.Redis.from_url(stores.location(), **options)


CONTENDERS: dict[str, Callable[[], Acquire]] = {
    OURS: ours,
    BARE: bare,
    REDIS_PY: redis_py,
    REDIS_LOCK: redis_lock,
    POTTERY: pottery,
    SHERLOCK: sherlock,
    PGLOCK: pglock,
    REDIS: ours,
    LOCK_SERVER: partial(ours, LOCK_SERVER),
}
