"""A deadline for each statement, kept by the client, whatever becomes of the packets.

If a network acknowledges packets and loses them, or the server is stopped, the kernel sees no
fault, and the drivers would wait for ever. No setting of the server helps against that.
"""

import math
from collections.abc import Callable, Generator
from functools import partial
from typing import Any

from django_distlock import clocks
from django_distlock.backends.sockets.readiness import READ, readiness

Deadline = Callable[[], float]
"""Returns the time by which a statement has to be answered, by the local monotonic clock."""


def connecting(vendor: str, seconds: float) -> dict[str, Any]:
    """Return the driver's parameters that limit the wait for a connection.

    Drivers count whole seconds for each of a host's addresses; libpq waits two at least.
    """
    whole = math.ceil(seconds)
    if vendor == "postgresql":
        # tcp_user_timeout is for psycopg 2, whose waits can't be ended otherwise.
        unanswered = math.ceil(1000 * seconds)
        return {"connect_timeout": max(2, whole), "tcp_user_timeout": unanswered}
    return dict.fromkeys(("connect_timeout", "read_timeout", "write_timeout"), max(1, whole))


def limit(driver: Any, deadline: Deadline) -> None:
    """Make each statement on the driver's connection raise TimeoutError at the deadline.

    PyMySQL has its `read_timeout` instead, as has mysqlclient for the rest of an answer. psycopg 2
    has the kernel's limit for unacknowledged packets.
    """
    if hasattr(driver, "pgconn"):  # psycopg 3
        driver.wait = partial(_wait, driver, deadline)
    elif hasattr(driver, "send_query"):  # mysqlclient
        driver.query = partial(_query, driver, deadline)


def _wait(
    driver: Any, deadline: Deadline, steps: Generator[int, int, Any], *args: Any, **kwargs: Any
) -> Any:
    """Run psycopg's generator, which yields what it waits to do: read (1), write (2), or both."""
    try:
        wanted = next(steps)
        while True:
            wanted = steps.send(_ready(driver.fileno(), wanted, deadline()))
    except StopIteration as end:
        return end.value


def _query(driver: Any, deadline: Deadline, statement: bytes | bytearray) -> None:
    """Send the statement; read the beginning of the answer once it arrives."""
    driver.send_query(bytes(statement))
    _ready(driver.fileno(), READ, deadline())
    driver.read_query_result()


def _ready(socket: int, wanted: int, deadline: float) -> int:
    """Return which of the wanted events the socket is ready for; TimeoutError at the deadline.

    A socket with an error, or at its end, is ready to be read.
    """
    ready = readiness(socket, wanted)(max(0, deadline - clocks.monotonic()))
    if not ready:
        raise TimeoutError
    return ready
