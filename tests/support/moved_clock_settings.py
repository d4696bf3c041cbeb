"""Settings of a lock server whose clock a test moves, by move_clock() in lock_servers.py."""

from pathlib import Path

from django_distlock import clocks
from tests.support.lock_server_settings import *  # noqa: F403

MOVED = Path("moved").absolute()
"""A file in the server's directory, with the seconds that its clock is ahead."""
monotonic = clocks.monotonic


def moved() -> float:
    """Return the machine's time, and what the test has added."""
    return monotonic() + (float(MOVED.read_text()) if MOVED.exists() else 0)


clocks.monotonic = moved
