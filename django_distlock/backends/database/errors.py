"""The meaning of a database's errors for a lock."""

from typing import Final

from django.db import Error, ProgrammingError


class RowLocked(Exception):
    """Another transaction has had the lock's row locked for longer than an attempt waits."""


class Conflict(Exception):
    """A deadlock or a serialization failure: nothing was changed, and a retry may succeed."""


class MissingTable(ProgrammingError):
    """A table is missing; this was found before the first statement."""


HARMLESS = (RowLocked, Conflict)
"""Errors after which the connection is as good as before."""

# SQLSTATE: lock_not_available; deadlock_detected, serialization_failure
POSTGRESQL: dict[str, type[RowLocked] | type[Conflict]] = {
    "55P03": RowLocked,
    "40P01": Conflict,
    "40001": Conflict,
}
# ER_LOCK_WAIT_TIMEOUT; ER_LOCK_DEADLOCK, ER_CHECKREAD (MariaDB: the row changed since it was read)
MYSQL: dict[int, type[RowLocked] | type[Conflict]] = {
    1205: RowLocked,
    1213: Conflict,
    1020: Conflict,
}

NO_SUCH_TABLE: Final = ("no such table", "ORA-00942", "Invalid object name")
"""Parts of the messages of SQLite, Oracle and Microsoft's SQL Server."""
NO_SUCH_COLUMN: Final = ("no such column", "has no column named", "ORA-00904", "Invalid column")


def translate(vendor: str, error: Error) -> type[RowLocked] | type[Conflict] | None:
    """Return what the driver's error says about the row; None for any other error."""
    if vendor == "postgresql":
        return POSTGRESQL.get(_sqlstate(error))
    if vendor == "mysql" and error.args:
        return MYSQL.get(error.args[0])
    return None


def is_read_only(vendor: str, error: Error) -> bool:
    """Return whether the error is that the transaction is read-only, so it can't lock rows."""
    return vendor == "postgresql" and _sqlstate(error) == "25006"  # read_only_sql_transaction


def is_unknown_character(vendor: str, error: Error) -> bool:
    """Return whether the error is that the database can't store a character that was sent."""
    return vendor == "postgresql" and _sqlstate(error) == "22P05"  # untranslatable_character


def is_unmigrated(vendor: str, error: Error) -> bool:
    """Return whether the error is that a table or a column is missing."""
    match vendor:
        case "postgresql":
            return (
                is_missing_table(vendor, error) or _sqlstate(error) == "42703"
            )  # undefined_column
        case "mysql":
            return error.args[:1] in ((1146,), (1054,))  # ER_NO_SUCH_TABLE, ER_BAD_FIELD_ERROR
    return any(text in str(error) for text in (*NO_SUCH_TABLE, *NO_SUCH_COLUMN))


def is_file_locked(error: BaseException | None) -> bool:
    """Return whether the error is SQLite's that another connection is writing or has written."""
    return "database is locked" in str(error) or "database table is locked" in str(error)


def is_missing_table(vendor: str, error: Error) -> bool:
    """Return whether the error is that a table is missing."""
    match vendor:
        case "postgresql":
            return isinstance(error, MissingTable) or _sqlstate(error) == "42P01"  # undefined_table
        case "mysql":
            return error.args[:1] == (1146,)  # ER_NO_SUCH_TABLE
    return any(text in str(error) for text in NO_SUCH_TABLE)


def _sqlstate(error: Error) -> str:
    cause = error.__cause__
    return getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None) or ""  # psycopg 3, 2
