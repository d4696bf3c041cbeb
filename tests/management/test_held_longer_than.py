"""`manage.py clear_stale_locks --held-longer-than`: locks whose holders hang."""

from __future__ import annotations

from datetime import timedelta
from io import StringIO
from typing import TYPE_CHECKING, Any

import pytest
from django.core.management import call_command

from django_distlock import lock_backends
from django_distlock.leases.request import new_owner
from django_distlock.management import long_holds
from django_distlock.models import KEPT, Lock
from django_distlock.records import LeaseClaim, LockInfo
from django_distlock.signals import lock_force_released
from tests.support.commands import HOLDER, Terminal, on_each_store, run_command, token_of
from tests.support.databases import another_session, committed, on_each_database
from tests.support.memory_stores import memory_store
from tests.support.stale_locks import HOUR, found, make, make_held, make_released, make_stale

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from django_distlock.backends.base import BaseLockBackend

pytestmark = [pytest.mark.django_db(databases="__all__"), pytest.mark.once]

AGE = "--held-longer-than=1s"


def long_held(monkeypatch: pytest.MonkeyPatch, store: BaseLockBackend) -> None:
    """Make the store list its locks as if they had been acquired an hour before."""
    held = store.held

    def list_older(prefix: str = "", limit: int | None = None) -> Iterator[LockInfo]:
        for lock in held(prefix, limit):
            assert lock.acquired_at is not None
            object.__setattr__(lock, "acquired_at", lock.acquired_at - HOUR)
            yield lock

    monkeypatch.setattr(store, "held", list_older)


@on_each_store
def test_held_locks_are_listed_and_released_after_a_yes(
    alias: str, grant: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By their tokens, and by the operating system's user."""
    store = lock_backends[alias]
    for semaphore in ("hung:1", "hung:2", "other"):
        grant(alias, semaphore)
    long_held(monkeypatch, store)
    done = run_command(
        "clear_stale_locks", f"--backend={alias}", "--prefix=hung:", AGE, typed="y\n"
    )
    assert (done.code, done.err) == (0, "Release 2 held locks by force? [y/N] ")
    none_stale, *lines, count = done.out.splitlines()
    assert none_stale == "0 stale locks released."
    assert lines == [f"hung:{number}: {HOLDER}, acquired 1h ago" for number in (1, 2)]
    assert count == "2 held locks released by force."
    assert [token_of(store, name) for name in ("hung:1", "hung:2")] == [None, None]
    assert token_of(store, "other") is not None


@on_each_database
def test_only_locks_that_are_held_for_so_long_are_released(alias: str) -> None:
    """Not stale ones, released ones, or those that only min_hold keeps from others."""
    make_held(alias, "held for an hour")
    lasting = make_held(alias, "kept")
    Lock.objects.using(alias).filter(pk=lasting.pk).update(owner=KEPT)
    make(alias, "of unknown age", owner="x", token=1, acquired_at=None, expires_at=None)
    make_stale(alias, "stale")
    make_released(alias, "released")
    done = run_command(
        "clear_stale_locks", f"--backend={alias}", "--held-longer-than=59m", "--no-input"
    )
    assert done.code == 0
    assert "\n1 held lock released by force.\n" in done.out
    assert found(Lock.objects.using(alias).held()) == ["kept", "of unknown age"]
    none = run_command(
        "clear_stale_locks", f"--backend={alias}", "--held-longer-than=59m", typed=""
    )
    assert (none.code, none.err) == (0, "")  # and no question about nothing
    assert none.out.endswith("\n0 held locks released by force.\n")


@on_each_database
def test_locks_of_one_host_are_released_by_their_holder(alias: str) -> None:
    """The text that ends with `pid` doesn't fit a host whose name goes on."""
    for semaphore, holder in {
        "a": "web3 pid 71 MainThread",
        "b": "collect (web3 pid 9 MainThread)",
        "c": "web30 pid 71 MainThread",
    }.items():
        Lock.objects.using(alias).filter(pk=make_held(alias, semaphore).pk).update(holder=holder)
    done = run_command(
        "clear_stale_locks", f"--backend={alias}", AGE, "--holder=web3 pid", "--no-input"
    )
    assert done.code == 0
    assert done.out.endswith("\n2 held locks released by force.\n")
    assert found(Lock.objects.using(alias).held()) == ["c"]


@committed
@on_each_database
def test_each_release_is_a_transaction_of_its_own(alias: str) -> None:
    """Another session sees it before the next one: no transaction grows with their number."""
    for number in range(3):
        make_held(alias, f"hung:{number}")
    seen = []

    def look(*, semaphore: str, **arguments: Any) -> None:
        with another_session(alias) as other, other.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM distlock_lock WHERE owner = ''")
            seen.append(cursor.fetchone()[0])

    lock_force_released.connect(look)
    try:
        done = run_command("clear_stale_locks", f"--backend={alias}", AGE, "--no-input")
    finally:
        lock_force_released.disconnect(look)
    assert done.code == 0
    assert seen == [1, 2, 3]


def test_dry_run_asks_nothing_and_changes_nothing(
    grant: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So it needs no terminal."""
    token = grant("memory", "hung")
    long_held(monkeypatch, memory_store())
    arguments = "clear_stale_locks", "--backend=memory", AGE, "--dry-run"
    done, rows = run_command(*arguments), run_command(*arguments, "--format=json")
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[1:] == [
        f"hung: {HOLDER}, acquired 1h ago",
        "1 held lock would be released by force.",
    ]
    assert [row["token"] for row in rows.rows] == [token]
    assert rows.err.endswith("1 held lock would be released by force.\n")
    assert token_of(memory_store(), "hung") == token


def test_a_no_releases_no_held_lock(
    grant: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its JSON is valid, and empty."""
    token = grant("memory", "hung")
    long_held(monkeypatch, memory_store())
    done = run_command("clear_stale_locks", "--backend=memory", AGE, "--format=json", typed="n\n")
    assert (done.code, done.rows) == (1, [])
    assert f"hung: {HOLDER}, acquired 1h ago\n" in done.err  # what the question is about
    assert done.err.endswith("CommandError: No held lock was released.\n")
    assert token_of(memory_store(), "hung") == token


def test_without_a_terminal_nothing_at_all_is_done() -> None:
    """Not even stale locks are released: the cron job's line is wrong."""
    make_stale("default", "stale")
    done = run_command("clear_stale_locks", AGE)
    assert (done.code, done.out) == (2, "")
    assert "give --no-input" in done.err
    assert found(Lock.objects.using("default").stale()) == ["stale"]


def test_grant_that_came_after_the_list_is_left_to_its_holder(
    monkeypatch: pytest.MonkeyPatch, grant: Callable[..., int]
) -> None:
    """Only the token that was listed is released; JSON has what really was."""
    store = memory_store()
    first = LeaseClaim("hung:1", new_owner(), 60)
    assert store.acquire("hung:1", first.owner, 60, HOLDER)
    listed = grant("memory", "hung:2")
    long_held(monkeypatch, store)
    force_release = store.force_release

    def change_hands(semaphore: str, token: int, *, by: str = "") -> bool:
        if semaphore == "hung:1":
            store.release(first)
            grant("memory", "hung:1")
        return force_release(semaphore, token, by=by)

    monkeypatch.setattr(store, "force_release", change_hands)
    arguments = "--backend=memory", AGE, "--no-input", "--format=json"
    done = run_command("clear_stale_locks", *arguments)
    assert done.code == 0
    assert [row["token"] for row in done.rows] == [listed]
    assert "1 held lock released by force.\n1 had ended meanwhile.\n" in done.err
    assert token_of(store, "hung:1") is not None


def test_list_is_shown_before_the_question_even_in_a_pipe(
    grant: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever answers has seen it: a pipe's buffer doesn't keep it back."""
    grant("memory", "hung")
    long_held(monkeypatch, memory_store())
    out = StringIO()
    events = []
    monkeypatch.setattr(out, "flush", lambda: events.append(out.getvalue()))
    monkeypatch.setattr("sys.stdin", Terminal("y\n", before=lambda: events.append("asked")))
    call_command("clear_stale_locks", "--backend=memory", AGE, stdout=out, stderr=StringIO())
    shown = events[events.index("asked") - 1]
    assert shown.endswith(f"hung: {HOLDER}, acquired 1h ago\n")


def test_many_locks_are_kept_in_a_file_meanwhile(
    monkeypatch: pytest.MonkeyPatch, grant: Callable[..., int]
) -> None:
    """Their number doesn't matter to the memory of the command."""
    monkeypatch.setattr(long_holds, "IN_MEMORY", 100)
    for number in range(5):
        grant("memory", f"hung:{number}")
    long_held(monkeypatch, memory_store())
    done = run_command("clear_stale_locks", "--backend=memory", AGE, "--no-input")
    assert done.out.endswith("\n5 held locks released by force.\n")
    assert list(memory_store().held("hung:")) == []


@pytest.mark.parametrize("options", [["--no-input"], ["--dry-run"]])
def test_memory_of_another_process_is_not_called_empty(options: list[str]) -> None:
    """The command can't see the site's locks."""
    done = run_command("clear_stale_locks", "--backend=memory", AGE, *options)
    assert done.code == 1
    assert "MemoryBackend keeps locks in the memory of each process" in done.err


def test_store_that_cannot_list_says_so() -> None:
    """Its holders lose their locks by the ttl only."""
    done = run_command("clear_stale_locks", "--backend=minimal", AGE, "--no-input")
    assert done.code == 1
    assert "MinimalBackend can't list locks" in done.err


@on_each_database
def test_json_has_a_row_for_each_lock_and_the_counts_on_stderr(alias: str) -> None:
    """The state is what it was."""
    make_stale(alias, "stale")
    make_released(alias, "released", age=timedelta(days=2))
    done = run_command(
        "clear_stale_locks", f"--backend={alias}", "--purge-released=1d", "--format=json"
    )
    rows: list[dict[str, Any]] = done.rows
    assert [(row["semaphore"], row["state"]) for row in rows] == [
        ("stale", "stale"),
        ("released", "released"),
    ]
    assert done.err == "1 stale lock released.\n1 released lock deleted.\n"
    again = run_command("clear_stale_locks", f"--backend={alias}", "--format=json")
    assert (again.rows, again.err) == ([], "0 stale locks released.\n")
