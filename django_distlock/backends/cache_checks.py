"""Find the Django cache of a lock store, refuse unsuitable ones, and check what shares it."""

import re
from collections.abc import Collection
from typing import Any, Final
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from django.conf import settings
from django.core import checks
from django.core.cache import DEFAULT_CACHE_ALIAS, caches
from django.core.cache.backends.base import BaseCache
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from django_distlock.arguments import validate_text
from django_distlock.exceptions import InvalidLockBackend

# Classes by their paths: a client library that isn't installed need not be imported.
PYMEMCACHE: Final = "django.core.cache.backends.memcached.PyMemcacheCache"
PYLIBMC: Final = "django.core.cache.backends.memcached.PyLibMCCache"
DJANGO_REDIS: Final = "django_redis.cache.RedisCache"
REDIS: Final = "django.core.cache.backends.redis.RedisCache"

REDIS_CACHES: Final = (DJANGO_REDIS, REDIS)

PYLIBMC_REFUSAL: Final = f"is a PyLibMCCache: locks need pymemcache, so use {PYMEMCACHE!r}."
DATABASE_BACKEND: Final = "django_distlock.backends.database.DatabaseBackend"
SUITED: Final = {
    PYMEMCACHE: "django_distlock.backends.memcached.MemcachedBackend",
    **dict.fromkeys(REDIS_CACHES, "django_distlock.backends.redis.RedisBackend"),
}
"""The lock store for each cache that can keep locks."""

UNSUITED: Final = {
    "django.core.cache.backends.dummy.DummyCache": (
        "keeps nothing, and would grant each lock to everybody"
    ),
    "django.core.cache.backends.filebased.FileBasedCache": (
        "has no atomic add(): two processes can be granted one lock"
    ),
    "django.core.cache.backends.locmem.LocMemCache": (
        "is another one in each process, and culls locks that are held"
    ),
    "django.core.cache.backends.db.DatabaseCache": "culls locks that are held",
}
"""Why the other caches of Django can't keep locks."""


def find_cache(alias: str, cache: str, suited: Collection[str]) -> BaseCache:
    """Return a cache object for the lock store `alias`, or raise InvalidLockBackend.

    Its class is one of `suited`, or a subclass. The object is the store's own: those in
    `django.core.cache.caches` belong to a thread, and are closed when its request ends.
    """
    try:
        cache = validate_text("cache", cache, ", an alias in CACHES")
    except TypeError as error:
        raise InvalidLockBackend(f"DISTLOCK[{alias!r}]: {error}") from error
    name = f"DISTLOCK[{alias!r}]: cache {cache!r}"
    if cache not in caches.settings:
        known = ", ".join(map(repr, caches.settings))
        raise InvalidLockBackend(f"{name} is no alias of CACHES, which has {known}.")
    if _is_a(cache, PYLIBMC):  # whether or not pylibmc is installed
        raise InvalidLockBackend(f"{name} {PYLIBMC_REFUSAL}")
    try:
        found: BaseCache = caches.create_connection(cache)
    # ImportError: the client library isn't installed; KeyError: there is no BACKEND
    except (ImproperlyConfigured, ImportError, KeyError, ValueError, TypeError) as error:
        raise InvalidLockBackend(f"{name} can't be made: {error!r}") from error
    if not paths(type(found)) & set(suited):
        raise InvalidLockBackend(f"{name} {describe(type(found))}")
    return found


def paths(kind: type) -> set[str]:
    """Return the dotted paths of a class and of its bases."""
    return {f"{each.__module__}.{each.__qualname__}" for each in kind.__mro__}


def describe(kind: type) -> str:
    """Say which lock store suits a cache class, or why none does."""
    known = paths(kind)
    if PYLIBMC in known:
        return PYLIBMC_REFUSAL
    for path, backend in SUITED.items():
        if path in known:
            return f"is a {kind.__name__}: use BACKEND {backend!r}."
    for path, reason in UNSUITED.items():
        if path in known:
            return (
                f"is a {kind.__name__}, which {reason}: use BACKEND {DATABASE_BACKEND!r}, or a "
                "cache on Redis or Memcached."
            )
    return (
        f"is a {kind.__module__}.{kind.__qualname__}, of which it isn't known whether it can keep "
        f"locks. These can, and their subclasses: {', '.join(SUITED)}."
    )


def check_own_cache(alias: str, cache: str) -> list[checks.CheckMessage]:
    """Warn if a `cache.clear()` for other data would release all held locks."""
    others = [other for other in caches.settings if other != cache and share_server(other, cache)]
    reasons = []
    if cache == DEFAULT_CACHE_ALIAS:
        reasons.append("is what the site caches in")
    if others:
        reasons.append(f"is in the same place as {', '.join(map(repr, others))}")
    if not reasons:
        return []
    return [
        checks.Warning(
            f"DISTLOCK[{alias!r}]: cache {cache!r} {' and '.join(reasons)}: a clear() there "
            "releases all locks that are held.",
            hint="Give locks an alias of CACHES to themselves, on a server, or on Redis a "
            "database number, of its own.",
            id="distlock.W002",
        )
    ]


def check_ignored_exceptions(alias: str, cache: str) -> list[checks.CheckMessage]:
    """Warn if django-redis is configured to take a dead server for an empty cache."""
    options = caches.settings[cache].get("OPTIONS") or {}
    site = getattr(settings, "DJANGO_REDIS_IGNORE_EXCEPTIONS", False)
    if not (_is_a(cache, DJANGO_REDIS) and options.get("IGNORE_EXCEPTIONS", site)):
        return []
    return [
        checks.Warning(
            f"DISTLOCK[{alias!r}]: cache {cache!r} has IGNORE_EXCEPTIONS: cache calls can't tell a "
            "dead server from a key that is missing or taken. Lock calls can, since they are not "
            "affected by it: they raise LockBackendUnavailable.",
            hint="Take no locks by cache.add() there. If that is understood, silence this.",
            id="distlock.W003",
        )
    ]


def share_server(one: str, other: str) -> bool:
    """Return whether two aliases of CACHES share a server and, on Redis, a database."""
    return not locations(one).isdisjoint(locations(other))


def locations(cache: str) -> set[tuple[Any, ...]]:
    """Return the servers, and Redis databases, that keep the cache's entries."""
    configured = caches.settings[cache]
    if any(_is_a(cache, path) for path in UNSUITED):
        return set()
    options = configured.get("OPTIONS") or {}
    if _is_a(cache, DJANGO_REDIS):
        options = options.get("CONNECTION_POOL_KWARGS") or {}
    try:
        servers = servers_of(configured.get("LOCATION"))
        return {_location(server, options.get("db", 0)) for server in servers}
    except (TypeError, ValueError):  # of another library, or a mistake that it will report
        return set()


def servers_of(location: Any) -> list[Any]:
    """Return the servers of a LOCATION, in whichever form Django accepts."""
    if isinstance(location, str):
        return [server.strip() for server in re.split("[;,]", location) if server.strip()]
    return list(location or ())


def _location(server: Any, db: Any) -> tuple[Any, ...]:
    if not isinstance(server, str):
        host, port = server
    elif "://" in server:
        return _redis_location(urlsplit(server), db)
    elif server.startswith(("/", "unix:")):
        return "memcached", server.removeprefix("unix:")
    else:
        host, port = _split_port(server)
    return "memcached", _host(host), int(port)


def _redis_location(url: SplitResult, db: Any) -> tuple[Any, ...]:
    query = parse_qs(url.query)
    if url.scheme == "unix":
        return "redis", unquote(url.path), _number(query.get("db", [db])[0])
    in_path = url.path.strip("/")
    db = query.get("db", [in_path if in_path.isdecimal() else db])[0]
    return "redis", _host(url.hostname or "localhost"), url.port or 6379, _number(db)


def _split_port(server: str) -> tuple[str, str]:
    """Split `host`, `host:port`, `[::1]:port` or, as pylibmc has it, `host:port:weight`."""
    found = re.fullmatch(r"(\[[^]]*\]|[^:]*)(?::([0-9]+))?(?::[0-9]+)?", server)
    return (found[1].strip("[]"), found[2] or "11211") if found else (server, "11211")


def _host(host: str) -> str:
    host = host.lower()
    return "127.0.0.1" if host in ("localhost", "::1") else host


def _number(db: Any) -> int:
    return int(db) if str(db).isdecimal() else 0


def _is_a(cache: str, path: str) -> bool:
    """Return whether the cache is of that class; False if its class can't be imported."""
    try:
        kind = import_string(caches.settings[cache]["BACKEND"])
    except (ImportError, KeyError):
        return False
    return path in paths(kind)
