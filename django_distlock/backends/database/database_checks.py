"""System checks for which a database is asked: `manage.py check --database X`."""

import sys
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from django.apps import apps
from django.core import checks
from django.db.backends.base.base import BaseDatabaseWrapper

from django_distlock.models import Lock

from .checks import SUITED, how_to_migrate, is_migrated, shares_file

READ_ONLY_POSTGRESQL: Final = """
SELECT pg_is_in_recovery() OR current_setting('transaction_read_only') = 'on'
"""
# Each version and fork knows some of these names.
READ_ONLY_MYSQL: Final = """
SHOW VARIABLES WHERE variable_name IN ('read_only', 'transaction_read_only', 'tx_read_only')
"""
ENGINES: Final = """
SELECT table_name, engine FROM information_schema.tables
WHERE table_schema = database() AND engine <> 'InnoDB' AND table_name IN %s
"""
COLLATION: Final = """
SELECT collation_name FROM information_schema.columns
WHERE table_schema = database() AND table_name = %s AND column_name = 'semaphore'
"""
BY_BYTES: Final = ("binary", "nopad_bin", "utf8mb4_0900_bin")
"""How the names of collations end that distinguish all texts, also `a` and `a` with a space."""


class Subject(NamedTuple):
    """The alias of a store, and the connection to the database that it keeps locks in."""

    alias: str
    connection: Any

    @property
    def using(self) -> str:
        """The alias of the database."""
        return str(self.connection.alias)

    def rows(self, sql: str, parameters: Any = None) -> list[Any]:
        """Return the rows of a query."""
        with self.connection.cursor() as cursor:
            cursor.execute(sql, parameters)
            found: list[Any] = cursor.fetchall()
            return found


def inspect_database(alias: str, connection: BaseDatabaseWrapper) -> list[checks.CheckMessage]:
    """Return the messages about the database of a store's locks."""
    subject = Subject(alias, connection)
    if _file_is_missing(connection):
        return [*_check_tables(subject, [f"file {connection.settings_dict['NAME']}"])]
    messages = [*_check_tables(subject, _missing(subject)), *_check_writable(subject)]
    match connection.vendor:
        case "sqlite":
            messages += _check_journal(subject)
        case "mysql":
            messages += [*_check_engines(subject), *_check_collation(subject)]
    return messages


def _check_tables(subject: Subject, missing: Iterable[str]) -> Iterator[checks.CheckMessage]:
    """Warn of tables and columns that are missing, unless they are about to be made.

    Not an error: `migrate` itself runs this check, and an error would keep it from its work.
    """
    if sys.argv[1:2] == ["migrate"]:
        return
    if missing := [*missing]:
        yield checks.Warning(
            f"DATABASES[{subject.using!r}]: DISTLOCK[{subject.alias!r}] keeps locks there, but it "
            f"has no {', no '.join(missing)}.",
            hint=how_to_migrate(subject.connection),
            id="distlock.W010",
        )


def _missing(subject: Subject) -> Iterator[str]:
    connection = subject.connection
    with connection.cursor() as cursor:
        tables = connection.introspection.table_names(cursor)
        for model in apps.get_app_config("distlock").get_models():
            table = model._meta.db_table
            if not model._meta.managed or not is_migrated(connection.alias, model):
                continue
            if table not in tables:
                yield f"table {table}"
                continue
            described = connection.introspection.get_table_description(cursor, table)
            columns = {each.name for each in described}
            for field in model._meta.local_concrete_fields:
                if field.column not in columns:
                    yield f"column {table}.{field.column}"


def _check_writable(subject: Subject) -> Iterator[checks.CheckMessage]:
    if not _is_read_only(subject):
        return
    yield checks.Error(
        f"DATABASES[{subject.using!r}]: DISTLOCK[{subject.alias!r}] keeps locks there, but it "
        "can only be read: it is a replica, or read_only or default_transaction_read_only is on.",
        hint='Write "using": "…" in OPTIONS of DISTLOCK, with the alias of the primary; or '
        "switch that off on the server.",
        id="distlock.E007",
    )


def _is_read_only(subject: Subject) -> bool:
    match subject.connection.vendor:
        case "postgresql":
            return bool(subject.rows(READ_ONLY_POSTGRESQL)[0][0])
        case "mysql":
            return any(value not in ("OFF", "0") for _, value in subject.rows(READ_ONLY_MYSQL))
    return False


def _check_journal(subject: Subject) -> Iterator[checks.CheckMessage]:
    """Warn of a file without a write-ahead log. It keeps its mode, wherever that was set."""
    [[mode]] = subject.rows("PRAGMA journal_mode")
    if mode in ("wal", "memory") or not shares_file(subject.using):
        return
    yield checks.Warning(
        f"DATABASES[{subject.using!r}]: locks and data are in one SQLite file without a "
        f"write-ahead log (journal_mode is {mode!r}): a connection that reads keeps "
        f"DISTLOCK[{subject.alias!r}] from writing, and a lock keeps it from reading.",
        hint=SUITED.format(database=subject.using),
        id="distlock.W009",
    )


def _check_engines(subject: Subject) -> Iterator[checks.CheckMessage]:
    """Report tables that can't lock a row, and so can't guard a commit."""
    found = subject.rows(ENGINES, [_tables()])
    for table, engine in found:
        yield checks.Error(
            f"DATABASES[{subject.using!r}]: DISTLOCK[{subject.alias!r}] keeps locks in the table "
            f"{table} of the engine {engine}: it locks no rows, so it can't guard commits.",
            hint=f"Run ALTER TABLE {table} ENGINE=InnoDB",
            id="distlock.E008",
        )


def _check_collation(subject: Subject) -> Iterator[checks.CheckMessage]:
    """Warn of a column that takes some texts for the same."""
    table = Lock._meta.db_table
    found = subject.rows(COLLATION, [table])
    for (collation,) in found:
        if collation is None or collation.endswith(BY_BYTES):
            continue
        yield checks.Warning(
            f"DATABASES[{subject.using!r}]: the column {table}.semaphore of "
            f"DISTLOCK[{subject.alias!r}] has the collation {collation}, in which different "
            "texts can be equal: two semaphores would be one lock.",
            hint=f"Run ALTER TABLE {table} MODIFY semaphore varbinary(1020) NOT NULL",
            id="distlock.W013",
        )


def _tables() -> Collection[str]:
    return tuple(model._meta.db_table for model in apps.get_app_config("distlock").get_models())


def _file_is_missing(connection: Any) -> bool:
    """Return whether a SQLite file doesn't exist yet: asking it would create it."""
    if connection.vendor != "sqlite" or connection.is_in_memory_db():
        return False
    name = str(connection.settings_dict["NAME"])
    return not name.startswith("file:") and not Path(name).exists()
