"""The commands for locks in processes of their own: exit codes, streams, and a real terminal."""

from __future__ import annotations

import os
import pty
import subprocess
from pathlib import Path

import pytest

from django_distlock.models import Lock
from tests.support.commands import end_command, start_command
from tests.support.databases import committed
from tests.support.stale_locks import SECRET, found, make_held

pytestmark = [committed, pytest.mark.once]


def test_what_can_be_listed_is_on_stdout_and_what_cannot_on_stderr() -> None:
    """With exit code 1, so that a script notices."""
    make_held("default", "job")
    listed = end_command(start_command("list_locks", "--format=json"))
    assert listed.code == 1
    assert [row["semaphore"] for row in listed.rows] == ["job"]
    assert listed.err.startswith("CommandError: DISTLOCK['minimal']: MinimalBackend can't list")
    assert listed.err.count("\n") == 1
    assert SECRET not in listed.out


def test_answer_is_typed_at_a_terminal_while_stdout_is_a_pipe() -> None:
    """So the released lock can go on to another program."""
    lock = make_held("default", "job")
    keyboard, terminal = pty.openpty()
    process = start_command("release_lock", "job", "--format=json", stdin=terminal)
    os.close(terminal)
    os.write(keyboard, b"yes\n")
    released = end_command(process)
    os.close(keyboard)
    assert released.code == 0
    assert [row["token"] for row in released.rows] == [lock.token]
    assert "Release it by force? [y/N] " in released.err
    assert "was force-released by os user " in released.err  # the log line
    assert found(Lock.objects.using("default").held()) == []


def test_reader_that_leaves_costs_no_traceback() -> None:
    """As in `manage.py list_locks | head -1`."""
    Lock.objects.using("default").bulk_create(
        Lock(semaphore=f"{number:0200}", owner=SECRET, token=1) for number in range(1000)
    )
    process = start_command("list_locks", "--backend=default", stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == "default (DatabaseBackend)\n"
    process.stdout.close()
    process.stdout = None
    _, complaints = process.communicate(timeout=60)
    assert (process.returncode, complaints) == (1, "")


def test_full_disk_is_an_error_of_a_line() -> None:
    """Not a traceback, and neither success."""
    with Path("/dev/full").open("w") as full:
        outcome = end_command(start_command("list_locks", "--backend=default", stdout=full))
    assert (outcome.code, outcome.err) == (1, "CommandError: [Errno 28] No space left on device\n")
