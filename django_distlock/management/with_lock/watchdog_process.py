"""Stop the command if with_lock is killed: a small process of its own, without Django.

It reads its standard input, whose other end with_lock alone has, so that this ends with it. A first
line has the command's process group and the grace. If no other line follows, with_lock was killed.
"""

import os
import signal
import sys
import time
from contextlib import suppress

INTERVAL = 0.05
"""Seconds between two checks whether the command's process group has ended."""


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # they are for with_lock
    order = sys.stdin.readline().split()
    if len(order) != 2 or sys.stdin.readline():
        return
    sys.stderr.write("with_lock was killed: stopping the command that it ran.\n")
    sys.stderr.flush()
    stop(int(order[0]), float(order[1]))


def stop(group: int, grace: float) -> None:
    """Ask all in the process group to end, and kill what is left after `grace` seconds."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGTERM)
        os.killpg(group, signal.SIGCONT)
        end = time.monotonic() + grace
        while time.monotonic() < end:
            time.sleep(INTERVAL)
            os.killpg(group, 0)
        os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    main()
