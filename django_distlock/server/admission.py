"""Which connections a lock server has, and which it closes for lack of room."""

import asyncio
from itertools import islice
from typing import Final, Protocol

from django_distlock.logs import room_logger

logger = room_logger("server")

FULL: Final = "%d connections are open, as many as --max-connections allows."

CLOSE_TIMEOUT: Final = 1.0
"""Seconds that a client has to read the last message and to close the connection."""
SPARED: Final = 10
"""Unauthenticated connections to close at a time when the system has no room for more."""


class Connected(Protocol):
    """A connection, as far as it has to be closed."""

    closed: asyncio.Future[None]

    def drop(self, code: str, text: str) -> None:
        """Close it, with a last message if it can be sent."""
        ...

    def end(self, code: str, text: str) -> None:
        """Send a last message, and close the connection."""
        ...

    def abort(self) -> None:
        """Close it at once."""
        ...


class Admission:
    """The connections of a server.

    One counts from when it is accepted. When there are too many, the oldest that has not proved to
    know the secret makes room for each new one; authenticated ones stay.
    """

    def __init__(self, max_connections: int) -> None:
        self._max = max_connections
        self.open: dict[Connected, None] = {}
        """The oldest first."""
        self.unauthenticated: dict[Connected, None] = {}
        """The oldest first."""
        self.closing: dict[Connected, None] = {}
        """Connections whose last message was sent; the oldest first."""

    def add(self, connection: Connected) -> None:
        """Count a connection that was accepted."""
        self.open[connection] = None

    def admit(self, connection: Connected) -> str | None:
        """Make room for a connection that was added; return why that is impossible, if it is."""
        if len(self.open) > self._max:
            logger.warning(FULL, self._max)
            if not self.unauthenticated:
                return FULL % self._max
            next(iter(self.unauthenticated)).drop("handshake", "Others want to connect.")
        self.unauthenticated[connection] = None
        return None

    def authenticated(self, connection: Connected) -> None:
        """Keep this connection when there is no room for others."""
        del self.unauthenticated[connection]

    def remove(self, connection: Connected) -> None:
        """Count the connection no longer."""
        self.open.pop(connection, None)
        self.closing.pop(connection, None)
        self.unauthenticated.pop(connection, None)

    def start_closing(self, connection: Connected) -> None:
        """Remember a removed connection that its client has yet to close."""
        self.closing[connection] = None
        if len(self.closing) > self._max:
            next(iter(self.closing)).abort()

    def free_descriptors(self) -> None:
        """Close some connections at once: the system can't accept another one."""
        for connection in [*self.closing, *islice(self.unauthenticated, SPARED)]:
            connection.abort()

    def end_all(self, code: str, text: str) -> None:
        """Send all clients a last message."""
        for connection in list(self.open):
            connection.end(code, text)

    async def wait_closed(self) -> None:
        """Wait until the clients have closed all connections, or had time to."""
        if closing := [connection.closed for connection in self.closing]:
            await asyncio.wait(closing, timeout=CLOSE_TIMEOUT)
