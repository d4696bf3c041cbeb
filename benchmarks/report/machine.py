"""On what a run was measured: the machine's size, and versions. No names of hosts or paths."""

from __future__ import annotations

import os
import platform
from contextlib import closing
from importlib import metadata
from typing import TYPE_CHECKING, Any

import psutil
from django.conf import settings
from django.db import connections

from benchmarks import every_store, stores
from benchmarks.every_store import DATABASES, DJANGO_REDIS, LOCK_SERVER, MEMCACHED, REDIS

if TYPE_CHECKING:
    from collections.abc import Sequence

PACKAGES = (
    *("django-distlock", "django", "asgiref", "psycopg", "mysqlclient", "redis", "django-redis"),
    *("pymemcache", "python-redis-lock", "pottery", "sherlock", "django-pglock", "django-db-mutex"),
)


def machine() -> dict[str, str]:
    """Return the machine's size."""
    return {
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
    }


def versions(used: Sequence[str]) -> dict[str, str]:
    """Return the versions of Python, of the packages, and of the servers of these stores."""
    found = {"Python": platform.python_version()}
    found |= {name: metadata.version(name) for name in PACKAGES}
    found |= {name: server_version(name) for name in used if name in SERVERS}
    return found


def server_version(store: str) -> str:
    """Return the version of the store's server."""
    if store in DATABASES:
        return ".".join(map(str, connections[DATABASES[store]].get_database_version()))
    if store == REDIS:
        import redis

        with redis.Redis.from_url(stores.location()) as client:
            return str(client.info("server")["redis_version"])
    from pymemcache.client.base import Client

    with closing(Client(settings.CACHES[MEMCACHED]["LOCATION"])) as client:
        return str(client.version().decode())


SERVERS = set(every_store.STARTERS) - {LOCK_SERVER, DJANGO_REDIS} | set(DATABASES)


def about(used: Sequence[str], command: str) -> dict[str, Any]:
    """Return what is to be known about a run."""
    return {"command": command, "machine": machine(), "versions": versions(used)}
