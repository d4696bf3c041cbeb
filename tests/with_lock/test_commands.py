"""The command under the lock: its environment, its streams, its end, and with_lock's exit code."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from django_distlock import Lease, LockBackendUnavailable, acquire_lock
from django_distlock.management.commands.with_lock import default_label
from django_distlock.management.with_lock import supervision
from django_distlock.signals import lock_contended
from tests.support.concurrency import elsewhere
from tests.support.databases import committed
from tests.support.holders import holding
from tests.support.leases import internals
from tests.support.with_lock import NAME, is_running, run, run_script

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.scripted_store import ScriptedBackend

pytestmark = [pytest.mark.once, committed]

STORES = [
    "default",
    *(
        pytest.param(alias, marks=pytest.mark.needs(alias))
        for alias in ("postgresql", "mariadb", "redis", "memcached", "lock_server")
    ),
]


@pytest.mark.parametrize("alias", STORES)
def test_command_runs_while_the_lock_is_held(
    alias: str, acquired: list[Lease], capfd: pytest.CaptureFixture[str]
) -> None:
    """On each store; the command knows the semaphore and the token, and its exit code counts."""
    ended = run_script(
        'echo "$DISTLOCK_SEMAPHORE ${DISTLOCK_TOKEN-none}"; echo oops >&2; exit 7', backend=alias
    )
    [lease] = acquired
    token = "none" if lease.token is None else lease.token
    assert capfd.readouterr() == (f"{NAME} {token}\n", "oops\n")
    assert ended == (7, "")
    assert internals(lease).released
    with holding(alias, NAME):
        assert run("--", "touch", "/never", backend=alias).code == 75


@pytest.mark.parametrize(
    ("command", "code", "complaint"),
    [
        (["true"], 0, ""),
        (["sh", "-c", "kill -KILL $$"], 137, ""),
        (["sh", "-c", "kill -TERM $$"], 143, ""),
        (["no-such-command"], 127, "with_lock: no-such-command: No such file or directory\n"),
        (["/etc/passwd"], 126, "with_lock: /etc/passwd: Permission denied\n"),
        (["/"], 126, "with_lock: /: Permission denied\n"),
    ],
)
def test_exit_code_is_the_commands_as_in_shells(
    command: list[str], code: int, complaint: str
) -> None:
    """128 + n for a signal; a command that can't be run releases the lock, too."""
    assert run("--", *command) == (code, complaint)
    assert acquire_lock(NAME)


@pytest.mark.parametrize("options", [["--ttl", "30", "--"], ["--"], ["--ttl", "30"], []])
def test_arguments_of_the_command_are_its_own(
    options: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    """After `--`, or the command's name, with_lock has none, not even another `--`."""
    assert run(*options, "echo", "--ttl", "5", "--", "--help") == (0, "")
    assert capfd.readouterr().out == "--ttl 5 -- --help\n"


def test_command_gets_no_file_and_no_other_token(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """It has the standard streams, even if a library leaves its files open to others."""
    monkeypatch.setenv("DISTLOCK_TOKEN", "of an outer with_lock")
    file = os.open(tmp_path, os.O_RDONLY)
    os.set_inheritable(file, True)
    try:
        script = "ls /proc/self/fd; echo $DISTLOCK_TOKEN"
        assert run_script(script).code == 0
    finally:
        os.close(file)
    *files, token = capfd.readouterr().out.split()
    assert files == ["0", "1", "2", "3"]  # the last one is that of `ls`
    assert int(token) > 0


@pytest.mark.parametrize(("option", "code"), [((), 75), (("--conflict-exit-code", "0"), 0)])
def test_contended_lock_has_its_exit_code(
    option: tuple[str, ...], code: int, capfd: pytest.CaptureFixture[str]
) -> None:
    """The command is not run, and the message says who has the lock."""
    lease = elsewhere(lambda: acquire_lock(NAME, label="nightly report"))
    assert lease is not None
    ended = run(*option, "--", "echo", "never")
    lease.release()
    assert ended.code == code
    assert "nightly report" in ended.complaints
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("timeout", ["60", "1m", "none"])
def test_it_waits_for_the_lock_and_says_so(timeout: str) -> None:
    """Until the holder releases it."""
    lease = acquire_lock(NAME)
    assert lease is not None

    def release(**kwargs: Any) -> None:
        lease.release()

    lock_contended.connect(release)
    try:
        code, complaints = run("--timeout", timeout, "--", "true")
    finally:
        lock_contended.disconnect(release)
    assert code == 0
    assert complaints.startswith("with_lock: Waiting: ")


def test_store_that_is_down_runs_nothing(
    scripted: ScriptedBackend, capfd: pytest.CaptureFixture[str]
) -> None:
    """It is no conflict."""
    scripted.answer("acquire", LockBackendUnavailable("no route to host"))
    assert run("--conflict-exit-code", "0", "--", "echo", "never") == (1, "no route to host")
    assert capfd.readouterr().out == ""


def test_failed_release_is_told(scripted: ScriptedBackend) -> None:
    """The command has ended, so its exit code counts."""
    scripted.answer("release", *[LockBackendUnavailable("no route to host")] * 3)
    assert run("--", "sh", "-c", "exit 7") == (
        7,
        "with_lock: The lock is not released, and ends with its ttl: no route to host\n",
    )


def test_what_the_command_leaves_behind_is_stopped(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It would go on without the lock."""
    monkeypatch.setattr(supervision, "LINGER", 0.01)
    file = tmp_path / "left"
    code, complaints = run_script(f"sleep 600 & echo $! > {file}; exit 7")
    assert code == 7
    assert "not all that it started" in complaints
    assert not is_running(int(file.read_text()))


def test_what_ends_soon_after_the_command_is_waited_for(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """As the reader of a pipe, which has the last lines of the output."""
    assert run_script("(sleep 0.1; echo last) & exit 7") == (7, "")
    assert capfd.readouterr().out == "last\n"


@pytest.mark.parametrize(
    ("command", "label"),
    [
        ("python manage.py migrate --noinput", "migrate"),
        ("/usr/bin/python3.13 ./manage.py migrate", "migrate"),
        ("python collect.py", "collect.py"),
        ("/opt/bin/backup --all", "backup"),
        ("python", "python"),
        ("python -m backup", "backup"),
        ("python -u -c 1", "python"),
    ],
)
def test_default_label_is_the_commands_name(command: str, label: str) -> None:
    """People find it in lists of locks."""
    assert default_label(command.split()) == label


def test_label_is_shown_to_people(acquired: list[Lease]) -> None:
    """The command's own, or the one that is given."""
    run("--", "true")
    run("--label", "deployment 17", "--", "true")
    assert [lease.holder.partition(" (")[0] for lease in acquired] == ["true", "deployment 17"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--ttl", "0"), "ttl is 0.0, but must be from"),
        (("--ttl", "0.0001"), "ttl is 0.0001, but must be from"),
        (("--timeout", "1e12"), "timeout is 1"),
        (("--label", "x" * 201), "label has 201 characters"),
        (("--backend", "memory"), "keeps locks in one process's memory"),
        (("--backend", "nowhere"), "not configured"),
    ],
)
def test_wrong_arguments_are_usage_errors(arguments: tuple[str, ...], complaint: str) -> None:
    """Exit code 2, as argparse has it."""
    ended = run(*arguments, "--", "true")
    assert ended.code == 2
    assert complaint in ended.complaints


@pytest.mark.parametrize(
    "arguments",
    [
        ("--timeout", "-1"),
        ("--timeout", "nan"),
        ("--grace", "soon"),
        ("--ttl", "none"),
        ("--conflict-exit-code", "256"),
        ("--conflict-exit-code", "-1"),
    ],
)
def test_malformed_arguments_are_refused(arguments: tuple[str, ...]) -> None:
    """By argparse."""
    assert f"argument {arguments[0]}" in run(*arguments, "--", "true").complaints
