"""System checks of the database backend's configuration, for which no database is asked."""

import re
from collections.abc import Iterator
from typing import Any, Final

from django.core import checks
from django.db import DEFAULT_DB_ALIAS, connections, router

from django_distlock.models import Lock

WAL: Final = re.compile(r"journal_mode\W+wal\b", re.IGNORECASE)
SUITED: Final = (
    'Write "transaction_mode": "IMMEDIATE" and "init_command": "PRAGMA journal_mode=WAL;" in '
    "OPTIONS of DATABASES[{database!r}], or give locks a file of their own."
)


def check_place(alias: str, using: str) -> Iterator[checks.CheckMessage]:
    """Warn of a database in which the locks' table can't be written, or is never made."""
    yield from _check_mirror(alias, using)
    if not router.allow_migrate_model(using, Lock):
        yield checks.Warning(
            f"DISTLOCK[{alias!r}]: locks are in the database {using!r}, but by DATABASE_ROUTERS "
            "the app distlock isn't migrated there, so migrate makes no table.",
            hint="In allow_migrate(self, db, app_label, **hints) of your router, write: if "
            f'app_label == "distlock": return db == {using!r}',
            id="distlock.W012",
        )
    connection = connections[using]
    if connection.vendor == "sqlite":
        yield from check_file(alias, connection)


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
