"""SQLite: leases end by the wall clock of the client that looks at them, which differ."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from django_distlock.backends.database.sqlite import SQLiteStatements
from django_distlock.clocks import NOW

if TYPE_CHECKING:
    from django_distlock.backends.database.statements import Parameters


def apply() -> None:
    """Make the mistake in all stores that are made from now on."""
    NOW["sqlite"] = ":client_clock"
    fetch, execute = SQLiteStatements.fetch, SQLiteStatements.execute

    def with_clock(parameters: Parameters) -> Parameters:
        ahead = os.getpid() % 2 * 3600
        return parameters | {"client_clock": int((time.time() + ahead) * 1_000_000)}

    def mistaken_fetch(self: SQLiteStatements, sql: str, parameters: Parameters) -> list[Any]:
        return fetch(self, sql, with_clock(parameters))

    def mistaken_execute(self: SQLiteStatements, sql: str, parameters: Parameters) -> int:
        return execute(self, sql, with_clock(parameters))

    setattr(SQLiteStatements, "fetch", mistaken_fetch)  # noqa: B010 - a method, to type checkers
    setattr(SQLiteStatements, "execute", mistaken_execute)  # noqa: B010 - likewise
