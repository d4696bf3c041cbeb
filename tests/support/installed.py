"""The programs and libraries that the tests can use on this machine."""

from __future__ import annotations

import importlib
import os
import shutil
from importlib.util import find_spec
from pathlib import Path

# Debian keeps servers out of an ordinary user's PATH.
SERVER_PATHS = ("/usr/lib/postgresql/*/bin", "/usr/sbin", "/usr/local/sbin")
# The imports of example_project; the distributions have the same names.
EXAMPLE_MODULES = ("gunicorn", "httpx", "rich", "whitenoise")
# The libraries of green threads; likewise.
GREEN = ("eventlet", "gevent")


def missing() -> dict[str, str]:
    """Return what is not installed on this machine, and why that matters."""
    reasons = {
        "postgresql": _lacks(("initdb", "postgres"), "psycopg", "psycopg"),
        "pgbouncer": _lacks(("pgbouncer",), "psycopg", "psycopg"),
        "mariadb": _lacks(("mariadb-install-db", "mariadbd"), "MySQLdb", "mysqlclient"),
        "redis": _lacks(("redis-server",), "redis", "redis"),
        "redis_cluster": _lacks(("redis-server",), "redis", "redis"),
        "memcached": _lacks(("memcached",), "pymemcache", "pymemcache"),
        "spin": _lacks(("spin", "gcc"), "subprocess", "subprocess"),
        "gettext": _lacks(("xgettext", "msgfmt"), "subprocess", "subprocess"),
        "chromium": _lacks(() if find_chromium() else ("chromium",), "playwright", "playwright"),
        "example": next(filter(None, (_lacks((), name, name) for name in EXAMPLE_MODULES)), None),
        # Looked for, not imported: they warn, and prepare to replace parts of the standard library.
        **{name: f"{name} is not installed" for name in GREEN if not find_spec(name)},
    }
    return {name: reason for name, reason in reasons.items() if reason}


def find_chromium() -> str | None:
    """Return the path of the browser."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next(filter(None, map(shutil.which, names)), None)


def find(binary: str) -> str:
    """Return the path of a program that the tests require."""
    path = _which(binary)
    if path is None:
        raise RuntimeError(f"{binary} is not installed")
    return path


def _lacks(binaries: tuple[str, ...], module: str, distribution: str) -> str | None:
    for binary in binaries:
        if not _which(binary):
            return f"{binary} is not installed"
    try:
        importlib.import_module(module)
    except ImportError:
        return f"{distribution} is not installed"
    return None


def _which(binary: str) -> str | None:
    directories = [str(path) for pattern in SERVER_PATHS for path in Path("/").glob(pattern[1:])]
    return shutil.which(binary) or shutil.which(binary, path=os.pathsep.join(directories))
