"""Ports for servers. Whoever has one keeps it, whether or not its server runs just now."""

from __future__ import annotations

import random
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

HOST = "127.0.0.1"
# Below the range that outgoing connections take their ports from.
PORTS = range(20_000, 30_000)


class ReservedPort:
    """A TCP port that is for one server of this process, until it is given up.

    What reserves it is the UDP port of the same number, bound and kept: no two test processes have
    the same one, and none of the servers speaks UDP.
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
        """Let others have the port."""
        self._claim.close()


@contextmanager
def reserved_port() -> Iterator[int]:
    """Return a port at which nothing listens, but what the block starts there."""
    reserved = ReservedPort()
    try:
        yield reserved.number
    finally:
        reserved.release()


def _check_unused(port: int) -> None:
    """Raise OSError if something that isn't ours listens there."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((HOST, port))
