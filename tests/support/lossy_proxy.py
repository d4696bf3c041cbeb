"""A TCP proxy with faults, between a client and a real server."""

from __future__ import annotations

import random
import selectors
import socket
import struct
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterator

# Close at once, by RST instead of FIN.
RESETTING = struct.pack("ii", 1, 0)


@dataclass
class Loss:
    """A loss to come: of so many requests with the marker, or of the replies to them."""

    marker: bytes = b""
    times: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def hits(self, request: bytes) -> bool:
        """Return whether this request is lost, and count it."""
        with self._lock:
            hit = self.times > 0 and self.marker in request
            self.times -= hit
        return hit


@dataclass
class Resets:
    """Resets to come: how many, with which probability, and after how many chunks."""

    share: float = 0
    times: int = 0
    within: int = 1
    random: random.Random = field(default_factory=random.Random)

    def draw(self) -> int | None:
        """Return after how many chunks the next connection is reset, if at all."""
        if not self.times or self.random.random() >= self.share:
            return None
        self.times -= 1
        return self.random.randrange(self.within)


class LossyProxy:
    """Passes bytes on, until a test has it lose something: then it cuts the connection instead."""

    def __init__(self, host: str, port: int) -> None:
        self.server = (host, port)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.connections = 0  # that clients have made
        self.resets = 0  # connections that were reset
        self._requests = Loss()
        self._replies = Loss()
        self._resets = Resets()
        self._swallows = False
        self._era = 0  # a connection of an earlier one is dead
        self._accepting = threading.Thread(target=self._accept)
        self._threads: list[threading.Thread] = []
        self._ends: set[socket.socket] = set()

    @property
    def losses(self) -> int:
        """Return how many losses are still to come."""
        return self._requests.times + self._replies.times

    @property
    def open(self) -> int:
        """Return the number of open connections."""
        return len(self._ends) // 2

    def lose_requests(self, marker: bytes, times: int) -> None:
        """Lose the next requests that contain the marker: the server never sees them."""
        self._requests = Loss(marker, times)

    def lose_replies(self, marker: bytes, times: int) -> None:
        """Lose the replies to the next requests that contain the marker.

        The request has reached the server by then, and the server has answered it.
        """
        self._replies = Loss(marker, times)

    def reset_connections(
        self, share: float, times: int, *, within: int = 8, seed: int = 0
    ) -> None:
        """Reset this share of the connections to come, so many at most, the same for a seed.

        Each instead of one of its first chunks, in either direction: from a request that the server
        never sees to a reply that the client never gets.
        """
        self._resets = Resets(share, times, within, random.Random(seed))

    @contextmanager
    def swallowing(self) -> Iterator[None]:
        """Accept all in the block, connections and what comes on them, and pass nothing on.

        Connections that were open before the end of it stay dead, as after a firewall's restart.
        """
        self._swallows = True
        try:
            yield
        finally:
            self._era += 1
            self._swallows = False

    def __enter__(self) -> Self:
        self._accepting.start()
        return self

    def __exit__(self, *exception: object) -> None:
        wake_up(self.listener)
        self._accepting.join(30)
        self.listener.close()
        for end in [*self._ends]:
            wake_up(end)
        for thread in self._threads:
            thread.join(30)

    def _accept(self) -> None:
        with suppress(OSError):  # the listener was shut down
            while True:
                client, _ = self.listener.accept()
                self.connections += 1
                try:
                    server = socket.create_connection(self.server)
                except OSError:  # it is down
                    client.close()
                    continue
                self._ends |= {client, server}
                thread = threading.Thread(
                    target=self._serve, args=(client, server, self._resets.draw())
                )
                self._threads.append(thread)
                thread.start()

    def _serve(self, client: socket.socket, server: socket.socket, reset: int | None) -> None:
        with client, server, suppress(OSError):  # closed by the other thread
            self._pass_on(client, server, reset)
        self._ends -= {client, server}

    def chunks(
        self, client: socket.socket, server: socket.socket
    ) -> Iterator[tuple[socket.socket, bytes]]:
        """Yield the data from either side that is passed on."""
        return chunks(client, server)

    def _pass_on(self, client: socket.socket, server: socket.socket, reset: int | None) -> None:
        """Pass data on from either side, until one ends or a fault is due."""
        losing = False
        era = self._era
        for number, (source, data) in enumerate(self.chunks(client, server)):
            if self._swallows or era != self._era:
                era = -1
                continue
            if number == reset:
                self.resets += 1
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESETTING)
                return
            if source is server:
                if losing:
                    return
                client.sendall(data)
            else:
                if self._requests.hits(data):
                    return
                losing = losing or self._replies.hits(data)
                server.sendall(data)


def chunks(*ends: socket.socket) -> Iterator[tuple[socket.socket, bytes]]:
    """Yield data from these sockets, as it arrives, until one of them ends."""
    with selectors.PollSelector() as selector:
        for end in ends:
            selector.register(end, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                source = key.fileobj
                assert isinstance(source, socket.socket)
                data = source.recv(65536)
                if not data:
                    return
                yield source, data


def wake_up(end: socket.socket) -> None:
    """Wake the thread that waits for this socket, by its end."""
    with suppress(OSError):  # closed already
        end.shutdown(socket.SHUT_RDWR)


class CountingProxy(LossyProxy):
    """Counts round trips: how often a client speaks first, or after the server."""

    round_trips = 0

    def chunks(
        self, client: socket.socket, server: socket.socket
    ) -> Iterator[tuple[socket.socket, bytes]]:
        last = server
        for source, data in chunks(client, server):
            self.round_trips += source is client and last is server
            last = source
            yield source, data


class HoldingProxy(LossyProxy):
    """Holds the data of one connection from the marker on, until the test releases it."""

    marker = b""
    delay = 0.0
    """Seconds that each answer takes."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(host, port)
        self.may_go_on = threading.Event()
        self.delivered = threading.Event()

    def _pass_on(self, client: socket.socket, server: socket.socket, reset: int | None) -> None:
        held = b""
        for source, data in chunks(client, server):
            if source is server:
                time.sleep(self.delay)
                client.sendall(data)
            elif held or (self.marker and self.marker in data):
                self.marker = b""
                held += data
            else:
                server.sendall(data)
        if held:
            assert self.may_go_on.wait(30)
            server.sendall(held)
            assert server.recv(65536)
            self.delivered.set()
