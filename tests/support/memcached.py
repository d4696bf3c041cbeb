"""Memcached servers."""

from __future__ import annotations

import signal
import socket

from tests.support.installed import find
from tests.support.ports import HOST
from tests.support.servers import Home, Server


def memcached(*arguments: str) -> Server:
    """Return a server that is not started yet."""
    home = Home.create("memcached", "memcache", "nobody")

    def connect() -> socket.socket:
        connection = socket.create_connection((HOST, home.port), 1)
        connection.sendall(b"version\r\n")
        if not connection.recv(64).startswith(b"VERSION"):
            raise RuntimeError("it doesn't answer")
        return connection

    return Server(
        home,
        [find("memcached"), f"--listen={HOST}", f"--port={home.port}", "--udp-port=0", *arguments],
        connect,
        stop_signal=signal.SIGTERM,
    )


def start_memcached() -> Server:
    """Start a server."""
    return memcached().begin()
