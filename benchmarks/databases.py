"""A benchmark's own database, configured as for real data, and Django set up to use it."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import django
from django.conf import settings
from django.core.management import call_command
from django.db import connection, connections

from tests.support import mariadb, postgresql

if TYPE_CHECKING:
    from collections.abc import Iterator

STARTERS = {"postgresql": postgresql.start_postgresql, "mariadb": mariadb.start_mariadb}
DATABASES = (*STARTERS, "sqlite")


@contextmanager
def database(name: str, *apps: str, **options: Any) -> Iterator[None]:
    """Start the server, create the apps' tables in it, and stop it at the end of the block.

    `options` are those of the lock backend; `using="locks"` is a second SQLite file.
    """
    with _databases(name) as databases:
        settings.configure(
            DATABASES=databases,
            DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
            DISTLOCK={
                "default": {
                    "BACKEND": "django_distlock.backends.database.DatabaseBackend",
                    "OPTIONS": options,
                }
            },
            INSTALLED_APPS=["django_distlock", *apps],
            USE_TZ=True,
        )
        django.setup()
        for alias in databases:
            call_command("migrate", database=alias, verbosity=0)
        try:
            yield
        finally:
            connections.close_all()


@contextmanager
def _databases(name: str) -> Iterator[dict[str, Any]]:
    if name in STARTERS:
        with STARTERS[name](durable=True) as server:
            yield {"default": server.settings}
    else:
        with tempfile.TemporaryDirectory(prefix="distlock-benchmark-") as directory:
            yield {
                alias: sqlite_settings(Path(directory, f"{alias}.sqlite3"))
                for alias in ("default", "locks")
            }


def sqlite_settings(file: Path) -> dict[str, Any]:
    """Return the settings of a database in this file."""
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": str(file),
        "OPTIONS": {
            "init_command": "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;",
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,
        },
    }


def describe() -> str:
    """Return the versions that the figures depend on."""
    version = ".".join(map(str, connection.get_database_version()))
    return f"{connection.display_name} {version}, Django {django.__version__}"


def commit_without_waiting() -> None:
    """Make PostgreSQL answer commits before the disk has them, on connections from now on."""
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER DATABASE {postgresql.DATABASE} SET synchronous_commit = off")
    connections.close_all()


def status(*names: str) -> dict[str, int]:
    """Return counters of the MySQL family's server."""
    with connection.cursor() as cursor:
        cursor.execute("SHOW GLOBAL STATUS WHERE Variable_name IN %s", [names])
        return {name: int(value) for name, value in cursor.fetchall()}
