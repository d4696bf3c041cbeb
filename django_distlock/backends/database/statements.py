"""The three actions on a lock's row, as each database does them best."""

from typing import Any, NamedTuple

from django.db.backends.base.base import BaseDatabaseWrapper

Parameters = dict[str, Any]
"""What the statements are told: semaphore, owner, holder, and ttl, in microseconds or None."""


class Row(NamedTuple):
    """A grant as the database returns it; the times are in microseconds since the epoch."""

    token: int
    acquired_at: int
    expires_at: int | None


class Statements:
    """Statements that say by RETURNING whether, and what, they wrote."""

    acquire_sql: str
    renew_sql: str
    release_sql: str

    def acquire(self, connection: BaseDatabaseWrapper, parameters: Parameters) -> Row | None:
        """Write the row and return it, or None if another owner has an unexpired lease."""
        rows = fetch(connection, self.acquire_sql, parameters)
        return Row(*rows[0]) if rows else None

    def renew(
        self, connection: BaseDatabaseWrapper, parameters: Parameters
    ) -> tuple[int | None] | None:
        """Write a new end of the lease and return it as a row, or None if the lease was lost."""
        rows = fetch(connection, self.renew_sql, parameters)
        return rows[0] if rows else None

    def release(self, connection: BaseDatabaseWrapper, parameters: Parameters) -> bool:
        """Empty the owner if it is still this one and the lease has not expired."""
        return execute(connection, self.release_sql, parameters) == 1


def execute(connection: BaseDatabaseWrapper, sql: str, parameters: Parameters) -> int:
    """Run a statement and return how many rows it found."""
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        found: int = cursor.rowcount
    return found


def fetch(connection: BaseDatabaseWrapper, sql: str, parameters: Parameters) -> list[Any]:
    """Run a statement and return all rows: SQLite commits it only when the last one is read."""
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        rows: list[Any] = cursor.fetchall()
    return rows
