"""MariaDB servers."""

from __future__ import annotations

import signal
from contextlib import closing
from typing import Any

from tests.support.installed import find
from tests.support.ports import HOST
from tests.support.servers import Home, Server, arguments

DATABASE = "distlock"


def mariadb(*, durable: bool = False, **changed: Any) -> Server:
    """Return a server that is not started yet, with these settings. It needs no passwords."""
    home = Home.create("mariadb", "mysql", "nobody")
    settings = {
        "datadir": home.data,
        # A starting server deletes temporary tables there, also those of others, which crash.
        "tmpdir": str(home.directory),
        "bind-address": HOST,
        "port": home.port,
        "socket": "mariadb.sock",  # both relative to datadir
        "pid-file": "mariadb.pid",
        "max-connections": 200,
        "skip-name-resolve": "ON",
        "character-set-server": "utf8mb4",
        "collation-server": "utf8mb4_unicode_ci",
        "default-time-zone": "+05:45",  # so that code that relies on UTC fails
    }
    if not durable:
        settings |= {"innodb-flush-log-at-trx-commit": 0, "innodb-doublewrite": "OFF"}
    settings |= changed

    def connect() -> Any:
        import MySQLdb

        return MySQLdb.connect(host=HOST, port=home.port, user="root")

    def prepare() -> None:
        home.run(
            find("mariadb-install-db"),
            "--no-defaults",
            f"--datadir={home.data}",
            f"--tmpdir={home.directory}",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
        )

    def complete() -> None:
        with closing(connect()) as connection:
            connection.cursor().execute(f"CREATE DATABASE {DATABASE}")

    return Server(
        home,
        [find("mariadbd"), "--no-defaults", *arguments(settings)],
        connect,
        stop_signal=signal.SIGTERM,
        options={"ENGINE": "django.db.backends.mysql", "USER": "root", "NAME": DATABASE},
        prepare=prepare,
        complete=complete,
    )


def start_mariadb(*, durable: bool = False) -> Server:
    """Start a server."""
    return mariadb(durable=durable).begin()
