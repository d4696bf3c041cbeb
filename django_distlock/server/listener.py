"""How a lock server accepts connections."""

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from django_distlock.logs import room_logger

logger = room_logger("server")

BACKLOG: Final = 1_000
"""Connections that the system keeps until they are accepted."""
AT_ONCE: Final = 10
"""Connections to accept before those accepted so far are counted against the limit."""
PAUSE: Final = 0.02
"""Seconds until the next try to accept, when the system has no room for another connection."""


class Listener:
    """Accepts connections at some sockets, a few at once.

    asyncio.Server isn't used: it accepts up to BACKLOG connections before it serves any of them,
    logs as many tracebacks when there are no more descriptors, and then stops for a second.
    """

    def __init__(
        self,
        sockets: list[socket.socket],
        connect: Callable[[], asyncio.Protocol],
        free_descriptors: Callable[[], object],
    ) -> None:
        """Serve each connection by the protocol that `connect` returns.

        `free_descriptors` is called when the system can't accept another connection.
        """
        self._sockets = sockets
        self._connect = connect
        self._free_descriptors = free_descriptors
        self._loop = asyncio.get_running_loop()
        self._accepted: set[asyncio.Task[None]] = set()
        """Connections whose protocol wasn't called yet, and so doesn't count them."""

    def start(self) -> None:
        """Start accepting connections."""
        for sock in self._sockets:
            sock.listen(BACKLOG)
            self._loop.add_reader(sock, self._accept, sock)

    def close(self) -> None:
        """Stop accepting connections."""
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
        """Try again in a moment. Until then, the socket would stay readable and keep us busy."""
        logger.warning("No connection can be accepted: %s", error, extra={"reason": str(error)})
        self._loop.remove_reader(sock)
        self._loop.call_later(PAUSE, self._resume, sock)
        self._free_descriptors()

    def _resume(self, sock: socket.socket) -> None:
        if sock in self._sockets:
            self._loop.add_reader(sock, self._accept, sock)
