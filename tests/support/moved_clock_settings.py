"""Settings of a lock server whose clocks a test moves, by move_clock() in lock_servers.py."""

import os
from asyncio import BaseEventLoop
from pathlib import Path

from django_distlock import clocks
from tests.support.lock_server_settings import *  # noqa: F403

MOVED = Path(os.environ.get("DISTLOCK_TEST_MOVED", "moved")).absolute()
"""A file with the seconds that they are ahead: in the server's directory, unless it is told."""
monotonic = clocks.monotonic
loop_time = BaseEventLoop.time


def ahead() -> float:
    """Return the seconds that the test has added to the machine's time."""
    return float(MOVED.read_text()) if MOVED.exists() else 0.0


def moved(loop: BaseEventLoop) -> float:
    """Return the time of an event loop, which checks its timers at the next request."""
    return loop_time(loop) + ahead()


clocks.monotonic = lambda: monotonic() + ahead()
BaseEventLoop.time = moved  # type: ignore[assignment, method-assign]
