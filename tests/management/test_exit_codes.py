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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["list_locks", "--backend=nowhere"], "DISTLOCK['nowhere']: not configured"),
        (["list_locks", "a\n"], "argument PREFIX: A semaphore has no control characters"),
        (["list_locks", "--state=lost"], "argument --state: invalid choice"),
        (["list_locks", "--limit=0"], "argument --limit: '0' is not a whole number above 0"),
        (["list_locks", "--interval=fast"], "argument --interval: 'fast' is not a duration"),
        (["release_lock"], "the following arguments are required: SEMAPHORE"),
        (["release_lock", ""], "argument SEMAPHORE: A semaphore can't be empty"),
        (["release_lock", "job", "--token=x"], "argument --token: 'x' is not a whole number"),
        (["pause_locks"], "one of the arguments PREFIX --all is required"),
        (["pause_locks", "deploy:", "--all"], "argument --all: not allowed with argument PREFIX"),
        (["pause_locks", ""], "argument PREFIX: A semaphore can't be empty"),
        (["pause_locks", "--all", "--for=0s"], "argument --for: must be longer than 0"),
        (["resume_locks"], "one of the arguments PREFIX --all is required"),
        (["clear_stale_locks", "--prefix=a\n"], "argument --prefix: A semaphore has no control"),
        (["clear_stale_locks", "--held-longer-than=0s"], "must be longer than 0"),
        (["clear_stale_locks", "--purge-events=3651d"], "'3651d' is longer than 3650d"),
        (["list_locks", "--watch", "--interval=999999d"], "'999999d' is longer than 3650d"),
    ],
)
def test_wrong_arguments_end_with_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The last line on stderr says what is wrong; nothing is on stdout."""
    assert exit_code(*arguments) == ExitCode.USAGE
    shown = capsys.readouterr()
    assert shown.out == ""
    assert message in shown.err.splitlines()[-1]


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
