"""What can happen to a database server with connections, and to the network before it."""

from __future__ import annotations

import threading
import time
from abc import abstractmethod
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from tests.faults.clocks import MovedClock
from tests.faults.disks import SmallDisk, can_mount
from tests.faults.environment import ISOLATED, PROXIED, TESTED, ClockedEnvironment, Fault
from tests.faults.history import now
from tests.faults.proxy import FaultyProxy
from tests.support.ports import HOST

if TYPE_CHECKING:
    from collections.abc import Iterator
    from random import Random

    from tests.support.servers import Server

BACKEND = "django_distlock.backends.database.DatabaseBackend"
CONNECTIONS = 70
"""How many the server takes: more than the workers need, and few enough to use up."""
PATIENCE = 30.0
"""Seconds in which a server recovers."""
ROW = "SELECT semaphore FROM distlock_lock ORDER BY semaphore"


class Database(ClockedEnvironment):
    """A database with a clock that can be moved, on a small disk."""

    disk: SmallDisk

    def rest(self) -> None:
        self.let_clock_rest()

    @property
    def faults(self) -> dict[str, Fault]:
        return {
            **self.clock_faults,
            **({"disk_full": self.disk_full} if can_mount() else {}),
        }

    @contextmanager
    def disk_full(self, random: Random) -> Iterator[None]:
        """Leave no space on the disk."""
        with self.disk.full():
            yield


def settings_of(databases: dict[str, Any], using: dict[str, str]) -> dict[str, Any]:
    """Return the settings of stores in these databases: `using` has the database of each."""
    return {
        "DATABASES": databases,
        "DISTLOCK": {
            alias: {"BACKEND": BACKEND, "OPTIONS": {"using": database}}
            for alias, database in using.items()
        },
    }


class DatabaseServer(Database):
    """A server with a moved clock, on a small disk, that half of the workers reach by a proxy."""

    options: ClassVar[dict[str, Any]] = {}
    """Those of all connections: a connection that is never answered must not last for ever."""
    isolated: ClassVar[dict[str, Any]]
    megabytes: ClassVar[int]
    """Of its disk."""

    @abstractmethod
    def create(self) -> Server:
        """Return the server."""

    @abstractmethod
    def connect(self) -> Any:
        """Return a connection of an operator to the database, in autocommit."""

    @abstractmethod
    def end_others(self, cursor: Any) -> None:
        """End all connections but this one."""

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            server = self.create()
            self.clock = MovedClock(server.directory / "clock")
            self.server = self.governed(server)
            stack.callback(server.remove)
            self.disk = SmallDisk(Path(server.home.data), server.home.account, self.megabytes)
            if can_mount():
                stack.enter_context(self.disk)
            stack.callback(server.stop)
            server.begin()
            self.proxy = stack.enter_context(FaultyProxy(HOST, server.port))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def settings(self) -> dict[str, Any]:
        direct = {**self.server.settings, "OPTIONS": self.options}
        databases = {
            "default": direct,
            PROXIED: direct | {"PORT": str(self.proxy.port)},
            ISOLATED: direct | {"OPTIONS": self.options | self.isolated},
        }
        using = {TESTED: "default", PROXIED: PROXIED, ISOLATED: ISOLATED}
        return settings_of(databases, using)

    @property
    def faults(self) -> dict[str, Fault]:
        return {
            **super().faults,
            **self.proxy.faults,
            "server_killed": self.killed,
            "server_paused": self.paused,
            "connections_ended": self.connections_ended,
            "connections_used_up": self.connections_used_up,
            "rows_locked": self.rows_locked,
            "deadlocks": self.deadlocks,
        }

    @contextmanager
    def killed(self, random: Random) -> Iterator[None]:
        """Kill all of the server's processes; it keeps what it has told the system to write."""
        self.server.kill()
        try:
            yield
        finally:
            self.server.start()

    @contextmanager
    def paused(self, random: Random) -> Iterator[None]:
        """Stop all of the server's processes: it answers nothing."""
        with self.server.paused():
            yield

    @contextmanager
    def disk_full(self, random: Random) -> Iterator[None]:
        """Leave no space on the disk; the server may end itself."""
        with super().disk_full(random):
            yield
        self.revive()

    def revive(self) -> None:
        """Wait until the server answers; start it if it has ended itself."""
        deadline = now() + PATIENCE
        while True:
            if not self.server.is_running:
                self.server.start()
            try:
                self.connect().close()
            except Exception:  # each driver has its own
                if now() > deadline:
                    raise
                time.sleep(0.1)
            else:
                return

    @contextmanager
    def connections_ended(self, random: Random) -> Iterator[None]:
        """Have the server end all connections."""
        with self.operator() as connection:
            self.end_others(connection.cursor())
        yield

    @contextmanager
    def connections_used_up(self, random: Random) -> Iterator[None]:
        """End all connections, and open as many as the server takes."""
        with ExitStack() as stack, self.operator() as connection:
            self.end_others(connection.cursor())
            with suppress(Exception):  # each driver has its own for "too many"
                while True:
                    stack.callback(self.connect().close)
            yield

    @contextmanager
    def rows_locked(self, random: Random) -> Iterator[None]:
        """Lock the rows of all locks, in a transaction."""
        with self.operator() as connection:
            cursor = connection.cursor()
            with suppress(Exception):  # a worker's transaction may have one for too long
                cursor.execute("BEGIN")
                cursor.execute(f"{ROW} FOR UPDATE")
            yield

    @contextmanager
    def deadlocks(self, random: Random) -> Iterator[None]:
        """Lock a lock's row and then its register's: a guarded commit locks the other way round."""
        over = threading.Event()

        def lock_both() -> None:
            while not over.wait(0.02):
                with suppress(Exception), closing(self.connect()) as connection:  # a deadlock, say
                    self.lock_row_and_register(connection.cursor(), over)

        thread = threading.Thread(target=lock_both)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def lock_row_and_register(self, cursor: Any, over: threading.Event) -> None:
        """Lock both in a transaction, with pauses."""
        cursor.execute("BEGIN")
        cursor.execute(f"{ROW} FOR UPDATE")
        over.wait(0.01)
        cursor.execute("UPDATE app_counter SET value = value")
        cursor.execute("COMMIT")

    @contextmanager
    def operator(self) -> Iterator[Any]:
        """Connect for the block, to a server that may be about to recover."""
        self.revive()
        connection = self.connect()
        try:
            yield connection
        finally:
            with suppress(Exception):  # the server may be gone
                connection.close()
