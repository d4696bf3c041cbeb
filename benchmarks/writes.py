"""The messages that calls send to the database server, and the bytes that it writes for them."""

from __future__ import annotations

import re
import tempfile
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from django.db import connection
from django.db.backends.signals import connection_created
from django.dispatch import receiver

from benchmarks.databases import status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SENT = "statements sent"
SETTLING_TRIES = 30
MARIADB_COUNTERS = {
    "Questions": SENT,
    "Handler_update": "rows updated",
    "Innodb_lsn_current": "bytes of redo log",
    "Innodb_os_log_written": "bytes of redo log that reached the disk",
}
# In libpq's trace: what the client sends before it waits for an answer ends with either.
LAST_MESSAGE = re.compile(r"^[^\t\n]+\tF\t\d+\t(?:Query|Sync)\b", re.MULTILINE)

opened: WeakSet[Any] = WeakSet()


@receiver(connection_created)
def _remember(connection: Any, **kwargs: Any) -> None:
    """Remember every connection as long as it is used: the locks have some of their own."""
    opened.add(connection)


def measure(call: Callable[[], None], times: int) -> dict[str, int]:
    """Return the total of messages and writes of so many calls."""
    read = READERS[connection.vendor]
    call()  # One-time work, such as connecting, does not count.
    before = _settled(read)
    with _round_trips() as round_trips:
        for _ in range(times):
            call()
    after = read()
    if SENT in after:
        after[SENT] -= 1  # the second reading
    return round_trips | {name: after[name] - before[name] for name in after}


def _settled(read: Callable[[], dict[str, int]]) -> dict[str, int]:
    """Return the counters once they stand still: servers tidy up after earlier writes."""
    after = read()
    for _ in range(SETTLING_TRIES):
        before = after
        time.sleep(1)
        after = read()
        if before | {SENT: 0} == after | {SENT: 0}:
            break
    return after


def _postgresql() -> dict[str, int]:
    """Return the position in the WAL: exact, while the counts in pg_stat_wal come late."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_current_wal_insert_lsn() - '0/0'")
        return {"bytes of WAL": int(cursor.fetchone()[0])}


def _mariadb() -> dict[str, int]:
    counters = status(*MARIADB_COUNTERS)
    return {title: counters[name] for name, title in MARIADB_COUNTERS.items()}


def _sqlite() -> dict[str, int]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT total_changes()")
        return {"rows written": cursor.fetchone()[0]}


READERS = {"postgresql": _postgresql, "mysql": _mariadb, "sqlite": _sqlite}


@contextmanager
def _round_trips() -> Iterator[dict[str, int]]:
    """Count PostgreSQL's round trips, by libpq's trace of what it sends."""
    counted: dict[str, int] = {}
    if connection.vendor != "postgresql":
        yield counted
        return
    clients = [wrapper.connection.pgconn for wrapper in opened if wrapper.connection]
    with tempfile.TemporaryFile("w+") as trace:
        for client in clients:
            client.trace(trace.fileno())
        yield counted
        for client in clients:
            client.untrace()
        trace.seek(0)
        counted["round trips"] = len(LAST_MESSAGE.findall(trace.read()))
