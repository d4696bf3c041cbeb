"""Servers for several stores at once, and Django set up to keep locks in each of them."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import django
from django.conf import settings
from django.core.management import call_command
from django.db import connections

from benchmarks import databases, stores
from tests.support import lock_servers, mariadb, memcached, postgresql, redis_servers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tests.support.servers import Server

POSTGRESQL, MARIADB, SQLITE = "PostgreSQL", "MariaDB", "SQLite"
REDIS, DJANGO_REDIS, MEMCACHED = "Redis", "Redis, django-redis", "Memcached"
LOCK_SERVER, MEMORY = "lock server", "memory"
DATABASES = {POSTGRESQL: "default", MARIADB: "mariadb", SQLITE: "sqlite"}
"""The alias of each database: other libraries use the default one."""
STORES = (POSTGRESQL, MARIADB, SQLITE, REDIS, DJANGO_REDIS, MEMCACHED, LOCK_SERVER, MEMORY)
"""The stores of this package. Each is the alias of a lock backend, too."""
SHARED = STORES[:-1]
"""Those that several processes share."""
BACKENDS = {
    MEMCACHED: "memcached.MemcachedBackend",
    REDIS: "redis.RedisBackend",
    DJANGO_REDIS: "redis.RedisBackend",
}
IN_MEMORY = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}


@contextmanager
def started(
    names: Sequence[str], *apps: str, hiredis: bool = False, **others: Any
) -> Iterator[dict[str, Server]]:
    """Start the servers of these stores, and stop them at the end of the block; return them.

    `apps` are installed, and have their tables in each database. `others` are further settings.
    """
    if not hiredis:
        stores.hide_hiredis()
    servers: dict[str, Server] = {}
    with ExitStack() as stack:
        directory = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="distlock-benchmark-"))
        )
        for kind, (start, users) in STARTERS.items():
            if not users.isdisjoint(names):
                servers[kind] = stack.enter_context(start())
        used = {
            DATABASES[name]: _database(name, servers, directory)
            for name in names
            if name in DATABASES
        }
        settings.configure(
            CACHES={name: _cache(name, servers) for name in names if name in BACKENDS},
            DATABASES={"default": IN_MEMORY} | used,
            DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
            DISTLOCK={name: _backend(name, servers) for name in names},
            INSTALLED_APPS=["django_distlock", *apps],
            USE_TZ=True,
            **others,
        )
        django.setup()
        for alias in settings.DATABASES:
            call_command("migrate", database=alias, verbosity=0)
        try:
            yield servers
        finally:
            connections.close_all()


STARTERS: dict[str, tuple[Callable[[], Server], set[str]]] = {
    POSTGRESQL: (lambda: postgresql.start_postgresql(durable=True), {POSTGRESQL}),
    MARIADB: (lambda: mariadb.start_mariadb(durable=True), {MARIADB}),
    REDIS: (redis_servers.start_redis, {REDIS, DJANGO_REDIS}),
    MEMCACHED: (memcached.start_memcached, {MEMCACHED}),
    LOCK_SERVER: (lock_servers.start_lock_server, {LOCK_SERVER}),
}
"""How each server is started, and the stores that use it."""


def _database(name: str, servers: dict[str, Server], directory: Path) -> dict[str, Any]:
    if name == SQLITE:
        return databases.sqlite_settings(directory / "locks.sqlite3")
    return servers[name].settings


def _cache(name: str, servers: dict[str, Server]) -> dict[str, Any]:
    server = servers[MEMCACHED if name == MEMCACHED else REDIS].settings
    address = f"{server['HOST']}:{server['PORT']}"
    if name == MEMCACHED:
        path = "django.core.cache.backends.memcached.PyMemcacheCache"
        return {"BACKEND": path, "LOCATION": address}
    if name == DJANGO_REDIS:  # a database of its own, or both stores would share their locks
        return {"BACKEND": stores.CACHES["django-redis"], "LOCATION": f"redis://{address}/1"}
    return {"BACKEND": stores.CACHES["django"], "LOCATION": f"redis://{address}/0"}


def _backend(name: str, servers: dict[str, Server]) -> dict[str, Any]:
    if name in DATABASES:
        path, options = "database.DatabaseBackend", {"using": DATABASES[name]}
    elif name in BACKENDS:
        path, options = BACKENDS[name], {"cache": name}
    elif name == LOCK_SERVER:
        path, options = "server.ServerBackend", lock_servers.options_of(servers[name])
    else:
        path, options = "memory.MemoryBackend", {}
    return {"BACKEND": f"django_distlock.backends.{path}", "OPTIONS": options}
