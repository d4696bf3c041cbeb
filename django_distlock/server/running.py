"""Run a lock server, from its start to its orderly stop."""

import asyncio
import signal
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from ssl import SSLContext
from typing import Final

from django_distlock.logs import room_logger

from .addresses import Address
from .connection import Connection
from .limits import Limits
from .listener import Listener
from .path_lock import PathLock
from .restart import grace_after, restored_table
from .saved_state import StateFile
from .service import Service
from .sockets import bind, remove_socket
from .system import allow_files, notify_systemd
from .table import LockTable

logger = room_logger("server")

OTHER_FILES: Final = 50
"""The highest number of open files beside the connections."""


@dataclass(frozen=True)
class ServerConfig:
    """How to run a lock server."""

    address: Address
    secret: bytes = field(repr=False)
    limits: Limits
    state: StateFile
    tls: SSLContext | None = None
    no_grace: bool = False
    """Whether the operator knows that no lease of an earlier server is in force."""


def run(config: ServerConfig, write_line: Callable[[str], object]) -> None:
    """Serve until SIGTERM or SIGINT, then save the table.

    `write_line` is called with each line for the operator.

    Raise OSError, ValueError, InUse or Unreadable if the server can't run.
    """
    asyncio.run(Server(config, write_line).run())


class Server:
    """A lock server's life."""

    def __init__(self, config: ServerConfig, write_line: Callable[[str], object]) -> None:
        self._config = config
        self._write_line = write_line
        self._state = config.state
        self._longest = config.limits.max_ttl
        """The longest lease that may be in force, of this server or an earlier one, in seconds."""

    async def run(self) -> None:
        """Serve until a signal comes, even during the start."""
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        config, path = self._config, self._state.path
        # As many connections again may be about to close.
        allow_files(2 * config.limits.max_connections + OTHER_FILES)
        with ExitStack() as path_locks:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path_locks.callback(PathLock(path).close)
            if config.address.path:
                path_locks.callback(PathLock(Path(config.address.path)).close)
            table = self._restore()
            self._write_running(table)
            save_pauses = partial(self._save_pauses, table)
            service = Service(table, config.secret, config.limits, config.tls, save_pauses)
            try:
                await self._serve(service, stop)
            finally:
                # Even if it couldn't listen: the file has no table any more.
                locks = table.save()
                self._state.write_locks(
                    self._longest, table.last_token, locks, table.pauses_in_force(), table.grace
                )
            await service.admission.wait_closed()
        self._write_line(f"Stopped. Locks saved in {path}: {len(locks)}.")

    def _restore(self) -> LockTable:
        """Return the table to begin with."""
        config, path = self._config, self._state.path
        saved = self._state.read()
        if saved is not None:
            self._longest = max(self._longest, saved.max_ttl)
        grace = (
            0.0 if config.no_grace else grace_after(saved, self._longest, self._write_line, path)
        )
        return restored_table(saved, config.limits, grace, self._write_line, path)

    async def _serve(self, service: Service, stop: asyncio.Event) -> None:
        """Answer requests until `stop`."""
        listener = await self._listen(service)
        try:
            self._write_line(f"Serving locks at {self._config.address}.")
            notify_systemd("READY=1")
            service.run_due()
            await self._outlast_longer_leases(service.table, stop)
            await stop.wait()
            notify_systemd("STOPPING=1")
        finally:
            listener.close()
            remove_socket(self._config.address.path)
            service.stop()

    async def _outlast_longer_leases(self, table: LockTable, stop: asyncio.Event) -> None:
        """Save the shorter --max-ttl when the longer leases of earlier servers have ended.

        From then on a crash costs less time.
        """
        max_ttl = self._config.limits.max_ttl
        if self._longest == max_ttl:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(self._longest):
                await stop.wait()
                return
        self._longest = max_ttl
        try:
            self._write_running(table)
        except OSError as error:
            logger.warning(
                "%s. After a crash, nothing would be granted for longer than necessary.",
                error,
                extra={"reason": str(error)},
            )

    def _write_running(self, table: LockTable) -> None:
        self._state.write_running(self._longest, table.last_token, table.pauses_in_force())

    def _save_pauses(self, table: LockTable) -> None:
        """Save the table's pauses, so that a crash doesn't end them."""
        try:
            self._write_running(table)
        except OSError as error:
            logger.warning(
                "%s. A crash would undo the last pause or resumption.",
                error,
                extra={"reason": str(error)},
            )

    async def _listen(self, service: Service) -> Listener:
        address = self._config.address
        try:
            sockets = await bind(address)
            free_descriptors = service.admission.free_descriptors
            listener = Listener(sockets, partial(Connection, service), free_descriptors)
            listener.start()
        except OSError as error:
            raise OSError(f"Can't listen at {address}: {error}") from error
        return listener
