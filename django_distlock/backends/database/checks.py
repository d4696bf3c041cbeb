"""System checks of the database backend's configuration, for which no database is asked."""

import re
from collections.abc import Iterator
from typing import Any, Final

from django.core import checks
from django.db import DEFAULT_DB_ALIAS, connections, router
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Model

from django_distlock.models import Lock

WAL: Final = re.compile(r"journal_mode\W+wal\b", re.IGNORECASE)
SUITED: Final = (
    'Write "transaction_mode": "IMMEDIATE" and "init_command": "PRAGMA journal_mode=WAL;" in '
    "OPTIONS of DATABASES[{database!r}], or give locks a file of their own."
)

IN_SHARED_APPS: Final = (
    'Write "django_distlock" in SHARED_APPS, and run python manage.py migrate_schemas --shared'
)


def check_place(alias: str, using: str) -> Iterator[checks.CheckMessage]:
    """Warn of a database in which the locks' table can't be written, or is never made."""
    yield from _check_mirror(alias, using)
    connection = connections[using]
    if not is_migrated(using, Lock):
        hint = (
            "In allow_migrate(self, db, app_label, **hints) of your router, write: if "
            f'app_label == "distlock": return db == {using!r}'
        )
        yield checks.Warning(
            f"DISTLOCK[{alias!r}]: locks are in the database {using!r}, but by DATABASE_ROUTERS "
            "the app distlock isn't migrated there, so migrate makes no table.",
            hint=IN_SHARED_APPS if has_tenants(connection) else hint,
            id="distlock.W012",
        )
    if connection.vendor == "sqlite":
        yield from check_file(alias, connection)


def has_tenants(connection: BaseDatabaseWrapper) -> bool:
    """Tell whether it is a connection of django-tenants, which switches to a tenant's schema."""
    return hasattr(connection, "set_schema_to_public")


def is_migrated(using: str, model: type[Model]) -> bool:
    """Tell whether `migrate` makes the model's table there.

    For django-tenants that means in the shared schema, where own connections look for it.
    """
    connection: Any = connections[using]
    if not has_tenants(connection):
        return router.allow_migrate_model(using, model)
    tenant, with_shared = connection.tenant, connection.include_public_schema
    connection.set_schema_to_public()
    try:
        return router.allow_migrate_model(using, model)
    finally:
        connection.set_tenant(tenant, with_shared)


def how_to_migrate(connection: BaseDatabaseWrapper) -> str:
    """Return what to do if a table is missing there."""
    if has_tenants(connection):
        return IN_SHARED_APPS
    return f"Run python manage.py migrate --database {connection.alias} distlock"


def _check_mirror(alias: str, using: str) -> Iterator[checks.CheckMessage]:
    """Warn of a replica, unless the mirror is the same database by another alias."""
    primary = connections[using].settings_dict["TEST"]["MIRROR"]
    if not primary or place_of(using) == place_of(primary):
        return
    yield checks.Warning(
        f"DISTLOCK[{alias!r}]: locks are in the database {using!r}, which by TEST['MIRROR'] "
        f"is a replica of {primary!r}: a replica can't be written to, and lags behind.",
        hint=f'Write "using": {primary!r} in OPTIONS. If both lead to the same server, silence '
        "this.",
        id="distlock.W011",
    )


def place_of(alias: str) -> tuple[str, ...]:
    """Return what distinguishes a database from others: its server and its name, or its file."""
    settings = connections[alias].settings_dict
    return tuple(str(settings[key]) for key in ("HOST", "PORT", "NAME"))


def shares_file(database: str) -> bool:
    """Return whether data is in the SQLite file of locks, too, as far as settings show it."""
    others = [alias for alias in connections if alias != database]
    return database == DEFAULT_DB_ALIAS or place_of(database) in map(place_of, others)


def check_file(alias: str, connection: Any) -> Iterator[checks.CheckMessage]:
    """Warn if transactions on the locks' file would fail, or keep others from reading it."""
    if connection.is_in_memory_db():
        return
    settings = connection.settings_dict
    options = settings["OPTIONS"]
    mode = str(options.get("transaction_mode") or "DEFERRED").upper()
    reason = ""
    if mode == "DEFERRED" and settings["ATOMIC_REQUESTS"]:
        reason = (
            "has ATOMIC_REQUESTS, and its transactions begin as DEFERRED: one that has read can't "
            "write any more once any lock was acquired or released, and fails with 'database is "
            "locked'"
        )
    elif mode == "EXCLUSIVE" and not WAL.search(options.get("init_command") or ""):
        reason = (
            "has EXCLUSIVE transactions: while one is open nobody can read whether a lock is held"
        )
    if reason:
        yield checks.Warning(
            f"DISTLOCK[{alias!r}]: the SQLite database {connection.alias!r} {reason}.",
            hint=SUITED.format(database=connection.alias),
            id="distlock.W007",
        )
    elif mode == "DEFERRED" and shares_file(connection.alias):
        yield checks.Warning(
            f"DATABASES[{connection.alias!r}]: locks and data are in one SQLite file, whose "
            "transactions begin as DEFERRED: one that has read fails with 'database is locked' "
            f"when it writes after any lock of DISTLOCK[{alias!r}] was acquired or released.",
            hint=SUITED.format(database=connection.alias),
            id="distlock.W008",
        )
