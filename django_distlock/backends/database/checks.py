"""System checks of the database backend's configuration."""

import re
from collections.abc import Iterator
from typing import Any, Final

from django.core import checks

WAL: Final = re.compile(r"journal_mode\W+wal\b", re.IGNORECASE)


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
            hint="Give locks a database file of their own, or set transaction_mode to IMMEDIATE "
            "in its OPTIONS.",
            id="distlock.W007",
        )
