"""Locks in management commands."""

from __future__ import annotations

import subprocess
import sys
from io import StringIO
from typing import TYPE_CHECKING, Any

import pytest
from django.core.management import CommandError, call_command
from django.core.management.base import BaseCommand

from django_distlock import (
    LockBackendUnavailable,
    LockLost,
    LockNotAcquired,
    acquire_lock,
    distributed_lock,
    skip,
)
from tests.support.databases import committed
from tests.support.processes import worker_environment

if TYPE_CHECKING:
    from tests.support.scripted_store import ScriptedBackend


class Nightly(BaseCommand):
    """A command that is locked as a whole, by a name of its own."""

    @distributed_lock("nightly")
    def handle(self, *args: Any, **options: Any) -> str:
        """Print that it is done."""
        return "done"


class Skipping(BaseCommand):
    """A command that is skipped when contended."""

    @distributed_lock("nightly", on_conflict=skip)
    def handle(self, *args: Any, **options: Any) -> None:
        """Be contended."""
        raise NotImplementedError


def collect() -> str:
    """Run the command with an argument, and return what it says."""
    output = StringIO()
    call_command("collect_payment", 1234, stdout=output)
    return output.getvalue()


def test_locked_command_works_and_releases(scripted: ScriptedBackend) -> None:
    """Its semaphore is made of its options."""
    assert collect() == "collecting\n"
    assert call_command(Nightly(stdout=StringIO())) == "done"
    assert scripted.calls == ["acquire", "release"] * 2


def test_contended_command_raises(scripted: ScriptedBackend) -> None:
    """So cron notices it."""
    acquire_lock("nightly")
    with pytest.raises(LockNotAcquired, match="nightly"):
        call_command(Nightly())


def test_contended_command_may_be_skipped(scripted: ScriptedBackend) -> None:
    """Then it ends successfully and silently."""
    acquire_lock("nightly")
    assert call_command(Skipping()) is None


def test_contended_command_may_say_so_in_its_own_words(scripted: ScriptedBackend) -> None:
    """By an error of Django's commands, with an exit status."""
    acquire_lock("1234collectPayment")
    with pytest.raises(CommandError, match="Customer 1234 is being collected from") as caught:
        collect()
    assert caught.value.returncode == 3


def test_store_that_is_down_is_not_a_conflict(scripted: ScriptedBackend) -> None:
    """A command that skips contention doesn't skip an outage."""
    scripted.answer("acquire", LockBackendUnavailable("no route"))
    with pytest.raises(LockBackendUnavailable):
        call_command(Skipping())


def test_command_whose_lease_is_lost_raises(
    scripted: ScriptedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process may have done the job, too."""
    monkeypatch.setattr(scripted, "release", lambda lease, keep: False)
    with pytest.raises(LockLost):
        collect()


def start(*arguments: str) -> subprocess.Popen[str]:
    """Run the command as `manage.py` does, in a process of its own.

    Without the system checks, which would ask databases whose servers may not run.
    """
    return subprocess.Popen(
        [sys.executable, "-m", "django", "collect_payment", "--skip-checks", *arguments],
        env=worker_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@committed
def test_process_is_refused_a_job_that_another_does() -> None:
    """With a message and an exit status, not a traceback; another customer's job is done."""
    with start("1234", "--wait") as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "collecting\n"
        second, another = start("1234"), start("5678")
        said, complained = second.communicate(timeout=60)
        assert (second.returncode, said) == (3, "")
        assert complained == "CommandError: Customer 1234 is being collected from.\n"
        assert another.communicate(timeout=60) == ("collecting\n", "")
        assert first.communicate("done\n", timeout=60) == ("", "")
    assert (first.returncode, another.returncode) == (0, 0)
    assert acquire_lock("1234collectPayment")
