"""SQLite, and what can happen to its file and to the clock of the machine, which is its clock."""

from __future__ import annotations

import sqlite3
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Self

from tests.faults import clocks
from tests.faults.disks import SmallDisk, can_mount
from tests.faults.environment import TESTED, Fault, sqlite_settings
from tests.faults.stores.databases import Database, settings_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from random import Random

IMPATIENT = "impatient"
"""The alias of the same file, for workers that hardly wait for another writer."""


class SQLite(Database):
    store = "sqlite"
    clients_have_clocks = False

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            directory = Path(stack.enter_context(TemporaryDirectory(prefix="distlock-sqlite-")))
            self.disk = SmallDisk(directory / "data", {}, megabytes=32)
            if can_mount():
                stack.enter_context(self.disk)
            else:
                self.disk.path.mkdir()
            self.file = self.disk.path / "locks.sqlite3"
            self.clock = clocks.MovedClock(directory / "clock")
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def settings(self) -> dict[str, Any]:
        patient = sqlite_settings(self.file)
        databases = {
            "default": patient,
            IMPATIENT: patient | {"OPTIONS": patient["OPTIONS"] | {"timeout": 0.1}},
        }
        return settings_of(databases, {TESTED: "default", IMPATIENT: IMPATIENT})

    def variables(self) -> dict[str, str]:
        return self.clock.variables if clocks.is_installed() else {}

    @property
    def faults(self) -> dict[str, Fault]:
        return {**super().faults, "writer_held": self.writer_held}

    @contextmanager
    def writer_held(self, random: Random) -> Iterator[None]:
        """Begin to write to the file, which no one else can do then, and change nothing."""
        with closing(sqlite3.connect(self.file, timeout=20, isolation_level=None)) as connection:
            with suppress(sqlite3.OperationalError):
                connection.execute("BEGIN IMMEDIATE")
            yield
