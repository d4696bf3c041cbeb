"""The Redis client that the settings name, and the servers that it leads to."""

from typing import Any, Final
from urllib.parse import urlsplit

from django.core.cache import caches
from django.utils.module_loading import import_string
from redis import Redis, RedisCluster
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisClusterException
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelConnectionPool

from django_distlock.arguments import validate_text
from django_distlock.backends.cache_checks import REDIS_CACHES, find_cache, paths, servers_of
from django_distlock.exceptions import InvalidLockBackend, LockBackendUnavailable
from django_distlock.redaction.credentials import UNREADABLE_URL

from .servers import Cluster, OneServer, Servers

_found: dict[tuple[Any, ...], Servers] = {}


def find_servers(
    alias: str, cache: str | None, client: str | None, timeout: float
) -> tuple[Servers, str]:
    """Return the servers that the settings name, and the prefix of the cache's keys.

    All threads of the process share them, and so their connections.
    """
    name = f"DISTLOCK[{alias!r}]"
    if client is not None and cache is None:
        try:
            client = validate_text("client", client, ", a dotted path")
        except TypeError as error:
            raise InvalidLockBackend(f"{name}: {error}") from error
        key: tuple[Any, ...] = "client", client, timeout
        found = _found.get(key) or _wrap(name, _call(name, client), timeout)
        return _found.setdefault(key, found), ""
    if cache is None or client is not None:
        raise InvalidLockBackend(
            f"{name}: give either cache, an alias of CACHES that django-redis or Django's "
            "RedisCache serves, or client, the dotted path of a callable that returns a redis-py "
            "client."
        )
    used: Any = find_cache(alias, cache, REDIS_CACHES)
    _check_urls(f"{name}: cache {cache!r}", caches.settings[cache].get("LOCATION"))
    key = "cache", cache, repr(caches.settings[cache]), timeout
    found = _found.get(key) or _wrap(name, _client_of(name, cache, used), timeout)
    return _found.setdefault(key, found), f"{used.key_prefix}:" if used.key_prefix else ""


def _check_urls(name: str, location: Any) -> None:
    """Raise for a URL that redis-py would misread without an error.

    A special character in a password ends the part with user, password and host.
    """
    for url in servers_of(location):
        if isinstance(url, str) and not _is_sound(url):
            raise InvalidLockBackend(f"{name}: in LOCATION, {UNREADABLE_URL}.")


def _is_sound(url: str) -> bool:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return False
    rest = parts.path + parts.fragment if parts.scheme != "unix" else ""
    if "@" not in parts.netloc:
        rest += parts.path + parts.query + parts.fragment
    return "://" in url and "@" not in rest


def _call(name: str, path: str) -> Any:
    """Return the client that the callable makes, or raise InvalidLockBackend."""
    try:
        return import_string(path)()
    except (RedisConnectionError, RedisClusterException) as error:
        raise LockBackendUnavailable(f"{name}: client {path!r}: {error}") from error
    except Exception as error:
        raise InvalidLockBackend(
            f"{name}: client {path!r} is no callable that returns a redis-py client: {error!r}"
        ) from error


def _client_of(name: str, alias: str, cache: Any) -> Any:
    """Return the redis-py client that the cache writes with."""
    try:
        if not hasattr(cache, "client"):
            return cache._cache.get_client(write=True)
        for path in paths(type(cache.client)):
            if reason := UNSUITED_CLIENTS.get(path):
                raise InvalidLockBackend(
                    f"{name}: cache {alias!r} has CLIENT_CLASS {path!r}, which {reason}. Use "
                    "django-redis's DefaultClient or SentinelClient."
                )
        return cache.client.get_client(write=True)
    except InvalidLockBackend:
        raise
    except Exception as error:
        raise InvalidLockBackend(f"{name}: cache {alias!r} makes no client: {error!r}") from error


UNSUITED_CLIENTS: Final = {
    "django_redis.client.sharded.ShardClient": (
        "spreads keys over servers by itself: when the list of these changes, a lock is looked up "
        "on another one, and granted again"
    ),
    "django_redis.client.herd.HerdClient": (
        "keeps entries beyond their ttl, which suits a cache, not locks"
    ),
}


def _wrap(name: str, client: Any, timeout: float) -> Servers:
    if isinstance(client, RedisCluster):
        return Cluster(client, timeout)
    if not isinstance(client, Redis):
        raise InvalidLockBackend(
            f"{name}: a {type(client).__module__}.{type(client).__qualname__} was given, but a "
            "redis.Redis or redis.RedisCluster is needed, for async code, too."
        )
    pool = client.connection_pool
    made = pool.connection_class
    if made.__module__.partition(".")[0] == "fakeredis":
        raise InvalidLockBackend(
            f"{name}: {made.__qualname__} of fakeredis has no socket. Start its TcpFakeServer and "
            "give its address, or let tests keep their locks in a MemoryBackend."
        )
    if isinstance(pool, SentinelConnectionPool):
        pool = _in_time(pool, timeout)
    return OneServer(pool, timeout)


def _in_time(pool: SentinelConnectionPool, timeout: float) -> SentinelConnectionPool:
    """Return a pool whose sentinels share half of the timeout."""
    manager = pool.sentinel_manager
    addresses = [sentinel.connection_pool.connection_kwargs for sentinel in manager.sentinels]
    each = timeout / 2 / max(1, len(addresses))
    options = {"socket_timeout": each, "socket_connect_timeout": each}
    bounded = Sentinel(  # type: ignore[no-untyped-call]
        [(address["host"], address["port"]) for address in addresses],
        manager.min_other_sentinels,
        {**manager.sentinel_kwargs, **options, "retry": Retry(NoBackoff(), 0)},
    )
    kwargs = {**pool.connection_kwargs, "connection_class": pool.connection_class}
    del kwargs["connection_pool"]
    return SentinelConnectionPool(pool.service_name, bounded, **kwargs)  # type: ignore[no-untyped-call]
