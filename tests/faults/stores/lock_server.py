"""The lock server, and what can happen to it."""

from __future__ import annotations

import socket
from contextlib import ExitStack, closing, contextmanager, suppress
from typing import TYPE_CHECKING, Any, ClassVar

from mirakuru.exceptions import ProcessFinishedWithError

from tests.faults.disks import SmallDisk, can_mount
from tests.faults.environment import PROXIED, TESTED, Fault
from tests.faults.proxy import FaultyProxy
from tests.faults.stores.outside import OneServer
from tests.support.lock_servers import PATH, lock_server, options_of
from tests.support.ports import HOST

if TYPE_CHECKING:
    from collections.abc import Iterator
    from random import Random

    from tests.support.servers import Server

CONNECTIONS = 100
"""How many the server takes."""


class LockServer(OneServer):
    """A server with a moved wall clock, which must not matter, and its state on a small disk.

    After a kill it grants nothing for as long as its longest lease; holders reclaim theirs.
    """

    store = "lock_server"
    needs = "lock_server"
    longest: ClassVar[float] = 2.0
    """Seconds that a lease may last, and that a server without its table grants nothing."""
    server_settings = "tests.faults.lock_server_settings"

    def start(self, stack: ExitStack) -> None:
        self.disk = SmallDisk(self.directory / "disk", {}, megabytes=1)
        if can_mount():
            stack.enter_context(self.disk)
        else:
            self.disk.path.mkdir()
        self.server = self.governed(self.create()).begin()
        stack.callback(self.remove)
        parts = self.server.executor.command_parts
        assert isinstance(parts, list)
        parts.remove("--no-grace")  # from its next start on
        self.proxy = stack.enter_context(FaultyProxy(HOST, self.server.port))

    def create(self) -> Server:
        """Return the server."""
        return lock_server(
            *("--max-ttl", str(self.longest), "--max-connections", str(CONNECTIONS)),
            *("--state", str(self.disk.path / "state.json")),
            settings=self.server_settings,
        )

    def remove(self) -> None:
        with suppress(ProcessFinishedWithError):
            self.server.remove()

    def backends(self) -> dict[str, Any]:
        addresses = {TESTED: self.server.port, PROXIED: self.proxy.port}
        return {
            "DISTLOCK": {
                alias: {
                    "BACKEND": PATH,
                    "OPTIONS": options_of(self.server, address=f"{HOST}:{port}"),
                }
                for alias, port in addresses.items()
            }
        }

    @property
    def faults(self) -> dict[str, Fault]:
        return {
            **self.proxy.faults,
            **self.clock_faults,
            **({"disk_full": self.disk_full} if can_mount() else {}),
            "server_killed": self.server_killed,
            "server_paused": self.server_paused,
            "server_restarted": self.server_restarted,
            "connections_used_up": self.connections_used_up,
        }

    @contextmanager
    def server_restarted(self, random: Random) -> Iterator[None]:
        """Stop the server in good order, which saves its locks, and start it again."""
        self.server.stop()
        yield
        self.server.start()

    @contextmanager
    def disk_full(self, random: Random) -> Iterator[None]:
        """Leave no space for the locks when the server stops in good order, and start it again."""
        with self.disk.full():
            with suppress(ProcessFinishedWithError):
                self.server.stop()
            yield
        self.server.start()

    @contextmanager
    def connections_used_up(self, random: Random) -> Iterator[None]:
        """Open more connections than the server takes, again and again: it closes silent ones."""
        with ExitStack() as stack, suppress(OSError):
            for _ in range(CONNECTIONS + 10):
                stack.enter_context(closing(socket.create_connection((HOST, self.server.port), 5)))
        yield
