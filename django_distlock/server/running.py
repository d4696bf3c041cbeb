"""Run a lock server, from its start to its orderly stop."""

import asyncio
import logging
import os
import resource
import signal
import socket
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from ssl import SSLContext
from typing import Final

from django_distlock import clocks

from .addresses import Address
from .listening import Listener, bind, remove_socket
from .saved import Claimed, Earlier, StateFile
from .service import Limits, Service
from .table import GONE, LockTable

logger = logging.getLogger("django_distlock.server")

OTHER_FILES: Final = 50
"""What is open beside the connections that are counted, at most."""


@dataclass(frozen=True)
class Site:
    """What a lock server is to be."""

    address: Address
    secret: bytes = field(repr=False)
    limits: Limits
    state: StateFile
    tls: SSLContext | None = None
    grants_at_once: bool = False
    """Whether it is known that no lease of an earlier server is in force."""


def run(site: Site, say: Callable[[str], object]) -> None:
    """Serve until SIGTERM or SIGINT, and save the table then.

    Raise OSError, ValueError, InUse or Unreadable if that can't be.
    """
    asyncio.run(_Running(site, say).run())


class _Running:
    def __init__(self, site: Site, say: Callable[[str], object]) -> None:
        self._site = site
        self._say = say
        self._longest = site.limits.max_ttl
        """Seconds that a lease lasts at most, of this server and of those before."""

    async def run(self) -> None:
        """Serve until a signal comes, whenever that is."""
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        site = self._site
        # Those that are told why they end are as many again.
        allow_files(2 * site.limits.max_connections + OTHER_FILES)
        with ExitStack() as held:
            site.state.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            held.callback(Claimed(site.state.path).close)
            if site.address.path:
                held.callback(Claimed(Path(site.address.path)).close)
            earlier = site.state.read()
            if earlier is not None:
                self._longest = max(self._longest, earlier.max_ttl)
            table = self._table(earlier)
            site.state.write_running(self._longest, table.last_token)
            service = Service(table, site.secret, site.limits, site.tls)
            try:
                await self._serve(service, stop)
            finally:
                # Even if it couldn't listen: the file has no table any more.
                locks = table.save()
                site.state.write_locks(self._longest, table.last_token, locks, table.grace)
            await service.closed()
        self._say(f"Stopped. Locks saved in {site.state.path}: {len(locks)}.")

    def _table(self, earlier: Earlier | None) -> LockTable:
        """Return the earlier server's table, which grants nothing until it is known to have all."""
        limits, grace = self._site.limits, self._grace(earlier)
        table = LockTable(
            grants_from=clocks.monotonic() + grace if grace else GONE,
            last_token=earlier.last_token if earlier else 0,
            max_locks=limits.max_locks,
            max_waiters=limits.max_waiters,
            max_all_waiters=limits.max_all_waiters,
        )
        if earlier is not None and earlier.locks is not None:
            table.load(earlier.locks, earlier.elapsed)
            self._say(f"Locks of the earlier server in {self._site.state.path}: {len(table)}.")
        return table

    def _grace(self, earlier: Earlier | None) -> float:
        """Return for how many seconds leases may be in force that aren't in the table; say so."""
        if self._site.grants_at_once:
            return 0.0
        if earlier is None:
            grace, why = self._longest, "There is no table"
        elif earlier.locks is None:
            grace, why = self._longest, "The earlier server saved no table"
        else:
            grace = max(0.0, earlier.grace - earlier.elapsed)
            why = "The earlier server had only begun to learn which locks are held, and saved those"
        if grace:
            self._say(
                f"{why} in {self._site.state.path}: nothing is granted for {grace:.10g} seconds, in"
                " which holders reclaim their locks. If no others can be in force, --no-grace "
                "grants at once."
            )
        return grace

    async def _serve(self, service: Service, stop: asyncio.Event) -> None:
        """Answer until `stop`."""
        listener = await self._listen(service)
        try:
            self._say(f"Serving locks at {self._site.address}.")
            notify("READY=1")
            service.look_after()
            await self._outlast_earlier(service.table, stop)
            await stop.wait()
            notify("STOPPING=1")
        finally:
            listener.close()
            remove_socket(self._site.address.path)
            service.end_all()

    async def _outlast_earlier(self, table: LockTable, stop: asyncio.Event) -> None:
        """When the longer leases of earlier servers have ended, let a crash cost less time."""
        ours, state = self._site.limits.max_ttl, self._site.state
        if self._longest == ours:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(self._longest):
                await stop.wait()
                return
        self._longest = ours
        try:
            state.write_running(ours, table.last_token)
        except OSError as error:
            logger.warning("%s. Nothing would be granted for longer than need be.", error)

    async def _listen(self, service: Service) -> Listener:
        address = self._site.address
        try:
            listener = Listener(await bind(address), service.connect, service.make_room)
            listener.start()
        except OSError as error:
            raise OSError(f"Can't listen at {address}: {error}") from error
        return listener


def allow_files(number: int) -> None:
    """Let this process have so many files open; ValueError if the system doesn't."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if resource.RLIM_INFINITY != soft < number:
        if resource.RLIM_INFINITY != hard < number:
            raise ValueError(
                f"So many connections need {number} open files, but the system allows {hard}: lower"
                " --max-connections, or raise that (ulimit -n, LimitNOFILE= in a systemd unit)."
            )
        resource.setrlimit(resource.RLIMIT_NOFILE, (number, hard))


def notify(state: str) -> None:
    """Tell systemd, if that started us: https://www.freedesktop.org/software/systemd/man/sd_notify."""
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    if path.startswith("@"):
        path = "\0" + path[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.setblocking(False)
        try:
            told.connect(path)
            told.sendall(state.encode())
        except OSError as error:
            logger.warning("NOTIFY_SOCKET can't be told %s: %s", state, error)
