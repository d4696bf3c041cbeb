"""Caches and clients that can't be used for locks."""

from __future__ import annotations

from typing import Any

import pytest
import redis.asyncio
from django.core.cache.backends.redis import RedisCache
from django.test import override_settings
from django_redis.client import HerdClient, ShardClient  # type: ignore[import-untyped]
from redis import Redis, RedisCluster
from redis.exceptions import ConnectionError as RedisConnectionError

from django_distlock import InvalidLockBackend, LockBackendUnavailable, acquire_lock, lock_backends
from tests.support.ports import HOST, reserved_port
from tests.support.redis_settings import by, messages_of_checks
from tests.support.redis_stores import (
    ALIAS,
    DJANGO_REDIS,
)

pytestmark = pytest.mark.needs("redis")


# Clients of a site


def unreachable_client() -> Redis:
    """Fail like a client that connects at once while the server is down."""
    raise RedisConnectionError("nobody is there")


def unreachable_cluster() -> RedisCluster:
    """Fail in redis-py itself, which asks for the slots at once."""
    with reserved_port() as port:
        return RedisCluster(HOST, port)


def broken_client() -> Redis:
    """Fail as a callable with a bug."""
    raise ValueError("no such setting")


def async_client() -> Any:
    """Return a client that only async code can use."""
    return redis.asyncio.Redis()


def no_client() -> Any:
    """Return an object that is no client."""
    return {"host": HOST}


NOT_CALLABLE = 5


class OddCache(RedisCache):
    """A cache whose client can't be made."""

    @property
    def _cache(self) -> Any:
        raise OSError("no such file: /etc/redis.crt")


class OwnShardClient(ShardClient):  # type: ignore[misc]
    """A site's subclass of the shard client."""


class OwnHerdClient(HerdClient):  # type: ignore[misc]
    """A site's subclass of the herd client."""


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("unreachable_client", r"nobody is there$"),
        ("unreachable_cluster", r"Redis Cluster cannot be connected"),
    ],
)
def test_client_that_finds_no_server_is_reported_at_use(name: str, reason: str) -> None:
    """Not by a plain check: the servers need not run yet. The next call tries again."""
    client = f"{__name__}.{name}"
    match = rf"^DISTLOCK\['{ALIAS}'\]: client '{client}': {reason}"
    with override_settings(DISTLOCK=by(client=client)):
        for _ in range(2):
            with pytest.raises(LockBackendUnavailable, match=match):
                acquire_lock("1234collectPayment", backend=ALIAS)
        assert messages_of_checks(deployed=False) == []
        assert [message.id for message in messages_of_checks(deployed=True)] == ["distlock.E009"]


NEITHER = (
    r"give either cache, an alias of CACHES that django-redis or Django's RedisCache serves, or "
    r"client, the dotted path of a callable that returns a redis-py client\."
)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({}, NEITHER),
        ({"cache": "default", "client": f"{__name__}.no_client"}, NEITHER),
        (
            {"client": f"{__name__}.nowhere"},
            (
                rf"client '{__name__}\.nowhere' is no callable that returns a redis-py client: "
                r"ImportError\("
            ),
        ),
        ({"client": "nowhere"}, r"client 'nowhere' is no callable that .*: ImportError\("),
        ({"client": f"{__name__}.NOT_CALLABLE"}, r"client '.*' is no callable that .*: TypeError"),
        (
            {"client": f"{__name__}.broken_client"},
            (
                r"client '.*\.broken_client' is no callable that returns a redis-py client: "
                r"ValueError\('no such setting'\)"
            ),
        ),
        (
            {"client": f"{__name__}.async_client"},
            (
                r"a redis\.asyncio\.client\.Redis was given, but a redis\.Redis or "
                r"redis\.RedisCluster "
                r"is needed, for async code, too\."
            ),
        ),
        ({"client": f"{__name__}.no_client"}, r"a builtins\.dict was given, but a redis\.Redis"),
        ({"cache": "default"}, r"cache 'default' is a LocMemCache, which is another one in each"),
        ({"cache": "memcached"}, r"cache 'memcached' is a PyMemcacheCache: use BACKEND '"),
        ({"cache": "nowhere"}, r"cache 'nowhere' is no alias of CACHES, which has 'default'"),
        (
            {"client": f"{__name__}.no_client", "store_timeout": 0},
            r"store_timeout is 0, but must",
        ),
    ],
)
def test_settings_that_lead_to_no_servers_are_refused(options: dict[str, Any], reason: str) -> None:
    """By the checks and at use, with the reason; the deployment check doesn't repeat it."""
    caches = {
        "default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
        "memcached": {
            "BACKEND": "django.core.cache.backends.memcached.PyMemcacheCache",
            "LOCATION": f"{HOST}:1",
        },
    }
    with override_settings(CACHES=caches, DISTLOCK=by(**options)):
        check_refusal(reason)


def check_refusal(reason: str) -> None:
    """Check that the lock backend is refused, for this reason."""
    with pytest.raises(InvalidLockBackend, match=rf"^DISTLOCK\['{ALIAS}'\]: {reason}") as caught:
        lock_backends[ALIAS]
    [message] = messages_of_checks(deployed=False)
    assert (message.id, message.msg) == ("distlock.E001", str(caught.value))
    assert messages_of_checks(deployed=True) == []


UNSUITED = [
    ("sharded.ShardClient", r"which spreads keys over servers by itself: when the list of these"),
    ("herd.HerdClient", r"which keeps entries beyond their ttl, which suits a cache, not locks\."),
]


@pytest.mark.parametrize(("path", "reason"), UNSUITED)
def test_unsuitable_clients_of_django_redis_are_refused(path: str, reason: str) -> None:
    """Their subclasses are refused, too."""
    name = f"django_redis.client.{path}"
    advice = r".*\. Use django-redis's DefaultClient or SentinelClient\.$"
    for client in (name, f"{__name__}.Own{path.partition('.')[2]}"):
        cache = {
            "BACKEND": DJANGO_REDIS,
            "LOCATION": [f"redis://{HOST}:1/0"],
            "OPTIONS": {"CLIENT_CLASS": client},
        }
        with override_settings(CACHES={ALIAS: cache}, DISTLOCK=by(cache=ALIAS)):
            check_refusal(rf"cache '{ALIAS}' has CLIENT_CLASS '{name}', {reason}")
            with pytest.raises(InvalidLockBackend, match=advice):
                lock_backends[ALIAS]


@pytest.mark.parametrize(
    ("cache", "reason"),
    [
        (
            {"BACKEND": f"{__name__}.OddCache"},
            r" makes no client: OSError\('no such file: /etc/redis\.crt'\)",
        ),
        ({"BACKEND": DJANGO_REDIS, "LOCATION": f"{HOST}:1"}, r": in LOCATION, a URL can't be read"),
    ],
)
def test_cache_that_makes_no_client_is_refused(cache: dict[str, Any], reason: str) -> None:
    """The message has its error."""
    entry = {"LOCATION": f"redis://{HOST}:1/0", **cache}
    with override_settings(CACHES={ALIAS: entry}, DISTLOCK=by(cache=ALIAS)):
        check_refusal(rf"cache '{ALIAS}'{reason}")
