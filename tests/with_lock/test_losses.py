"""A lock that is lost while the command runs: the command is stopped."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from django_distlock import LockBackendUnavailable
from django_distlock.leases.owned_lease import OwnedLease
from django_distlock.management.with_lock import command_lock
from django_distlock.management.with_lock.child import Child
from tests.support.databases import committed
from tests.support.holders import due_now, take_away
from tests.support.with_lock import is_running, meanwhile, run, run_script

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.scripted_store import ScriptedBackend

pytestmark = [pytest.mark.once, committed]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Check often whether the lock is held."""
    monkeypatch.setattr(command_lock, "CHECK_INTERVAL", 0.01)


@pytest.mark.parametrize(
    ("trap", "grace", "said"), [("echo stopped; exit 0", "60", "stopped\n"), ("", "0.05", "")]
)
def test_command_is_stopped_when_an_operator_takes_the_lock_away(
    trap: str,
    grace: str,
    said: str,
    acquired: list[OwnedLease],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """It may end in good order, and is killed otherwise; so is what it started."""
    file = tmp_path / "started"
    script = f"trap '{trap}' TERM; touch {file}; while :; do sleep 0.05; done"

    def lose() -> None:
        take_away(acquired[0])
        due_now(acquired)

    with meanwhile(file, lose):
        code, complaints = run_script(script, "--grace", grace)
    assert code == 76
    assert complaints.startswith(
        "with_lock: The lock was lost: The lease on 'deploy:migrate' was lost: its store no "
        "longer has it: it expired there, or an operator took it away. Stopping the command."
    )
    assert capfd.readouterr().out == said


def test_command_has_ended_when_an_unreachable_store_ends_the_lease(
    scripted: ScriptedBackend, acquired: list[OwnedLease], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The grace comes out of the ttl: a third of it at most, so that a renewal may fail."""
    monkeypatch.setattr(command_lock, "CHECK_INTERVAL", 1)
    scripted.answer("renew", *[LockBackendUnavailable("no route to host")] * 1000)
    code, complaints = run_script("trap '' TERM; sleep 600", "--ttl", "1.8", "--grace", "60")
    assert code == 76
    assert "its lease could not be renewed, and ends in" in complaints
    assert complaints.endswith("Stopping the command.\n")
    assert acquired[0].remaining > 0


def test_command_is_stopped_when_nobody_can_tell_whether_the_lock_is_held(
    scripted: ScriptedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever goes wrong in the check."""
    monkeypatch.setattr(OwnedLease, "remaining", property(lambda lease: 1 / 0))
    code, complaints = run("--", "sleep", "600")
    assert code == 76
    assert "it could not be checked: ZeroDivisionError('division by zero'). Stop" in complaints


def test_error_in_with_lock_kills_the_command(
    scripted: ScriptedBackend, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It must not go on without the lock, which is released."""
    started = tmp_path / "started"
    with monkeypatch.context() as patch:
        patch.setattr(Child, "send", raise_bug)
        with meanwhile(started, lambda: os.kill(os.getpid(), signal.SIGUSR1)):
            with pytest.raises(RuntimeError, match="a bug"):
                run_script(f"echo $$ > {started}; sleep 600")
    assert scripted.owner == ""
    assert not is_running(int(started.read_text()))


def raise_bug(*arguments: object) -> None:
    """Fail."""
    raise RuntimeError("a bug")


@pytest.mark.parametrize(("script", "code"), [("true", 76), ("exit 7", 7)])
def test_loss_that_is_noticed_at_the_end_is_told(
    script: str, code: int, scripted: ScriptedBackend
) -> None:
    """The command's own failure wins, as an exception does in a `with` block."""
    scripted.answer("release", lambda: setattr(scripted, "owner", "another"))
    ended = run_script(script)
    assert ended.code == code
    assert ("The lock was lost while the command ran" in ended.complaints) is (code == 76)


def test_command_goes_on_while_its_lock_is_held(scripted: ScriptedBackend) -> None:
    """It outlives the ttl many times."""
    assert run("--ttl", "0.1", "--", "sleep", "0.3") == (0, "")
    assert scripted.calls.count("renew") >= 2
