"""Ports for servers. A port stays reserved whether or not its server runs."""

from __future__ import annotations

import random
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

HOST = "127.0.0.1"
# Below the range of ports of outgoing connections.
PORTS = range(20_000, 30_000)


class ReservedPort:
    """A TCP port for one server of this process, until release().

    The UDP port of the same number is bound to reserve it: no two test processes can bind the same
    one, and none of the servers uses UDP.
    """

    def __init__(self) -> None:
        for number in random.sample(PORTS, len(PORTS)):
            claim = socket.socket(type=socket.SOCK_DGRAM)
            try:
                claim.bind((HOST, number))
                _check_unused(number)
            except OSError:
                claim.close()
                continue
            self.number = number
            self._claim = claim
            return
        raise RuntimeError("no free port")

    def release(self) -> None:
        """Free the port for others."""
        self._claim.close()


@contextmanager
def reserved_port() -> Iterator[int]:
    """Return a port at which nothing listens, except servers that the block starts."""
    reserved = ReservedPort()
    try:
        yield reserved.number
    finally:
        reserved.release()


def _check_unused(port: int) -> None:
    """Raise OSError if a foreign program listens there."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((HOST, port))
