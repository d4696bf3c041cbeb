"""The sockets at which a lock server listens, and how connections are accepted there."""

import asyncio
import errno
import logging
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from .addresses import Address
from .throttled import ThrottledLog

logger = logging.getLogger("django_distlock.server")

BACKLOG: Final = 1_000
"""Connections that the system keeps until they are accepted."""
AT_ONCE: Final = 10
"""Connections that are accepted before those accepted so far are counted."""
PAUSE: Final = 0.02
"""Seconds until the next try to accept, when the system has no room for another connection."""


class Listener:
    """Accepts connections at some sockets, as many at once as can be counted.

    asyncio.Server isn't used: it accepts up to BACKLOG connections before it serves any of them,
    logs as many tracebacks when there are no more descriptors, and then stops for a second.
    """

    def __init__(
        self,
        sockets: list[socket.socket],
        connect: Callable[[], asyncio.Protocol],
        make_room: Callable[[], object],
    ) -> None:
        """Serve each connection by what `connect` returns; `make_room` is to free descriptors."""
        self._sockets = sockets
        self._connect = connect
        self._make_room = make_room
        self._log = ThrottledLog(logger)
        self._loop = asyncio.get_running_loop()
        self._accepted: set[asyncio.Task[None]] = set()
        """Those whose protocol doesn't know of its connection yet."""

    def start(self) -> None:
        """Accept connections from now on."""
        for sock in self._sockets:
            sock.listen(BACKLOG)
            self._loop.add_reader(sock, self._accept, sock)

    def close(self) -> None:
        """Accept no more connections."""
        for sock in self._sockets:
            self._loop.remove_reader(sock)
            sock.close()
        self._sockets.clear()

    def _accept(self, sock: socket.socket) -> None:
        while len(self._accepted) < AT_ONCE:
            try:
                accepted, _ = sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._pause(sock, error)
                return
            accepted.setblocking(False)
            task = self._loop.create_task(self._serve(accepted))
            self._accepted.add(task)
            task.add_done_callback(self._accepted.discard)

    async def _serve(self, accepted: socket.socket) -> None:
        with suppress(OSError):
            await self._loop.connect_accepted_socket(self._connect, accepted)

    def _pause(self, sock: socket.socket, error: OSError) -> None:
        """Try again in a moment: the system keeps saying that a connection is there."""
        self._log.write("accept", "No connection can be accepted: %s", error)
        self._loop.remove_reader(sock)
        self._loop.call_later(PAUSE, self._go_on, sock)
        self._make_room()

    def _go_on(self, sock: socket.socket) -> None:
        if sock in self._sockets:
            self._loop.add_reader(sock, self._accept, sock)


async def bind(address: Address) -> list[socket.socket]:
    """Return sockets that are bound there: one for each of a host's addresses."""
    if address.path:
        return [_unix_socket(address.path)]
    server = await asyncio.get_running_loop().create_server(
        asyncio.Protocol, address.host, address.port, start_serving=False
    )
    try:
        return [sock.dup() for sock in server.sockets]
    finally:
        server.close()


def _unix_socket(path: str) -> socket.socket:
    """Return a socket there that only this user can connect to, in the place of a dead one."""
    _make_room(path)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    bound.setblocking(False)
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


def _make_room(path: str) -> None:
    """Remove a socket that nobody listens at; FileExistsError if there is something else."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except FileNotFoundError:
            return
        except ConnectionRefusedError:  # which a file gives as well
            if Path(path).is_socket():
                remove_socket(path)
                return
        except OSError:
            pass
    raise FileExistsError(errno.EEXIST, "There is something else than the socket of a dead server")


def remove_socket(path: str) -> None:
    """Remove our socket, or nobody's, if there is to be one."""
    if path:
        Path(path).unlink(missing_ok=True)
