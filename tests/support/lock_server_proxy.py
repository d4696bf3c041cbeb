"""A proxy in front of a lock server that knows on which connection a process listens."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tests.support.lossy_proxy import LossyProxy, chunks, wake_up

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

LISTENS = re.compile(rb'"process":"[0-9a-f]{32}"}\n')
"""The end of the first message on a connection that listens."""


class LockServerProxy(LossyProxy):
    """Passes messages on to a lock server, and can cut or silence the listening connection."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(host, port)
        self._said: list[bytes] = []
        self._listening: list[socket.socket] = []
        self._silent: socket.socket | None = None
        self._forgets = False

    @property
    def listeners(self) -> int:
        """Return on how many connections a process has listened, one after the other."""
        return len(self._listening)

    def heard(self, marker: bytes) -> int:
        """Return how often clients have sent this."""
        return b"".join(self._said).count(marker)

    def cut_listener(self) -> None:
        """Cut the connection on which a process listens."""
        wake_up(self._listening[-1])

    def silence_listener(self, *, forgets: bool) -> None:
        """Pass nothing on any more on that connection, like a firewall that has dropped it.

        The server's end stays open, unless the proxy `forgets` it: then that end is closed, but
        not the client's.
        """
        self._forgets = forgets
        self._silent = self._listening[-1]

    def chunks(
        self, client: socket.socket, server: socket.socket
    ) -> Iterator[tuple[socket.socket, bytes]]:
        for source, data in chunks(client, server):
            if source is client:
                self._said.append(data)
                if LISTENS.search(data):
                    self._listening.append(client)
            if client is not self._silent:
                yield source, data
            elif self._forgets:
                server.close()
                list(iter(lambda: client.recv(65536), b""))  # until the client closes it
                return
