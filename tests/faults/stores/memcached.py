"""A Memcached server, and what can happen to it."""

from __future__ import annotations

import socket
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING, Any

from tests.faults.environment import PROXIED, TESTED, Fault
from tests.faults.proxy import FaultyProxy
from tests.faults.stores.outside import OneServer
from tests.support.memcached import memcached
from tests.support.ports import HOST

if TYPE_CHECKING:
    from collections.abc import Iterator
    from random import Random

BACKEND = "django_distlock.backends.memcached.MemcachedBackend"
CONNECTIONS = 100
"""How many the server takes; the others wait."""


class Memcached(OneServer):
    """A server that keeps all in its memory. It has no tokens, so there is nothing to fence."""

    store = "memcached"
    needs = "memcached"
    registers = ()

    def start(self, stack: ExitStack) -> None:
        self.server = memcached(f"--conn-limit={CONNECTIONS}").begin()
        stack.callback(self.server.remove)
        self.proxy = stack.enter_context(FaultyProxy(HOST, self.server.port))

    def backends(self) -> dict[str, Any]:
        ports = {TESTED: self.server.port, PROXIED: self.proxy.port}
        library = "django.core.cache.backends.memcached.PyMemcacheCache"
        return {
            "CACHES": {
                alias: {"BACKEND": library, "LOCATION": f"{HOST}:{port}"}
                for alias, port in ports.items()
            },
            "DISTLOCK": {
                alias: {"BACKEND": BACKEND, "OPTIONS": {"cache": alias}} for alias in ports
            },
        }

    @property
    def faults(self) -> dict[str, Fault]:
        return {
            **self.proxy.faults,
            "server_killed": self.server_killed,
            "server_paused": self.server_paused,
            "connections_used_up": self.connections_used_up,
            "flushed": self.flushed,
        }

    @contextmanager
    def connections_used_up(self, random: Random) -> Iterator[None]:
        """Open more connections than the server takes."""
        with ExitStack() as stack:
            for _ in range(CONNECTIONS + 10):
                stack.enter_context(closing(socket.create_connection((HOST, self.server.port), 5)))
            yield

    @contextmanager
    def flushed(self, random: Random) -> Iterator[None]:
        """Have the server forget everything."""
        with closing(socket.create_connection((HOST, self.server.port), 5)) as connection:
            connection.sendall(b"flush_all\r\n")
            assert connection.recv(64) == b"OK\r\n"
        yield
