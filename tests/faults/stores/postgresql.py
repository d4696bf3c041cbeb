"""PostgreSQL, and what can happen to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.faults.stores.databases import CONNECTIONS, DatabaseServer
from tests.support.ports import HOST
from tests.support.postgresql import DATABASE, postgresql

if TYPE_CHECKING:
    from tests.support.servers import Server


class PostgreSQL(DatabaseServer):
    store = needs = "postgresql"
    options = {"connect_timeout": 2}
    isolated = {"isolation_level": 4}  # SERIALIZABLE, in psycopg
    megabytes = 160

    def create(self) -> Server:
        return postgresql(max_connections=CONNECTIONS, max_wal_size="64MB", min_wal_size="32MB")

    def connect(self) -> Any:
        import psycopg

        return psycopg.connect(
            host=HOST,
            port=self.server.port,
            user="postgres",
            dbname=DATABASE,
            autocommit=True,
            connect_timeout=2,
            # A worker that is stopped may have a row locked.
            options="-c lock_timeout=500",
        )

    def end_others(self, cursor: Any) -> None:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )
