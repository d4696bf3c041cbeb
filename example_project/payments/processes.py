"""Processes that a command starts, and that end with it."""

import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from django.conf import settings
from django.core.management import CommandError

ENDS = signal.SIGTERM, signal.SIGHUP  # The latter when the terminal is closed.
TIMEOUT = 30  # seconds, for a server to start


@contextmanager
def started(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program, and stop it at the end of the block, whatever ends that."""
    previous = {number: signal.getsignal(number) for number in ENDS}
    for number, handler in previous.items():
        if handler is not signal.SIG_IGN:  # as nohup has it
            signal.signal(number, _exit)
    process = None
    try:
        process = subprocess.Popen(command, cwd=settings.BASE_DIR, **options)
        yield process
    finally:
        if process is not None:
            process.terminate()
            process.wait()
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def keeping_locks(
    name: str, command: Sequence[str], log: Path, answers: Callable[[int], bool]
) -> Iterator[None]:
    """Run a server for locks; the block begins when the server with this pid `answers`."""
    with (
        log.open("wb") as output,
        # In its own session Ctrl-C doesn't reach it before the processes that use its locks.
        started(command, stdout=output, stderr=output, start_new_session=True) as process,
    ):
        _wait_until_ready(process, answers, name, log)
        yield


def _wait_until_ready(
    process: subprocess.Popen[bytes], answers: Callable[[int], bool], name: str, log: Path
) -> None:
    deadline = time.monotonic() + TIMEOUT
    while process.poll() is None and time.monotonic() < deadline:
        if answers(process.pid):
            return
        time.sleep(0.02)
    raise CommandError(f"{name} did not start.\n{log.read_text(errors='replace')}")


def _exit(signal_number: int, _frame: FrameType | None) -> NoReturn:
    """End like any other program, so that no server outlives this process."""
    raise SystemExit(128 + signal_number)
