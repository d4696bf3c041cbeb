"""What goes over a connection to Redis: redis-py opens it, and this speaks over its socket.

That takes half the time of redis-py's own way, and lets async code wait for the socket, on the same
connections. The protocol: https://redis.io/docs/latest/develop/reference/protocol-spec/
"""

import asyncio
import math
import select
from collections.abc import Sequence
from ssl import SSLSocket
from typing import Any, Final

CHUNK: Final = 65_536

Command = Sequence[Any]


class ServerError(Exception):
    """The server answered that it won't; `code` is the first word."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.code = text.partition(" ")[0]


class Incomplete(Exception):
    """More is to come."""


class Wire:
    """A connection that redis-py has opened, with its authentication, TLS and database."""

    __slots__ = (
        "_at",
        "_buffer",
        "_connection",
        "_limit",
        "_ready",
        "_socket",
        "is_told",
        "outstanding",
    )

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._socket = connection._sock
        self._limit = self._socket.gettimeout()
        self._buffer = b""
        self._at = 0
        self._ready = select.poll()
        self._ready.register(self._socket, select.POLLIN)
        self.outstanding = 0
        """How many answers are to come."""
        self.is_told = False
        """Whether to receive what is told to whom it may concern, as well."""

    def limit(self, seconds: float) -> None:
        """Wait for so long at most for what comes next."""
        if seconds != self._limit:
            self._socket.settimeout(seconds)
            self._limit = seconds

    def send(self, commands: Sequence[Command]) -> None:
        """Send all at once."""
        self.outstanding += len(commands)
        self._socket.sendall(b"".join(map(_pack, commands)))

    def receive(self) -> Any:
        """Return the next answer, a ServerError among others, when it has come."""
        while True:
            try:
                return self._next_answer()
            except Incomplete:
                self._read()

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

    def _parse(self) -> Any:
        end = self._buffer.find(b"\r\n", self._at)
        if end < 0:
            raise Incomplete
        kind, line = self._buffer[self._at], self._buffer[self._at + 1 : end]
        self._at = end + 2
        match chr(kind):
            case ":":
                return int(line)
            case "$":
                return self._parse_bytes(int(line))
            case "*" | "~":
                length = int(line)
                return None if length < 0 else [self._parse() for _ in range(length)]
            case "%":
                return [self._parse() for _ in range(2 * int(line))]
            case "+":
                return line
            case "-":
                return ServerError(line.decode(errors="replace"))
            case "_":
                return None
            case ">":
                told = [self._parse() for _ in range(int(line))]
                return told if self.is_told else self._parse()
        raise OSError(f"not an answer of Redis: {line!r}")

    def _parse_bytes(self, length: int) -> bytes | None:
        if length < 0:
            return None
        start, end = self._at, self._at + length
        if len(self._buffer) < end + 2:
            raise Incomplete
        self._at = end + 2
        return self._buffer[start:end]

    def has_ended(self) -> bool:
        """Tell whether the server has closed it, or says what nobody asked."""
        return bool(self._ready.poll(0))

    def hears(self, seconds: float) -> bool:
        """Wait for so long at most; tell whether there is something to receive."""
        if self._at < len(self._buffer):
            return True
        if isinstance(self._socket, SSLSocket) and self._socket.pending():
            return True
        return bool(self._ready.poll(math.ceil(seconds * 1000)))

    def close(self) -> None:
        """Close the connection."""
        self._connection.disconnect()


def _tell(readable: asyncio.Future[None]) -> None:
    if not readable.done():
        readable.set_result(None)


def _pack(command: Command) -> bytes:
    parts = [f"*{len(command)}\r\n"]
    for each in command:
        if isinstance(each, bytes):
            return _pack_bytes(command)
        text = str(each)
        parts.append(f"${len(text)}\r\n{text}\r\n")
    packed = "".join(parts)
    # Then each text has as many bytes as characters. It takes half the time.
    return packed.encode() if packed.isascii() else _pack_bytes(command)


def _pack_bytes(command: Command) -> bytes:
    parts = [b"*%d\r\n" % len(command)]
    for each in command:
        text = each if isinstance(each, bytes) else str(each).encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(text), text))
    return b"".join(parts)
