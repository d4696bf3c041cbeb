"""`manage.py list_locks --watch`, in processes of its own and in terminals."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import struct
import termios
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psutil
import pytest

from django_distlock import LockBackendUnavailable
from django_distlock.backends.database.operating import connected
from django_distlock.management.commands import list_locks
from tests.support.commands import end_command, run_command, start_command
from tests.support.databases import (
    committed,
    kill_session,
    on_each_server,
    operating_connection,
)
from tests.support.memory_stores import memory_store
from tests.support.stale_locks import make_held

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [committed, pytest.mark.once]

WATCH = "--watch", "--backend=default"


@contextmanager
def terminal(lines: int, columns: int) -> Iterator[tuple[int, int]]:
    """Open a terminal of this size; yield both of its ends."""
    outer, inner = pty.openpty()
    try:
        fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        yield outer, inner
    finally:
        os.close(outer)


def read_until(outer: int, text: str) -> str:
    """Read what the terminal shows, until it has shown this."""
    shown = ""
    while text not in shown:
        shown += os.read(outer, 65536).decode()
    return shown


def test_json_is_a_document_a_line_until_ctrl_c() -> None:
    """It ends with 0 and no traceback, and hardly uses the processor in between."""
    make_held("default", "job")
    process = start_command("list_locks", *WATCH, "--format=json")
    assert process.stdout is not None
    documents = [json.loads(process.stdout.readline())]
    used, began = sum(psutil.Process(process.pid).cpu_times()[:2]), time.monotonic()
    documents.append(json.loads(process.stdout.readline()))
    assert sum(psutil.Process(process.pid).cpu_times()[:2]) - used < 0.5
    assert time.monotonic() - began > 0.5
    process.send_signal(signal.SIGINT)
    code, _, complaints = end_command(process)
    assert [[row["semaphore"] for row in document] for document in documents] == [["job"]] * 2
    assert (code, complaints) == (0, "")


def test_terminal_shows_the_first_locks_that_fit_it() -> None:
    """Each time over the time before; Ctrl-C at the keyboard ends it."""
    for number in range(30):
        make_held("default", f"job:{number:02}")
    with terminal(lines=10, columns=120) as (outer, inner):
        process = start_command(
            "list_locks", *WATCH, stdin=inner, stdout=inner, stderr=inner, start_new_session=True
        )
        os.close(inner)
        shown = read_until(outer, "lines more")
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    heading, *rest = shown.split("\x1b[K\r\n")
    assert heading.startswith("\x1b[H2")
    assert heading.endswith(", every 1 s until Ctrl-C")
    assert rest[0] == "default (DatabaseBackend)"
    assert [line.split()[0] for line in rest[2:7]] == [f"job:{number:02}" for number in range(5)]
    assert "Traceback" not in shown


def test_what_is_wrong_with_a_store_is_told_once_while_it_lasts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Otherwise a log would have the same line every second."""
    store = memory_store()
    held = store.held
    naps = iter(["down", "down", "up", "up"])

    def fail(*arguments: str) -> None:
        raise LockBackendUnavailable("the store is down")

    def nap(seconds: float) -> None:
        assert seconds == 2
        match next(naps, None):
            case "down":
                monkeypatch.setattr(store, "held", fail)
            case "up":
                monkeypatch.setattr(store, "held", held)
            case None:
                raise KeyboardInterrupt

    monkeypatch.setattr(list_locks, "sleep", nap)
    store.acquire("job", "owner", 60, "")
    try:
        done = run_command("list_locks", "--backend=memory", "--watch", "--interval=2s")
    finally:
        store.clear()
    assert (done.code, done.err) == (0, "the store is down\nAll stores are listed again.\n")
    assert done.out.count("memory (MemoryBackend)\n") == 3
    assert done.out.endswith("\n1 lock.\n\n")


@on_each_server
def test_database_that_ended_the_session_is_listed_again(
    alias: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after its restart: a watch runs for days."""
    naps = iter(["kill", "wait", "wait"])

    def nap(seconds: float) -> None:
        match next(naps, None):
            case "kill":
                with connected(alias, operating_connection(alias)):
                    kill_session(alias)
            case None:
                raise KeyboardInterrupt

    monkeypatch.setattr(list_locks, "sleep", nap)
    make_held(alias, "job")
    done = run_command("list_locks", f"--backend={alias}", "--watch")
    assert done.code == 0
    assert done.out.count("\n1 lock.\n") == 3
    failure, again = done.err.splitlines()
    assert failure.startswith(f"DISTLOCK['{alias}']: ")
    assert again == "All stores are listed again."
