"""A client of WebSockets (RFC 6455) that sends and receives short texts in JSON."""

from __future__ import annotations

import json
import socket
from typing import Any, Final, Self

from tests.support.ports import HOST

HANDSHAKE: Final = (
    "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
TEXT, CLOSE = 1, 8
WHOLE, MASKED = 0x80, 0x80


class WebSocket:
    """A connection to a server on this machine."""

    def __init__(self, port: int, path: str) -> None:
        self._socket = socket.create_connection((HOST, port), timeout=60)
        self._received = self._socket.makefile("rb")
        self._socket.sendall(HANDSHAKE.format(path=path, host=HOST).encode())
        assert b" 101 " in self._received.readline()
        while self._received.readline().strip():
            pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._received.close()
        self._socket.close()

    def send(self, content: Any) -> None:
        """Send a text, masked by zeros."""
        text = json.dumps(content).encode()
        assert len(text) < 126
        self._socket.sendall(bytes([WHOLE | TEXT, MASKED | len(text), 0, 0, 0, 0]) + text)

    def receive(self) -> Any:
        """Return the next text, or the code with which the server closes."""
        kind, length = self._received.read(2)
        data = self._received.read(length)
        return int.from_bytes(data[:2]) if kind == WHOLE | CLOSE else json.loads(data)
