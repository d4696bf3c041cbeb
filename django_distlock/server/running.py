"""Run a lock server, from its start to its orderly stop."""

import asyncio
import errno
import logging
import os
import signal
import socket
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from ssl import SSLContext

from .. import clocks
from .addresses import Address
from .saved import Claimed, Earlier, StateFile
from .service import Limits, Service
from .table import GONE, LockTable

logger = logging.getLogger("django_distlock.server")

BACKLOG = 1_000
"""Connections that the system keeps until they are served."""


@dataclass(frozen=True)
class Site:
    """What a lock server is to be."""

    address: Address
    secret: bytes
    limits: Limits
    state: StateFile
    tls: SSLContext | None = None
    grants_at_once: bool = False
    """Whether it is known that no lease of an earlier server is in force."""


def run(site: Site, say: Callable[[str], object]) -> None:
    """Serve until SIGTERM or SIGINT, and save the table then; OSError, InUse or Unreadable."""
    asyncio.run(_Running(site, say).run())


class _Running:
    def __init__(self, site: Site, say: Callable[[str], object]) -> None:
        self._site = site
        self._say = say

    async def run(self) -> None:
        """Serve until a signal comes, whenever that is."""
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        site = self._site
        with ExitStack() as held:
            site.state.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            held.callback(Claimed(site.state.path).close)
            if site.address.path:
                held.callback(Claimed(Path(site.address.path)).close)
            earlier = site.state.read()
            service = Service(self._table(earlier), site.secret, site.limits)
            remembered = self._longest_before(earlier)
            site.state.write_running(remembered, service.table.last_token)
            server = await self._listen(service)
            try:
                await self._serve(service, remembered, stop)
            finally:
                server.close()
                _remove(site.address.path)
                service.end_all()
                site.state.write_locks(
                    site.limits.max_ttl, service.table.last_token, service.table.save()
                )
                await service.closed()
        self._say(f"Stopped; {len(service.table)} locks are saved in {site.state.path}.")

    def _longest_before(self, earlier: Earlier | None) -> float:
        """Return for how long leases may be in force of this server and those before."""
        ours = self._site.limits.max_ttl
        return ours if earlier is None else max(ours, earlier.max_ttl)

    def _table(self, earlier: Earlier | None) -> LockTable:
        """Return the earlier server's table, or one that grants nothing while its leases last."""
        site = self._site
        limits, last_token = site.limits, earlier.last_token if earlier else 0
        saved = earlier.locks if earlier else None
        grace = 0.0 if saved is not None or site.grants_at_once else self._longest_before(earlier)
        table = LockTable(
            grants_from=clocks.monotonic() + grace if grace else GONE,
            last_token=last_token,
            max_locks=limits.max_locks,
            max_waiters=limits.max_waiters,
        )
        if earlier is not None and saved is not None:
            table.load(saved, earlier.elapsed)
            self._say(f"{len(table)} locks of the earlier server are in {site.state.path}.")
        elif grace:
            before = "The earlier server saved no table" if earlier else "There is no table"
            self._say(
                f"{before} in {site.state.path}: nothing is granted for {grace:g} seconds, in which"
                " holders reclaim their locks. If none can be in force, --no-grace grants at once."
            )
        return table

    async def _serve(self, service: Service, remembered: float, stop: asyncio.Event) -> None:
        """Be ready, until `stop`; and once all leases of before have ended, forget their length."""
        site = self._site
        self._say(f"Serving locks at {site.address}.")
        notify("READY=1")
        service.look_after()
        with suppress(TimeoutError):
            async with asyncio.timeout(remembered):
                await stop.wait()
        if not stop.is_set():
            if remembered > site.limits.max_ttl:
                site.state.write_running(site.limits.max_ttl, service.table.last_token)
            await stop.wait()
        notify("STOPPING=1")

    async def _listen(self, service: Service) -> asyncio.Server:
        loop, site = asyncio.get_running_loop(), self._site
        if site.address.path:
            return await loop.create_unix_server(
                service.connect, sock=_unix_socket(site.address.path), backlog=BACKLOG
            )
        host, port = site.address.host, site.address.port
        return await loop.create_server(
            service.connect,
            host,
            port,
            backlog=BACKLOG,
            ssl=site.tls,
            ssl_handshake_timeout=site.limits.handshake if site.tls else None,
        )


def _unix_socket(path: str) -> socket.socket:
    """Return a socket there that only this user can connect to, in the place of a dead one."""
    if Path(path).exists() and not Path(path).is_socket():
        raise FileExistsError(errno.EEXIST, "There is something else than a socket", path)
    _remove(path)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # Nobody else may connect even for a moment.
    earlier = os.umask(0o177)
    try:
        bound.bind(path)
    except BaseException:
        bound.close()
        raise
    finally:
        os.umask(earlier)
    return bound


def _remove(path: str) -> None:
    """Remove a socket, if there is to be one: it is ours, or nobody's."""
    if path:
        Path(path).unlink(missing_ok=True)


def notify(state: str) -> None:
    """Tell systemd, if that started us: https://www.freedesktop.org/software/systemd/man/sd_notify."""
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    if path.startswith("@"):
        path = "\0" + path[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        try:
            told.connect(path)
            told.sendall(state.encode())
        except OSError as error:
            logger.warning("NOTIFY_SOCKET can't be told %s: %s", state, error)
