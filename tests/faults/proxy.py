"""A network with faults: a TCP proxy in front of a server."""

from __future__ import annotations

import socket
import time
from contextlib import contextmanager
from random import Random
from typing import TYPE_CHECKING

from tests.support.lossy_proxy import RESETTING, LossyProxy, chunks, wake_up

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.faults.environment import Fault


class FaultyProxy(LossyProxy):
    """Passes bytes on, but for the faults of each block."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(host, port)
        self._lag = 0.0
        self._loses: Callable[[], bool] | None = None

    @contextmanager
    def blackhole(self, random: Random) -> Iterator[None]:
        """Accept everything and pass nothing on; at the end, reset what is open."""
        with self.swallowing():
            yield
        self.reset_all()

    @contextmanager
    def resets_connections(self, random: Random) -> Iterator[None]:
        """Reset all connections, and half of the new ones after a few chunks."""
        self.reset_connections(0.5, 1_000_000, seed=random.randrange(2**32))
        self.reset_all()
        yield
        self.reset_connections(0, 0)

    def reset_all(self) -> None:
        """Reset all connections that are open."""
        for end in [*self._ends]:
            try:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESETTING)
            except OSError:  # closed already
                continue
            wake_up(end)

    @contextmanager
    def delays_replies(self, random: Random) -> Iterator[None]:
        """Have each reply take longer, up to more than a store may take."""
        self._lag = random.choice((0.05, 0.5, 1.5, 2.5))
        yield
        self._lag = 0.0

    @contextmanager
    def drops_replies(self, random: Random) -> Iterator[None]:
        """Cut the connection instead of one reply in twenty: the request has been served."""
        losing = Random(random.randrange(2**32))
        self._loses = lambda: losing.random() < 0.05
        yield
        self._loses = None

    def chunks(
        self, client: socket.socket, server: socket.socket
    ) -> Iterator[tuple[socket.socket, bytes]]:
        for source, data in chunks(client, server):
            if source is server:
                if self._lag:
                    time.sleep(self._lag)
                if self._loses is not None and self._loses():
                    return
            yield source, data

    @property
    def faults(self) -> dict[str, Fault]:
        """Return its faults, by the names that promises.py has."""
        return {
            "network_blackhole": self.blackhole,
            "connections_reset": self.resets_connections,
            "replies_delayed": self.delays_replies,
            "replies_dropped": self.drops_replies,
        }


NETWORK = ("network_blackhole", "connections_reset", "replies_delayed", "replies_dropped")
"""The names of a proxy's faults."""
