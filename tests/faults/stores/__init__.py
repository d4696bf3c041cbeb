"""The stores that `python -m tests.faults --store NAME` knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.faults.stores.mariadb import MariaDB
from tests.faults.stores.postgresql import PostgreSQL
from tests.faults.stores.sqlite import SQLite

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.faults.environment import Environment

STORES: dict[str, Callable[[], Environment]] = {
    "postgresql": PostgreSQL,
    "mariadb": MariaDB,
    "sqlite": SQLite,
}
