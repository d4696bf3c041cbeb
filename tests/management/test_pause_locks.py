"""`manage.py pause_locks` and `resume_locks`: what they pause, and what they print."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import pytest

from django_distlock import acquire_lock, lock_backends
from django_distlock.records import Refusal
from tests.support.commands import on_each_shared_store, run_command

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.django_db(databases="__all__"), pytest.mark.once]


@pytest.fixture(autouse=True)
def resumed(request: pytest.FixtureRequest) -> Iterator[None]:
    """Leave no pause behind."""
    if "alias" not in request.fixturenames:
        yield
    else:
        store = lock_backends[request.getfixturevalue("alias")]
        yield
        for pause in store.pauses():
            store.resume(pause.prefix)


@on_each_shared_store
def test_paused_locks_are_refused_until_they_are_resumed(alias: str) -> None:
    """Only those that begin with the prefix; the refusal tells the reason."""
    arguments = "deploy:", f"--backend={alias}"
    done = run_command("pause_locks", *arguments, "--for=10m", "--reason=migration 42")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("Paused: what begins with deploy:, until 2")
    paused, origin = done.out.splitlines()
    assert paused.endswith(": migration 42")
    assert origin.startswith("    by os user ")
    refused = lock_backends[alias].acquire("deploy:1", "owner", 60, "holder")
    assert isinstance(refused, Refusal)
    assert refused.reason == "paused: migration 42"
    other = acquire_lock("other", backend=alias)
    assert other is not None
    other.release()
    resumed = run_command("resume_locks", *arguments)
    assert (resumed.code, resumed.out, resumed.err) == (0, "No pauses.\n", "")
    lease = acquire_lock("deploy:1", backend=alias)
    assert lease is not None
    lease.release()


@on_each_shared_store
def test_json_has_the_pauses_that_are_in_force(alias: str) -> None:
    """After either command; --all is the pause of every prefix, and ends by itself."""
    run_command("pause_locks", "deploy:", f"--backend={alias}")
    both = run_command("pause_locks", "--all", f"--backend={alias}", "--for=90s", "--format=json")
    assert [(row["backend"], row["prefix"]) for row in both.rows] == [
        (alias, ""),
        (alias, "deploy:"),
    ]
    everything, deploy = both.rows
    assert deploy["until"] is None
    assert deploy["by"].startswith("os user ")
    since, until = (datetime.fromisoformat(everything[name]) for name in ("since", "until"))
    assert since.tzinfo is not None
    assert round((until - since).total_seconds()) == 90
    left = run_command("resume_locks", "--all", f"--backend={alias}", "--format=json")
    assert [row["prefix"] for row in left.rows] == ["deploy:"]
    table = run_command("pause_locks", "--all", f"--backend={alias}")
    assert table.out.startswith("Paused: all locks, until resumed\n    by os user ")


@on_each_shared_store
def test_resuming_what_is_not_paused_is_no_error(alias: str) -> None:
    """The end of a deploy may come after that of its pause. But it is said."""
    done = run_command("resume_locks", "deploy:", f"--backend={alias}", "--format=json")
    assert (done.code, done.rows) == (0, [])
    assert done.err == "There was no such pause, or it had ended.\n"


@pytest.mark.parametrize("command", ["pause_locks", "resume_locks"])
def test_memory_of_another_process_cannot_be_paused(command: str) -> None:
    """A pause would hold in the command's own process, which ends."""
    done = run_command(command, "--all", "--backend=memory")
    assert (done.code, done.out) == (1, "")
    assert "MemoryBackend keeps locks in the memory of each process" in done.err
    assert lock_backends["memory"].pauses() == []


@pytest.mark.parametrize("command", ["pause_locks", "resume_locks"])
def test_store_that_keeps_no_pauses_says_so(command: str) -> None:
    """Rather than doing as if."""
    done = run_command(command, "--all", "--backend=minimal")
    assert (done.code, done.out) == (1, "")
    assert "MinimalBackend can't " in done.err


@on_each_shared_store
def test_reason_that_no_store_takes_is_refused(alias: str) -> None:
    """A terminal escape, or a novel."""
    for reason in ("\x1b[31mred", "x" * 256):
        done = run_command("pause_locks", "--all", f"--backend={alias}", f"--reason={reason}")
        assert (done.code, done.out) == (2, "")
        assert done.err.startswith("CommandError: reason has ")
