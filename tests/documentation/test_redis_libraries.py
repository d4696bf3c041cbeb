"""What docs/coming-from says of the locks of redis-py, django-redis and python-redis-lock."""

from __future__ import annotations

from threading import Event
from typing import TYPE_CHECKING, Any

import pytest

for library in ("redis", "redis_lock", "django_redis"):
    pytest.importorskip(library)

from django.core.cache import caches  # noqa: E402
from django.test import override_settings  # noqa: E402
from redis import ConnectionError as RedisConnectionError  # noqa: E402
from redis import Redis  # noqa: E402
from redis.exceptions import LockError, LockNotOwnedError  # noqa: E402
from redis_lock import Lock, NotAcquired, TimeoutTooLarge  # noqa: E402

from django_distlock import LockNotAcquired, distributed_lock  # noqa: E402
from tests.settings import STORE_TIMEOUT  # noqa: E402
from tests.support.concurrency import until  # noqa: E402
from tests.support.redis_servers import place  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.servers import Server

pytestmark = [pytest.mark.once, pytest.mark.needs("redis")]

NAME = "1234collectPayment"
DISTLOCK = {
    "default": {
        "BACKEND": "django_distlock.backends.redis.RedisBackend",
        "OPTIONS": {"cache": "locks", "store_timeout": STORE_TIMEOUT},
    }
}


@pytest.fixture
def url(redis_server: Server) -> str:
    """Return the address of an empty Redis server."""
    return "redis://{}:{}/0".format(*place(redis_server))


@pytest.fixture
def client(url: str) -> Iterator[Any]:
    """Return a client of it with default settings."""
    with Redis.from_url(url) as connected:
        yield connected


@pytest.fixture
def cache(url: str) -> Iterator[Any]:
    """Use the server as the cache "locks", which also keeps this package's locks."""
    configured = {
        "default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
        "locks": {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": url},
    }
    with override_settings(CACHES=configured, DISTLOCK=DISTLOCK):
        yield caches["locks"]


def expire(client: Any, key: str = NAME) -> None:
    """Have the holder's lease end, as after a long pause."""
    assert client.delete(key)


def test_redis_py_has_no_end_by_default(client: Any) -> None:
    """Such a lock outlives its holder's crash."""
    assert client.lock(NAME).acquire()
    assert client.pttl(NAME) == -1


def test_redis_py_waits_by_default(client: Any) -> None:
    """blocking_timeout bounds the wait, and `with` raises LockError then."""
    assert client.lock(NAME).acquire()
    other = client.lock(NAME, blocking_timeout=0.01)
    assert other.blocking
    assert not other.acquire()
    with pytest.raises(LockError), other:
        pytest.fail("somebody else has it")


def test_redis_py_extends_by_adding(client: Any) -> None:
    """extend() adds to what is left; reacquire() sets the whole timeout."""
    lock = client.lock(NAME, timeout=60)
    assert lock.acquire()
    lock.extend(60)
    assert 60 < client.pttl(NAME) / 1000 <= 120
    lock.reacquire()
    assert 0 < client.pttl(NAME) / 1000 <= 60


def test_redis_py_renews_nothing(client: Any) -> None:
    """A lease shorter than the work ends during the work."""
    lock = client.lock(NAME, timeout=0.02)
    assert lock.acquire()
    until(lambda: not client.exists(NAME))
    assert client.lock(NAME, timeout=60, blocking=False).acquire()
    with pytest.raises(LockNotOwnedError):
        lock.release()
    assert client.exists(NAME)


def test_redis_py_hides_the_error_of_the_block(client: Any) -> None:
    """LockNotOwnedError replaces it if the lock was lost. Here the block's own error wins."""
    with pytest.raises(LockNotOwnedError), client.lock(NAME, timeout=60):
        expire(client)
        raise ValueError


def test_redis_py_may_release_what_a_thread_has_not(client: Any) -> None:
    """A name is not enough: release() needs the object that acquired it."""
    assert client.lock(NAME, timeout=60).acquire()
    with pytest.raises(LockError):
        client.lock(NAME).release()


def test_django_redis_locks_a_key_of_the_cache(cache: Any) -> None:
    """It has the cache's prefix and version, and clear() frees it."""
    lock = cache.lock(NAME, timeout=60)
    assert lock.acquire()
    assert cache.keys("*") == [NAME]
    assert lock.name == f":1:{NAME}"
    cache.clear()
    assert cache.lock(NAME, timeout=60).acquire(blocking=False)


def test_django_redis_tells_of_a_server_that_is_down(unused_port: int) -> None:
    """IGNORE_EXCEPTIONS doesn't apply to locks: the error is redis-py's."""
    configured = {
        "BACKEND": "django_redis.cache.RedisCache",
        "LOCATION": f"redis://127.0.0.1:{unused_port}/0",
        "OPTIONS": {"IGNORE_EXCEPTIONS": True},
    }
    with override_settings(CACHES={"default": configured}):
        cache: Any = caches["default"]
        with pytest.raises(RedisConnectionError):
            cache.lock(NAME, timeout=60).acquire()


def test_python_redis_lock_has_no_end_and_no_renewal_by_default(client: Any) -> None:
    """Its key is `lock:` and the name; seconds are whole."""
    lock = Lock(client, NAME)
    assert lock.acquire()
    assert client.ttl(f"lock:{NAME}") == -1
    with Lock(client, "other", expire=1.9):
        assert client.pttl("lock:other") <= 1000


def test_python_redis_lock_refuses_waits_beyond_its_expiry(client: Any) -> None:
    """Unless it renews; here the wait and the lease have nothing to do with each other."""
    with pytest.raises(TimeoutTooLarge):
        Lock(client, NAME, expire=1).acquire(timeout=2)


def test_python_redis_lock_refuses_without_waiting(client: Any) -> None:
    """`with` then raises NotAcquired, as a lost lock does."""
    with Lock(client, NAME, expire=60):
        with pytest.raises(NotAcquired), Lock(client, NAME, expire=60, blocking=False):
            pytest.fail("somebody else has it")
    with pytest.raises(NotAcquired), Lock(client, NAME, expire=60):
        expire(client, f"lock:{NAME}")
        raise ValueError


def test_python_redis_lock_can_be_released_elsewhere(client: Any) -> None:
    """By its id, or by reset(), whoever holds it."""
    lock = Lock(client, NAME, expire=60)
    assert lock.acquire()
    Lock(client, NAME, id=lock.id).release()
    assert lock.acquire()
    Lock(client, NAME).reset()
    assert not lock.locked()


def test_python_redis_lock_ends_its_renewal_silently(
    client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A renewal that fails is the last one. The holder isn't told; threading's hook is."""
    told = Event()
    monkeypatch.setattr("threading.excepthook", lambda args: told.set())
    lock = Lock(client, NAME, expire=1, auto_renewal=True)  # each 2/3 s
    assert lock.acquire()
    expire(client, f"lock:{NAME}")
    assert told.wait(60)
    with pytest.raises(NotAcquired):
        lock.release()


@pytest.mark.parametrize("others", ["both", "new"])
def test_workers_of_the_switch_exclude_each_other(client: Any, cache: Any, others: str) -> None:
    """Of neighbouring deploys: old and both, both and new. Old and new wouldn't."""

    def old() -> Any:
        return client.lock(NAME, timeout=60, blocking=False)

    with old(), distributed_lock(NAME):  # a worker of the first deploy
        if others == "both":
            with pytest.raises(LockError), old():
                pytest.fail("the old lock is held")
        else:
            with pytest.raises(LockNotAcquired), distributed_lock(NAME):
                pytest.fail("the new lock is held")
    with old(), distributed_lock(NAME):  # both are free again
        pass
