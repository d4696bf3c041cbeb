"""The list of the locks on Redis servers."""

import json
from collections.abc import Iterator
from typing import Final

from django_distlock import clocks
from django_distlock.exceptions import LockBackendUnavailable
from django_distlock.fields import to_datetime
from django_distlock.records import LockInfo, LockState

from .keys import KeySpace
from .nodes import Node

SCANNED: Final = 1_000
"""How many keys a server looks at before it serves other clients."""
UNLIMITED, GONE = -1, -2
"""PTTL of a key that doesn't expire, and of one that doesn't exist."""


def locks_at(node: Node, keys: KeySpace, prefix: str) -> Iterator[LockInfo]:
    """Yield a server's locks, some twice, as SCAN may; each request has the full timeout."""
    cursor: bytes | int = 0
    while True:
        deadline = clocks.monotonic() + node.timeout
        scan = ("SCAN", cursor, "MATCH", keys.pattern(prefix), "COUNT", SCANNED)
        [answer] = node.ask_all([scan], deadline)
        node.raise_for(answer)
        cursor, found = answer
        if found:
            yield from _read(node, keys, found, deadline)
        if not int(cursor):
            return


def _read(node: Node, keys: KeySpace, found: list[bytes], deadline: float) -> Iterator[LockInfo]:
    commands = [(name, key) for key in found for name in ("GET", "PTTL")]
    *answers, time = node.ask_all([*commands, ("TIME",)], deadline)
    for (name, key), answer in zip(commands, answers, strict=True):
        node.raise_for(answer, f" {name} {key!r}")
    node.raise_for(time)
    seconds, microseconds = time
    now = int(seconds) * 1_000_000 + int(microseconds)
    for key, value, left in zip(found, answers[::2], answers[1::2], strict=True):
        if value is not None and left != GONE:
            yield _lock_info(keys.semaphore(key.decode()), key, value, left, now)


def _lock_info(semaphore: str, key: bytes, value: bytes, left: int, now: int) -> LockInfo:
    try:
        described = json.loads(value)
        token, holder, acquired_at = map(described.get, ("token", "holder", "acquired_at"))
        since = to_datetime(acquired_at)
    except (AttributeError, TypeError, ValueError) as error:
        raise LockBackendUnavailable(f"{key!r} contains something other than a lock.") from error
    return LockInfo(
        semaphore=semaphore,
        state=LockState.HELD,
        token=token,
        holder=holder,
        acquired_at=since,
        expires_at=None if left == UNLIMITED else to_datetime(now + left * 1000),
        seen_at=to_datetime(now),
    )
