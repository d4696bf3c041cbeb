"""MariaDB, and what can happen to it."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from tests.faults.stores.databases import CONNECTIONS, DatabaseServer
from tests.support.mariadb import DATABASE, mariadb
from tests.support.ports import HOST

if TYPE_CHECKING:
    from tests.support.servers import Server


class MariaDB(DatabaseServer):
    store = needs = "mariadb"
    options = {"connect_timeout": 2, "read_timeout": 5}
    isolated = {"isolation_level": "repeatable read"}
    megabytes = 220

    def create(self) -> Server:
        settings: dict[str, Any] = {
            "max-connections": CONNECTIONS,
            "innodb-log-file-size": "16M",
            # The system has each commit when it is answered: it outlives a killed server.
            "innodb-flush-log-at-trx-commit": 2,
        }
        return mariadb(**settings)

    def connect(self) -> Any:
        import MySQLdb

        return MySQLdb.connect(
            host=HOST,
            port=self.server.port,
            user="root",
            database=DATABASE,
            autocommit=True,
            connect_timeout=2,
            read_timeout=5,
            # A worker that is stopped may have a row locked.
            init_command="SET innodb_lock_wait_timeout = 1, lock_wait_timeout = 1",
        )

    def end_others(self, cursor: Any) -> None:
        from MySQLdb import OperationalError

        cursor.execute(
            "SELECT id FROM information_schema.processlist"
            " WHERE id <> connection_id() AND user = 'root'"
        )
        for (number,) in cursor.fetchall():
            with suppress(OperationalError):  # it has ended meanwhile
                cursor.execute(f"KILL {number:d}")
