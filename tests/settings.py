"""Settings of the tests: each database has a lock backend of the same alias."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

SQLITE_OPTIONS = {
    "timeout": 20,
    "transaction_mode": "IMMEDIATE",
    "init_command": "PRAGMA journal_mode=WAL;",
}


def _sqlite(path: Path) -> dict[str, Any]:
    options = os.environ.get("DISTLOCK_TEST_SQLITE_OPTIONS")
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": str(path),
        "OPTIONS": SQLITE_OPTIONS if options is None else json.loads(options),
        # A file: threads and worker processes share it.
        "TEST": {"NAME": str(path.with_name(f"test_{path.name}"))},
    }


def _memcached() -> dict[str, Any]:
    """Read the cache on the server that the tests start."""
    if "DISTLOCK_TEST_MEMCACHED" not in os.environ:
        return {}
    place = json.loads(os.environ["DISTLOCK_TEST_MEMCACHED"])
    return {
        "memcached": {
            "BACKEND": "django.core.cache.backends.memcached.PyMemcacheCache",
            "LOCATION": f"{place['HOST']}:{place['PORT']}",
        }
    }


def _servers() -> dict[str, Any]:
    """Read the databases of the servers that the tests start."""
    variables = {
        "postgresql": "DISTLOCK_TEST_POSTGRESQL",
        "mariadb": "DISTLOCK_TEST_MARIADB",
    }
    return {
        # Django would have each depend on "default", which a run of some tests may not need.
        alias: json.loads(os.environ[variable]) | {"TEST": {"DEPENDENCIES": []}}
        for alias, variable in variables.items()
        if variable in os.environ
    }


def _caches() -> dict[str, Any]:
    """Return a cache of each client library, at the tests' Redis."""
    place = json.loads(os.environ.get("DISTLOCK_TEST_REDIS", "{}"))
    backends = {
        "redis": ("django_redis.cache.RedisCache", 1),
        "django_redis_cache": ("django.core.cache.backends.redis.RedisCache", 2),
    }
    return {
        alias: {
            "BACKEND": path,
            "LOCATION": f"redis://{place['HOST']}:{place['PORT']}/{db}",
            "KEY_PREFIX": "site",
        }
        for alias, (path, db) in backends.items()
        if place
    }


SECRET_KEY = "not a secret"
USE_TZ = True
TIME_ZONE = "Asia/Kathmandu"
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = os.environ.get("DISTLOCK_TEST_URLCONF", "tests.app.urls")
STATIC_URL = "static/"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
BAKER_CUSTOM_FIELDS_GEN = {
    "django_distlock.fields.SemaphoreField": "model_bakery.random_gen.gen_string"
}

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "django_distlock",
    "tests.app",
]

MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

FILE = Path(os.environ.get("DISTLOCK_TEST_SQLITE", f"{tempfile.gettempdir()}/distlock.sqlite3"))

DATABASES = {
    "default": _sqlite(FILE),
    "locks": _sqlite(FILE.with_name(f"locks_{FILE.name}")),  # a file of their own
    **_servers(),
}

# A variable makes a worker process serve its requests from one of them, with ATOMIC_REQUESTS.
if atomic := os.environ.get("DISTLOCK_TEST_ATOMIC"):
    DATABASES["default"] = DATABASES[atomic] | {"ATOMIC_REQUESTS": True}

CACHES = {
    "default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
    **_caches(),
    **_memcached(),
}


# Seconds. No store is taken for down because a busy machine is slow.
STORE_TIMEOUT = 60


def _lock_backend(path: str, **options: Any) -> dict[str, Any]:
    return {"BACKEND": path, "OPTIONS": {**options, "store_timeout": STORE_TIMEOUT}}


# A lock backend for each database; and the ways that other databases take, on these.
DISTLOCK = {
    alias: _lock_backend("django_distlock.backends.database.DatabaseBackend", using=alias, ttl=60)
    for alias in DATABASES
}
# The tests are one process, as far as the store in memory is concerned. And STORE_TIMEOUT is long.
SILENCED_SYSTEM_CHECKS = ["distlock.W005", "distlock.W014"]
DISTLOCK["memory"] = {"BACKEND": "django_distlock.backends.memory.MemoryBackend"}
DISTLOCK["minimal"] = {"BACKEND": "tests.app.backends.MinimalBackend"}
DISTLOCK |= {
    name: _lock_backend(f"tests.app.backends.{backend}", using=using, ttl=60)
    for name, backend, using in (
        ("orm", "ORMBackend", "default"),
        ("orm_postgresql", "ORMBackend", "postgresql"),
        ("mysql", "MySQLBackend", "mariadb"),
    )
    if using in DATABASES
}

REDIS = "django_distlock.backends.redis.RedisBackend"
DISTLOCK |= {
    alias: _lock_backend(REDIS, cache=alias)
    for alias in ("redis", "django_redis_cache")
    if alias in CACHES
}
DISTLOCK |= {
    alias: _lock_backend(REDIS, client="tests.app.backends.redis_cluster")
    for alias in ("redis_cluster",)
    if "DISTLOCK_TEST_REDIS_CLUSTER" in os.environ
}
DISTLOCK |= {
    alias: _lock_backend(
        "django_distlock.backends.server.ServerBackend", **json.loads(server)["OPTIONS"]
    )
    for alias in ("lock_server", "lock_server_unix", "lock_server_tls")
    if (server := os.environ.get(f"DISTLOCK_TEST_{alias.upper()}"))
}
if "memcached" in CACHES:
    DISTLOCK["memcached"] = _lock_backend(
        "django_distlock.backends.memcached.MemcachedBackend", cache="memcached"
    )
