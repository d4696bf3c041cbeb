"""The exit codes of the commands for locks, as a shell sees them."""

from __future__ import annotations

from io import BytesIO, StringIO, TextIOWrapper
from typing import Any

import pytest
from django.core.management import execute_from_command_line

from django_distlock.management.exit_codes import ExitCode
from tests.support.memory_stores import memory_store

pytestmark = pytest.mark.once


def exit_code(*arguments: str) -> int:
    """Return the code with which `manage.py` ends."""
    try:
        execute_from_command_line(["manage.py", *arguments])
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_errors_end_with_1_and_success_with_0(capsys: pytest.CaptureFixture[str]) -> None:
    """A line says which error; JSON is on stdout in each case."""
    assert exit_code("list_locks", "--backend=minimal", "--format=json") == ExitCode.ERROR
    shown = capsys.readouterr()
    assert shown.out == "[]\n"
    assert shown.err.startswith("CommandError: DISTLOCK['minimal']: MinimalBackend can't list")
    assert memory_store().acquire("job", "owner", 60, "")
    try:
        assert exit_code("list_locks", "--backend=memory") == ExitCode.DONE
    finally:
        memory_store().clear()
    assert capsys.readouterr().err == ""


def test_alias_whose_settings_are_wrong_is_an_error(
    settings: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command was called the right way."""
    settings.DISTLOCK = {"jobs": {"BACKEND": "no.such.Backend"}}
    monkeypatch.setattr("sys.stdout", StringIO())  # as where something else takes the output
    assert exit_code("release_lock", "job", "--backend=jobs") == ExitCode.ERROR
    assert capsys.readouterr().err.startswith("CommandError: DISTLOCK['jobs']: could not import")


def test_terminal_that_lacks_a_character_shows_its_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rather than end with a traceback."""
    shown = TextIOWrapper(BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", shown)
    assert memory_store().acquire("Grüße 🔒", "owner", 60, "")
    try:
        assert exit_code("list_locks", "--backend=memory") == ExitCode.DONE
    finally:
        memory_store().clear()
    assert rb"Gr\xfc\xdfe \U0001f512 " in shown.buffer.getvalue()


def test_ctrl_c_at_the_question_ends_with_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a traceback, and nothing is released."""

    class Interrupted:
        def isatty(self) -> bool:
            return True

        def readline(self) -> str:
            raise KeyboardInterrupt

    monkeypatch.setattr("sys.stdin", Interrupted())
    assert memory_store().acquire("job", "owner", 60, "")
    try:
        assert exit_code("release_lock", "job", "--backend=memory") == ExitCode.INTERRUPTED
        assert len([*memory_store().held("job")]) == 1
    finally:
        memory_store().clear()
    assert "Traceback" not in capsys.readouterr().err
