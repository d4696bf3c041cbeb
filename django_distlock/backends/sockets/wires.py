"""What goes over a connection to a store: requests at once, and their answers one by one.

Sync code waits in the socket, and async code in its event loop for the same socket, so that both
have the same connections.
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


class ServerError(Exception):
    """The server answered that it won't; `code` is the word that tells why."""

    def __init__(self, text: str, code: str) -> None:
        super().__init__(text)
        self.code = code


class Incomplete(Exception):
    """More is to come."""


class Wire(ABC):
    """A connected socket to a server that answers each request in turn."""

    __slots__ = ("_at", "_buffer", "_limit", "_readiness", "_socket", "outstanding")

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._limit = sock.gettimeout()
        self._buffer = b""
        self._at = 0
        self._readiness = readiness(sock.fileno(), READ)
        self.outstanding = 0
        """How many answers are to come."""

    @staticmethod
    @abstractmethod
    def pack(request: Any) -> bytes:
        """Return what to send for a request."""

    def limit(self, seconds: float) -> None:
        """Wait for so long at most for what comes next."""
        if seconds != self._limit:
            self._socket.settimeout(seconds)
            self._limit = seconds

    def send(self, requests: Sequence[Any]) -> None:
        """Send all at once."""
        self.outstanding += len(requests)
        self._socket.sendall(b"".join(map(self.pack, requests)))

    def receive(self, deadline: float = math.inf) -> Any:
        """Return the next answer, a ServerError among others, when it has come.

        That it has begun to come is no reason to wait beyond the deadline, by the local monotonic
        clock, for the rest.
        """
        began = False
        while True:
            try:
                return self._next_answer()
            except Incomplete:
                if began and deadline < math.inf:
                    self.limit(max(deadline - clocks.monotonic(), 0.001))
                self._read()
                began = True

    async def areceive(self) -> Any:
        """See receive()."""
        while True:
            try:
                return self._next_answer()
            except Incomplete:
                await self._readable()
                self._read()

    async def _readable(self) -> None:
        """Return when something has come."""
        if isinstance(self._socket, SSLSocket) and self._socket.pending():
            return
        loop = asyncio.get_running_loop()
        readable = loop.create_future()
        # By its number: asyncio writes out a socket, in an error that nobody sees.
        number = self._socket.fileno()
        loop.add_reader(number, _tell, readable)
        try:
            await readable
        finally:
            loop.remove_reader(number)

    def _read(self) -> None:
        """Read what has come, or is the first to come; OSError if nothing ever will."""
        received = self._socket.recv(CHUNK)
        if not received:
            raise ConnectionResetError("the server closed the connection")
        self._buffer = self._buffer[self._at :] + received
        self._at = 0

    def _next_answer(self) -> Any:
        """Return the next answer that has been read, or raise Incomplete."""
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
        """Return the answer that begins in `_buffer` at `_at`, and leave `_at` behind it.

        Raise Incomplete if it isn't all there, and OSError if it is no answer.
        """

    def has_ended(self) -> bool:
        """Tell whether the server has closed it, or says what nobody asked."""
        return bool(self._readiness(0))

    def hears(self, seconds: float) -> bool:
        """Wait for so long at most; tell whether there is something to receive."""
        if self._at < len(self._buffer):
            return True
        if isinstance(self._socket, SSLSocket) and self._socket.pending():
            return True
        return bool(self._readiness(seconds))

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()


def _tell(readable: asyncio.Future[None]) -> None:
    if not readable.done():
        readable.set_result(None)
