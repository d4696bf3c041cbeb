"""Wait until a socket can be read or written, with the functions that this process has for it."""

import math
import select
from collections.abc import Callable
from typing import Final

READ: Final = 1
WRITE: Final = 2
POLL_EVENTS: Final = (0, 1, 4, 5)
"""POLLIN and POLLOUT, for each sum of READ and WRITE."""


def readiness(fd: int, wanted: int) -> Callable[[float], int]:
    """Return a function that waits so many seconds at most for READ, WRITE or either.

    It returns which of them the socket is ready for, or 0. An error on the socket, or its end,
    counts as something to read.
    """
    # Look it up in each call: gevent replaces poll(), and eventlet removes it.
    if not hasattr(select, "poll"):
        reads, writes = [fd] * bool(wanted & READ), [fd] * bool(wanted & WRITE)

        def wait_by_select(seconds: float) -> int:
            readable, writable, _ = select.select(reads, writes, [], seconds)
            return READ * bool(readable) | WRITE * bool(writable)

        return wait_by_select
    poll = select.poll()
    poll.register(fd, POLL_EVENTS[wanted])

    def wait_by_poll(seconds: float) -> int:
        for _, event in poll.poll(math.ceil(1000 * seconds)):
            return READ * bool(event & ~select.POLLOUT) | WRITE * bool(event & select.POLLOUT)
        return 0

    return wait_by_poll
