"""A deadline for each statement, whatever becomes of its packets: no server's setting can tell.

Where packets are acknowledged and swallowed, or the server is stopped, the kernel sees nothing
wrong, and the drivers would wait for ever. So the client's side of the wait has to end.
"""

import math
from collections.abc import Callable, Generator
from functools import partial
from typing import Any

from django_distlock import clocks
from django_distlock.backends.sockets.readiness import READ, readiness

Deadline = Callable[[], float]
"""Returns when a statement has to be answered, by the local monotonic clock."""


def connecting(vendor: str, seconds: float) -> dict[str, Any]:
    """Return the driver's parameters that let no connection be waited for longer than that.

    The drivers count whole seconds, libpq two at least, for each of a host's addresses.
    """
    whole = math.ceil(seconds)
    if vendor == "postgresql":
        # The last is for psycopg 2, whose waits can't be ended otherwise.
        unanswered = math.ceil(1000 * seconds)
        return {"connect_timeout": max(2, whole), "tcp_user_timeout": unanswered}
    return dict.fromkeys(("connect_timeout", "read_timeout", "write_timeout"), max(1, whole))


def limit(driver: Any, deadline: Deadline) -> None:
    """Let each statement on the driver's connection raise TimeoutError at the deadline.

    PyMySQL, and mysqlclient for the rest of an answer, have their `read_timeout`; psycopg 2 has the
    kernel's for what isn't acknowledged.
    """
    if hasattr(driver, "pgconn"):  # psycopg 3
        driver.wait = partial(_wait, driver, deadline)
    elif hasattr(driver, "send_query"):  # mysqlclient
        driver.query = partial(_query, driver, deadline)


def _wait(
    driver: Any, deadline: Deadline, steps: Generator[int, int, Any], *args: Any, **kwargs: Any
) -> Any:
    """Take psycopg's steps, which say whether they wait to read (1), to write (2), or for both."""
    try:
        wanted = next(steps)
        while True:
            wanted = steps.send(_ready(driver.fileno(), wanted, deadline()))
    except StopIteration as end:
        return end.value


def _query(driver: Any, deadline: Deadline, statement: bytes | bytearray) -> None:
    """Send the statement, and read the answer's beginning when it is there."""
    driver.send_query(bytes(statement))
    _ready(driver.fileno(), READ, deadline())
    driver.read_query_result()


def _ready(socket: int, wanted: int, deadline: float) -> int:
    """Return for which of what is wanted the socket is ready; TimeoutError if for nothing in time.

    An error on it, or its end, is there to be read.
    """
    ready = readiness(socket, wanted)(max(0, deadline - clocks.monotonic()))
    if not ready:
        raise TimeoutError
    return ready
