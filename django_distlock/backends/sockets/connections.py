"""Connections to a store's server: requests are sent together, and answers received one by one.

Sync code waits in the socket, and async code in its event loop for the same socket, so that both
can use the same connections.
"""

import asyncio
import math
import socket
from abc import ABC, abstractmethod
from collections.abc import Sequence
from ssl import SSLSocket
from typing import Any, Final

from django_distlock import clocks

from .readiness import READ, readiness

CHUNK: Final = 65_536
"""Bytes that are read at once."""


class ServerError(Exception):
    """The server answered with an error; `code` is the word for its kind."""

    def __init__(self, text: str, code: str) -> None:
        super().__init__(text)
        self.code = code


class Incomplete(Exception):
    """An answer has not arrived as a whole."""


class Connection(ABC):
    """A connected socket to a server that answers requests in their order."""

    __slots__ = ("_at", "_buffer", "_readiness", "_socket", "_timeout", "outstanding")

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._timeout = sock.gettimeout()
        self._buffer = b""
        self._at = 0
        self._readiness = readiness(sock.fileno(), READ)
        self.outstanding = 0
        """How many answers are still to come."""

    @staticmethod
    @abstractmethod
    def pack(request: Any) -> bytes:
        """Return the bytes to send for a request."""

    def set_timeout(self, seconds: float) -> None:
        """Limit the wait of each send or receive from now on."""
        if seconds != self._timeout:
            self._socket.settimeout(seconds)
            self._timeout = seconds

    def send(self, requests: Sequence[Any]) -> None:
        """Send all requests together."""
        self.outstanding += len(requests)
        self._socket.sendall(b"".join(map(self.pack, requests)))

    def receive(self, deadline: float = math.inf) -> Any:
        """Wait for the next answer and return it; an error is returned as a ServerError.

        An answer that has begun to arrive is waited for until the deadline, by the local monotonic
        clock, even if the timeout is longer.
        """
        began = False
        while True:
            try:
                return self._next_answer()
            except Incomplete:
                if began and deadline < math.inf:
                    self.set_timeout(max(deadline - clocks.monotonic(), 0.001))
                self._read()
                began = True

    async def areceive(self) -> Any:
        """See receive()."""
        while True:
            try:
                return self._next_answer()
            except Incomplete:
                await self._until_readable()
                self._read()

    async def _until_readable(self) -> None:
        if isinstance(self._socket, SSLSocket) and self._socket.pending():
            return
        loop = asyncio.get_running_loop()
        readable = loop.create_future()
        # By its number: asyncio would make a socket's repr for an error that is never shown.
        number = self._socket.fileno()
        loop.add_reader(number, _set, readable)
        try:
            await readable
        finally:
            loop.remove_reader(number)

    def _read(self) -> None:
        """Read what has arrived, waiting for it if need be; OSError at the end of the stream."""
        received = self._socket.recv(CHUNK)
        if not received:
            raise ConnectionResetError("the server closed the connection")
        self._buffer = self._buffer[self._at :] + received
        self._at = 0

    def _next_answer(self) -> Any:
        """Return the next answer from the buffer, or raise Incomplete."""
        start = self._at
        try:
            answer = self._parse()
        except Incomplete:
            self._at = start
            raise
        self.outstanding -= 1
        return answer

    @abstractmethod
    def _parse(self) -> Any:
        """Return the answer that begins in `_buffer` at `_at`, and move `_at` behind it.

        Raise Incomplete if not all of it is there, and OSError if it is no answer.
        """

    def has_ended(self) -> bool:
        """Return whether the server has closed it, or sent something without a request."""
        return bool(self._readiness(0))

    def has_message(self, seconds: float) -> bool:
        """Wait for so many seconds at most; return whether there is something to receive."""
        if self._at < len(self._buffer):
            return True
        if isinstance(self._socket, SSLSocket) and self._socket.pending():
            return True
        return bool(self._readiness(seconds))

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()


def _set(readable: asyncio.Future[None]) -> None:
    if not readable.done():
        readable.set_result(None)
