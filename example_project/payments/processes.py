"""Processes that a command starts, and that end with it."""

import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

ENDS = signal.SIGTERM, signal.SIGHUP  # The latter when the terminal is closed.


@contextmanager
def started(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program, and stop it at the end of the block, whatever ends that."""
    previous = {number: signal.getsignal(number) for number in ENDS}
    for number, handler in previous.items():
        if handler is not signal.SIG_IGN:  # as nohup has it
            signal.signal(number, _exit)
    process = None
    try:
        process = subprocess.Popen(command, **options)
        yield process
    finally:
        if process is not None:
            process.terminate()
            process.wait()
        for number, handler in previous.items():
            signal.signal(number, handler)


def _exit(signal_number: int, _frame: FrameType | None) -> NoReturn:
    """End like any other program, and so let no server outlive this process."""
    raise SystemExit(128 + signal_number)
