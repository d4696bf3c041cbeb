"""A benchmark's own store, Redis or a database, and Django set up to keep locks in it."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import django
from django.conf import settings

from benchmarks import databases
from tests.support import redis_servers

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from tests.support.servers import Server

REDIS = "redis"
STORES = (REDIS, *databases.DATABASES)
CACHES = {
    "django": "django.core.cache.backends.redis.RedisCache",
    "django-redis": "django_redis.cache.RedisCache",
}
LOCKS_IN_REDIS = {
    "BACKEND": "django_distlock.backends.redis.RedisBackend",
    "OPTIONS": {"cache": "default"},
}
CONFIGURED = (
    "CACHES",
    "DATABASES",
    "DATABASE_ROUTERS",
    "DB_MUTEX_TTL_SECONDS",
    "DEFAULT_AUTO_FIELD",
    "DISTLOCK",
    "INSTALLED_APPS",
    "USE_TZ",
)


def add_redis_options(parser: argparse.ArgumentParser) -> None:
    """Add options for the connection of the locks' cache to Redis."""
    parser.add_argument("--cache", choices=CACHES, default="django", help="default: %(default)s")
    parser.add_argument("--hiredis", action="store_true", help="let redis-py use it, for all alike")


@contextmanager
def store(options: argparse.Namespace, *apps: str) -> Iterator[None]:
    """Start the store that the options name, and stop it at the end of the block.

    Unless `options.durable` says so, PostgreSQL doesn't wait for the disk when it commits.
    """
    if options.store == REDIS:
        with redis(options):
            yield
    else:
        with databases.database(options.store, *apps):
            if options.store == "postgresql" and not options.durable:
                databases.commit_without_waiting()
            yield


@contextmanager
def redis(
    options: argparse.Namespace, others: dict[str, dict[str, Any]] | None = None
) -> Iterator[Server]:
    """Start a Redis server for a cache that keeps locks; its address is the cache's LOCATION.

    `others` are further lock backends, as DISTLOCK has them.
    """
    if not options.hiredis:
        hide_hiredis()
    with redis_servers.start_redis() as server:
        place = server.settings
        location = f"redis://{place['HOST']}:{place['PORT']}/0"
        settings.configure(
            CACHES={"default": {"BACKEND": CACHES[options.cache], "LOCATION": location}},
            # Unused, but a site has one.
            DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
            DISTLOCK={
                "default": LOCKS_IN_REDIS,
                **(others or {}),
            },
            INSTALLED_APPS=["django_distlock"],
            USE_TZ=True,
        )
        django.setup()
        yield server


def location() -> str:
    """Return the address of the Redis server."""
    places = (str(cache["LOCATION"]) for cache in settings.CACHES.values())
    return min(place for place in places if place.startswith("redis:"))  # by its database


def describe(store: str) -> str:
    """Return the versions that the figures depend on."""
    if store != REDIS:
        return databases.describe()
    import redis
    from redis.utils import HIREDIS_AVAILABLE

    with redis.Redis.from_url(location()) as client:
        version = client.info("server")["redis_version"]
    parser = "with hiredis" if HIREDIS_AVAILABLE else "without hiredis"
    kind = settings.CACHES["default"]["BACKEND"]
    return f"Redis {version}, redis-py {redis.__version__} {parser}\n{kind}"


def configured() -> dict[str, Any]:
    """Return the settings, for the setup of another process."""
    return {name: getattr(settings, name) for name in CONFIGURED if hasattr(settings, name)}


def set_up(configured: dict[str, Any], *, hiredis: bool) -> None:
    """Set Django up in another process, with the first one's settings."""
    if not hiredis:
        hide_hiredis()
    settings.configure(**configured)
    django.setup()


def hide_hiredis() -> None:
    """Keep redis-py from using hiredis where that is installed: it looks when it is imported."""
    assert "redis" not in sys.modules
    sys.modules["hiredis"] = None  # type: ignore[assignment]


def has_hiredis() -> bool:
    """Return whether redis-py may use hiredis in this process."""
    return sys.modules.get("hiredis", sys) is not None
