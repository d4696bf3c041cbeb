"""`manage.py release_lock`: shows a lock, asks, and takes it from the holder that was shown."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any

import pytest

from django_distlock import lock_backends
from django_distlock.leases.request import new_owner
from django_distlock.records import LeaseClaim
from django_distlock.signals import lock_force_released
from tests.support.commands import HOLDER, Terminal, on_each_store, run_command, token_of
from tests.support.databases import on_each_database
from tests.support.memory_stores import memory_store
from tests.support.stale_locks import make_released, make_stale

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = [pytest.mark.django_db(databases="__all__"), pytest.mark.once]


@pytest.fixture
def told() -> Iterator[list[dict[str, Any]]]:
    """Collect the signal of forced releases."""
    collected: list[dict[str, Any]] = []

    def receive(**arguments: Any) -> None:
        collected.append(arguments)

    lock_force_released.connect(receive)
    yield collected
    lock_force_released.disconnect(receive)


@on_each_store
def test_lock_is_shown_and_released_after_a_yes(
    alias: str,
    grant: Callable[..., int],
    told: list[dict[str, Any]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The log line and the signal say who did it."""
    token = grant(alias, "stuck")
    done = run_command("release_lock", "stuck", f"--backend={alias}", typed="y\n")
    assert done.code == 0
    assert done.out == f"Released stuck, which {HOLDER} held with token {token}.\n"
    shown = done.err.splitlines()
    assert shown[0] == f"stuck in {alias} ({type(lock_backends[alias]).__name__})"
    assert shown[1] == f"  holder:    {HOLDER}"
    assert shown[2].startswith("  acquired:  0s ago, at 2")
    assert shown[3] == "  renewed:   never"
    assert f"  token:     {token}" in shown
    assert shown[-1] == "Release it by force? [y/N] "
    assert "Whatever else it does may be done twice." in shown
    assert max(map(len, shown)) <= 80
    assert token_of(lock_backends[alias], "stuck") is None
    [event] = told
    assert (event["semaphore"], event["backend"], event["token"]) == ("stuck", alias, token)
    assert re.fullmatch(r"os user \S+@\S+( \(sudo from .*\))?", event["by"])
    [line] = [each for each in caplog.records if each.levelno == logging.WARNING]
    assert line.getMessage().endswith(f"with token {token}, was force-released by {event['by']}.")


@on_each_store
def test_no_input_releases_without_a_question(alias: str, grant: Callable[..., int]) -> None:
    """Its JSON is the lock as it was held."""
    token = grant(alias, "stuck")
    arguments = f"--backend={alias}", "--no-input", "--format=json", f"--token={token}"
    done = run_command("release_lock", "stuck", *arguments)
    assert done.code == 0
    [row] = done.rows
    assert (row["backend"], row["semaphore"], row["token"]) == (alias, "stuck", token)
    assert "[y/N]" not in done.err
    assert token_of(lock_backends[alias], "stuck") is None


@pytest.mark.parametrize("answer", ["\n", "n\n", "yellow\n", ""])
def test_any_other_answer_releases_nothing(answer: str, grant: Callable[..., int]) -> None:
    """Such as the end of the input, by Ctrl-D."""
    token = grant("memory", "stuck")
    done = run_command("release_lock", "stuck", "--backend=memory", typed=answer)
    assert (done.code, done.out) == (1, "")
    assert done.err.endswith("CommandError: Nothing was released.\n")
    assert token_of(memory_store(), "stuck") == token


def test_without_a_terminal_it_refuses_rather_than_waits(grant: Callable[..., int]) -> None:
    """A cron job gives --no-input. Its JSON is valid all the same."""
    token = grant("memory", "stuck")
    done = run_command("release_lock", "stuck", "--backend=memory", "--format=json")
    assert (done.code, done.rows) == (2, [])
    assert done.err.splitlines()[-1] == (
        "CommandError: There is no terminal to ask on: give --no-input to go on without."
    )
    assert token_of(memory_store(), "stuck") == token


@on_each_store
def test_another_token_than_the_given_one_keeps_its_lock(
    alias: str, grant: Callable[..., int]
) -> None:
    """The refusal says who holds it."""
    token = grant(alias, "stuck")
    arguments = f"--backend={alias}", "--no-input", f"--token={token - 1}"
    done = run_command("release_lock", "stuck", *arguments)
    assert (done.code, done.out) == (1, "")
    assert done.err == (
        f"CommandError: Nothing was released: stuck is held by {HOLDER} with token {token}, "
        "acquired 0s ago.\n"
    )
    assert token_of(lock_backends[alias], "stuck") == token


@pytest.mark.parametrize("has_successor", [True, False])
def test_grant_that_ends_during_the_question_is_not_released(has_successor: bool) -> None:
    """What was shown is what is released: a successor keeps its lock."""
    store = memory_store()
    shown, successor = (LeaseClaim("stuck", new_owner(), 60) for _ in range(2))
    assert store.acquire("stuck", shown.owner, 60, "the holder shown")

    def change_hands() -> None:
        store.release(shown)
        if has_successor:
            assert store.acquire("stuck", successor.owner, 60, "the next one")

    stdin = Terminal("y\n", before=change_hands)
    done = run_command("release_lock", "stuck", "--backend=memory", stdin=stdin)
    assert (done.code, done.out) == (1, "")
    if has_successor:
        assert "Nothing was released: stuck is held by the next one with token" in done.err
    assert bool(store.release(successor)) == has_successor


@on_each_store
def test_free_lock_is_an_error(alias: str) -> None:
    """Most often the name is mistyped, or another store has it."""
    done = run_command("release_lock", "stcuk", f"--backend={alias}", "--no-input")
    assert (done.code, done.out) == (1, "")
    free = f"CommandError: Nothing was released: stcuk is free in '{alias}'. DISTLOCK also has "
    unseen = "CommandError: DISTLOCK['memory']: MemoryBackend keeps locks in the memory of each "
    assert done.err.startswith(unseen if alias == "memory" else free)


@on_each_database
def test_stale_and_released_locks_are_held_by_nobody(alias: str) -> None:
    """The message says what to do about a stale one."""
    make_stale(alias, "stale")
    make_released(alias, "released")
    stale, released = (
        run_command("release_lock", name, f"--backend={alias}", "--no-input")
        for name in ("stale", "released")
    )
    assert (stale.code, released.code) == (1, 1)
    assert "stale expired 2h 30m ago, so nobody holds it" in stale.err
    assert "run clear_stale_locks" in stale.err
    assert f"released is free in '{alias}'." in released.err


@on_each_store
def test_lock_that_is_only_kept_is_freed(alias: str) -> None:
    """Its holder has released it: min_hold keeps it."""
    store = lock_backends[alias]
    claim = LeaseClaim("limited", new_owner(), 60)
    assert store.acquire("limited", claim.owner, 60, HOLDER)
    assert store.release(claim, 600)
    done = run_command("release_lock", "limited", f"--backend={alias}", "--no-input")
    assert done.code == 0
    assert token_of(store, "limited") is None
    if alias == "memory":
        assert "Only min_hold keeps it from others" in done.err


def test_only_store_has_no_other_to_name(settings: Any) -> None:
    """Then the message is about the name alone."""
    settings.DISTLOCK = {"default": settings.DISTLOCK["default"]}
    done = run_command("release_lock", "stcuk", "--no-input")
    assert done.err == "CommandError: Nothing was released: stcuk is free in 'default'.\n"


def test_store_that_cannot_list_says_so() -> None:
    """There a lock ends with its ttl."""
    done = run_command("release_lock", "stuck", "--backend=minimal", "--no-input")
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("CommandError: DISTLOCK['minimal']: MinimalBackend can't list locks")


def test_store_without_the_guard_says_that_all_may_be_done_twice(
    settings: Any, grant: Callable[..., int]
) -> None:
    """Its operator should know before."""
    unguarded = {"OPTIONS": {"guard_commits": False}}
    settings.DISTLOCK = {"memory": settings.DISTLOCK["memory"] | unguarded}
    grant("memory", "stuck")
    done = run_command("release_lock", "stuck", "--backend=memory", "--no-input")
    assert "may be done twice: guard_commits is off for this store.\n" in done.err


def test_sudo_tells_the_user_before_it(
    monkeypatch: pytest.MonkeyPatch, grant: Callable[..., int], told: list[dict[str, Any]]
) -> None:
    """Escaped, and no longer than a store takes it: the variable may say anything."""
    for variable, told_of in (("bob", "bob)"), ("\x1b[2J" * 100, r"\x1b[2J\x1b[2J")):
        monkeypatch.setenv("SUDO_USER", variable)
        grant("memory", "stuck")
        run_command("release_lock", "stuck", "--backend=memory", "--no-input")
        by = told[-1]["by"]
        assert f" (sudo from {told_of}" in by
        assert len(by) <= 255


def test_user_without_a_name_is_told_by_number(
    monkeypatch: pytest.MonkeyPatch, grant: Callable[..., int], told: list[dict[str, Any]]
) -> None:
    """As in a container that runs under any uid."""
    monkeypatch.setattr("os.getuid", lambda: 1_000_720_000)
    grant("memory", "stuck")
    run_command("release_lock", "stuck", "--backend=memory", "--no-input")
    assert told[-1]["by"].startswith("os user 1000720000@")
