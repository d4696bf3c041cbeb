"""What calls send to the database server, and what they make it write."""

from __future__ import annotations

import sys
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from django.db import connection

from benchmarks.databases import status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MARIADB_COUNTERS = {
    "Questions": "statements sent",
    "Innodb_rows_inserted": "rows inserted",
    "Innodb_rows_updated": "rows updated",
    "Innodb_os_log_written": "bytes of redo log written",
}


def measure(call: Callable[[], None], times: int) -> dict[str, float]:
    """Return what one of so many calls sends and writes, in the mean."""
    call()  # What is done once, such as connecting, does not count.
    before = _read()
    with _driver_calls() as sent:
        for _ in range(times):
            call()
    after = _read()
    counted = {name: (after[name] - before[name] - _OWN.get(name, 0)) / times for name in after}
    return {
        f"calls of the driver: {name}": number / times for name, number in sent.items()
    } | counted


def _read() -> dict[str, int]:
    match connection.vendor:
        case "postgresql":
            return _postgresql()
        case "mysql":
            counters = status(*MARIADB_COUNTERS)
            return {title: counters[name] for name, title in MARIADB_COUNTERS.items()}
    return _sqlite()


# Reading the counters is a statement too.
_OWN = {"statements sent": 1}


def _postgresql() -> dict[str, int]:
    with connection.cursor() as cursor:
        # The sessions' counts reach pg_stat_wal late; the position in the WAL is exact.
        cursor.execute(
            """
            SELECT pg_current_wal_insert_lsn() - '0/0', wal_records
            FROM pg_stat_wal
            """
        )
        position, records = cursor.fetchone()
    return {"bytes of WAL": int(position), "WAL records": records}


def _sqlite() -> dict[str, int]:
    """Return the version of the file that this connection sees, which others' writes raise."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT total_changes()")
        return {"rows changed": cursor.fetchone()[0]}


@contextmanager
def _driver_calls() -> Iterator[Counter[str]]:
    """Count the calls that make the driver send something and wait for the answer."""
    names = {"execute", "executemany", "commit", "rollback", "query"}
    found: Counter[str] = Counter()

    def count(_frame: Any, event: str, function: Any) -> None:
        name = getattr(function, "__name__", "") if event == "c_call" else ""
        if name in names:
            found[name] += 1

    sys.setprofile(count)
    try:
        yield found
    finally:
        sys.setprofile(None)
