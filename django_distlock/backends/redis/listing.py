"""The list of the locks on Redis servers."""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Final

from django_distlock import clocks
from django_distlock.records import LockInfo

from .keys import KeySpace
from .messages import describe_call, read_lock, scan_call
from .nodes import Node
from .servers import Servers

SCANNED: Final = 2_000
"""How many keys a server looks at before it serves other clients."""
DESCRIBED: Final = 200
"""How many locks are read at once."""


class Listing:
    """Lists the locks of a store; each request to a server has the full timeout."""

    def __init__(self, servers: Servers, keys: KeySpace) -> None:
        self._servers = servers
        self._keys = keys

    def semaphores(
        self, prefix: str, enough: float = math.inf, ends: float = math.inf
    ) -> tuple[list[str], bool]:
        """Return the semaphores with locks, in order, and whether there may be more.

        There may be once it has found more than enough, or at that time of clocks.monotonic().
        """
        found: set[str] = set()
        for node in self._servers.all():
            for semaphores in self._scan(node, prefix):
                found.update(semaphores)
                if len(found) > enough or clocks.monotonic() > ends:
                    return sorted(found), True
        return sorted(found), False

    def _scan(self, node: Node, prefix: str) -> Iterator[Iterator[str]]:
        """Yield the semaphores of a server's locks, some twice, as SCAN may."""
        cursor: bytes | int = 0
        while True:
            call = scan_call(cursor, self._keys.pattern(prefix), SCANNED)
            [answer] = node.run_all([call], clocks.monotonic() + node.timeout)
            node.raise_for(answer)
            cursor, lines = answer
            if lines:
                yield self._keys.semaphores(lines.decode())
            if not int(cursor):
                return

    def describe(self, semaphores: Sequence[str]) -> dict[str, LockInfo]:
        """Return those locks that still exist, by one round trip to each server."""
        by_node = defaultdict[Node, list[str]](list)
        for semaphore in semaphores:
            by_node[self._servers.of(self._keys.lock(semaphore))].append(semaphore)
        locks: dict[str, LockInfo] = {}
        for node, names in by_node.items():
            calls = [describe_call(self._keys.all(name)) for name in names]
            answers = node.run_all(calls, clocks.monotonic() + node.timeout)
            for name, answer in zip(names, answers, strict=True):
                node.raise_for(answer, f" for {self._keys.lock(name)!r}")
                if answer is not None:
                    locks[name] = read_lock(name, answer)
        return locks
