"""PostgreSQL servers, and poolers in front of them."""

from __future__ import annotations

import signal
from functools import partial
from typing import Any

from tests.support.installed import find
from tests.support.ports import HOST
from tests.support.servers import Home, Server, arguments

DATABASE = "distlock"
PGBOUNCER = """
[databases]
* = host={HOST} port={PORT}

[pgbouncer]
listen_addr = {HOST}
listen_port = {port}
unix_socket_dir =
pool_mode = transaction
default_pool_size = 20
max_client_conn = 200
auth_type = trust
auth_file = users
"""


def postgresql(*, durable: bool = False, **changed: Any) -> Server:
    """Return a server that is not started yet, with these settings. It needs no passwords."""
    home = Home.create("postgresql", "postgres", "nobody")
    settings = {
        "listen_addresses": HOST,
        "port": home.port,
        "unix_socket_directories": "",
        "max_connections": 200,
        "timezone": "Asia/Kathmandu",  # so that code that relies on UTC fails
    }
    if not durable:
        # Keep synchronous_commit: the tests check it.
        # Statistics are those that a test sets.
        settings |= {"fsync": "off", "full_page_writes": "off", "autovacuum": "off"}
    settings |= changed
    connect = partial(_connect, home.port, "postgres")

    def prepare() -> None:
        home.run(
            find("initdb"),
            f"--pgdata={home.data}",
            "--username=postgres",
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C.UTF-8",
            "--no-sync",
        )

    def complete() -> None:
        with connect() as connection:
            connection.execute(f"CREATE DATABASE {DATABASE}")

    return Server(
        home,
        [find("postgres"), "-D", home.data, *arguments(settings)],
        connect,
        stop_signal=signal.SIGINT,  # SIGTERM would wait for the clients to leave
        options={"ENGINE": "django.db.backends.postgresql", "USER": "postgres", "NAME": DATABASE},
        prepare=prepare,
        complete=complete,
    )


def start_postgresql(*, durable: bool = False) -> Server:
    """Start a server."""
    return postgresql(durable=durable).begin()


def start_pgbouncer(behind: dict[str, Any]) -> Server:
    """Start a pooler in transaction mode in front of the PostgreSQL of these Django settings."""
    home = Home.create("pgbouncer", "postgres", "nobody")
    home.write("pgbouncer.ini", PGBOUNCER.format(**behind, port=home.port))
    home.write("users", '"{USER}" ""\n'.format(**behind))
    return Server(
        home,
        [find("pgbouncer"), "pgbouncer.ini"],
        partial(_connect, home.port, behind["NAME"]),
        stop_signal=signal.SIGINT,  # SIGTERM would end with an error
        # Django's documentation requires it behind a pooler in this mode.
        options=behind | {"DISABLE_SERVER_SIDE_CURSORS": True},
    ).begin()


def _connect(port: int, database: str) -> Any:
    import psycopg

    return psycopg.connect(host=HOST, port=port, user="postgres", dbname=database, autocommit=True)
