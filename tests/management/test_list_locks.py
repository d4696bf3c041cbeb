"""`manage.py list_locks`: the locks of every store, as a table and as JSON."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.test import override_settings

from django_distlock import lock_backends
from django_distlock.backends.database import listing
from django_distlock.exceptions import LockBackendUnavailable
from django_distlock.records import LockInfo, LockState
from tests.support.commands import HOLDER, on_each_store, run_command
from tests.support.databases import on_each_database
from tests.support.memory_stores import memory_store
from tests.support.stale_locks import make_held, make_released, make_stale

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = [pytest.mark.django_db(databases="__all__"), pytest.mark.once]

PINNED = {
    *("backend", "semaphore", "state", "holder", "label", "token", "acquired_at", "expires_at"),
    *("waiting", "renewed_at", "kept"),
}


@on_each_store
def test_table_has_a_line_for_each_lock_with_the_prefix(
    alias: str, grant: Callable[..., int]
) -> None:
    """With state, ages, token and holder; in a pipe nothing is cut."""
    long = "listed:" + 200 * "x"
    tokens = [grant(alias, semaphore) for semaphore in ("listed:1", long)]
    grant(alias, "other")
    done = run_command("list_locks", "listed:", f"--backend={alias}")
    heading, columns, *lines, summary = done.out.splitlines()
    assert (done.code, done.err) == (0, "")
    assert heading == f"{alias} ({type(lock_backends[alias]).__name__})"
    assert columns.split() == [
        *("SEMAPHORE", "STATE", "HELD", "RENEWED", "LEFT", "WAITING", "TOKEN", "HOLDER")
    ]
    assert [line.split()[:2] for line in lines] == [["listed:1", "held"], [long, "held"]]
    ends = [f"  {token}  {HOLDER}" for token in tokens]
    assert all(line.endswith(end) for line, end in zip(lines, ends, strict=True))
    assert summary == "2 locks."


@on_each_store
def test_json_has_the_pinned_keys(alias: str, grant: Callable[..., int]) -> None:
    """One row a lock; the times are aware."""
    token = grant(alias, "json:1")
    done = run_command("list_locks", "json:", f"--backend={alias}", "--format=json")
    assert (done.code, done.err) == (0, "")
    [row] = done.rows
    assert set(row) == PINNED
    known = {name: row[name] for name in ("backend", "semaphore", "state", "holder", "label")}
    assert known == {
        "backend": alias,
        "semaphore": "json:1",
        "state": "held",
        "holder": HOLDER,
        "label": "payments",
    }
    assert row["token"] == token
    acquired, expires = (
        datetime.fromisoformat(row[name]) for name in ("acquired_at", "expires_at")
    )
    assert acquired.tzinfo is not None
    assert timedelta(seconds=999) < expires - acquired < timedelta(seconds=1001)


@on_each_store
def test_nothing_found_is_valid_json_and_said_in_words(alias: str) -> None:
    """A script can always parse stdout."""
    arguments = "list_locks", "nobody has this:", f"--backend={alias}"
    table, rows = run_command(*arguments), run_command(*arguments, "--format=json")
    assert rows.rows == []
    if alias == "memory":  # which a command of a shell can't see
        assert (table.code, table.out) == (1, "")
        assert table.err == rows.err
        assert "MemoryBackend keeps locks in the memory of each process" in table.err
    else:
        assert (table.code, table.err, rows.code) == (0, "", 0)
        assert table.out.endswith("\nNo locks.\n")


@on_each_database
def test_state_chooses_held_stale_or_released_locks(alias: str) -> None:
    """Released ones are listed only if asked for."""
    make_held(alias, "held")
    make_stale(alias, "stale")
    make_released(alias, "released")

    def listed(*arguments: str) -> list[str]:
        done = run_command("list_locks", f"--backend={alias}", "--format=json", *arguments)
        assert all(f"--state={row['state']}" in arguments for row in done.rows if arguments)
        return [row["semaphore"] for row in done.rows]

    assert listed() == ["held", "stale"]
    for state in LockState:
        assert listed(f"--state={state.value}") == [state.value]
    assert "  -2h 30m  " in run_command("list_locks", "stale", f"--backend={alias}").out


@on_each_store
def test_limit_says_that_there_are_more(alias: str, grant: Callable[..., int]) -> None:
    """A list that was cut doesn't look whole."""
    for number in range(3):
        grant(alias, f"many:{number}")
    arguments = "list_locks", "many:", f"--backend={alias}"
    assert run_command(*arguments, "--limit=2").out.endswith(
        "\nThe first 2 locks; there are more.\n"
    )
    assert run_command(*arguments, "--limit=3").out.endswith("\n3 locks.\n")
    rows = run_command(*arguments, "--limit=1", "--format=json").rows
    assert [row["semaphore"] for row in rows] == ["many:0"]


def test_all_stores_are_listed_and_those_that_cannot_be_are_named(
    monkeypatch: pytest.MonkeyPatch, grant: Callable[..., int]
) -> None:
    """One that is down, misconfigured, or unable to list costs no other its list."""

    def refuse(*args: Any) -> None:
        raise LockBackendUnavailable("DISTLOCK['locks']: the database is down")

    grant("default", "seen")
    database = "django_distlock.backends.database.DatabaseBackend"
    entries = {
        "default": {"BACKEND": database},
        "locks": {"BACKEND": database, "OPTIONS": {"using": "locks"}},
        "wrong": {"BACKEND": "no.such.Backend"},
        "minimal": {"BACKEND": "tests.app.backends.MinimalBackend"},
    }
    with override_settings(DISTLOCK=entries):
        monkeypatch.setattr(lock_backends["locks"], "held", refuse)
        for options in ([], ["--format=json"]):
            done = run_command("list_locks", *options)
            assert done.code == 1
            assert "seen" in done.out
            down, wrong, minimal = done.err.removeprefix("CommandError: ").splitlines()
            assert down == "DISTLOCK['locks']: the database is down"
            assert wrong.startswith("DISTLOCK['wrong']: could not import BACKEND")
            assert minimal.startswith("DISTLOCK['minimal']: MinimalBackend can't list locks")
        assert [row["semaphore"] for row in done.rows] == ["seen"]
        table = run_command("list_locks").out.splitlines()
        assert [line for line in table if "Backend" in line] == ["default (DatabaseBackend)"]


def test_store_that_fails_in_the_middle_leaves_valid_json(
    monkeypatch: pytest.MonkeyPatch, grant: Callable[..., int]
) -> None:
    """What was listed until then is printed."""
    grant("memory", "first")
    [lock] = memory_store().held("first")

    def fail(prefix: str = "", limit: int | None = None) -> Any:
        yield lock
        raise LockBackendUnavailable("it is down")

    monkeypatch.setattr(memory_store(), "held", fail)
    done = run_command("list_locks", "--backend=memory", "--format=json")
    assert (done.code, done.err) == (1, "CommandError: it is down\n")
    assert [row["semaphore"] for row in done.rows] == ["first"]


def test_hostile_texts_reach_no_terminal(grant: Callable[..., int]) -> None:
    """Neither escape sequences nor marks that turn the text around."""
    grant("memory", "evil\u202e:1", holder="\x1b[31mred\u2028\x9b (h pid 1 t)")
    table = run_command("list_locks", "evil", "--backend=memory").out
    assert r"evil\u202e:1  held" in table
    assert r"\x1b[31mred\u2028\x9b (h pid 1 t)" in table
    rows = run_command("list_locks", "evil", "--backend=memory", "--format=json")
    assert rows.out.isascii()
    assert rows.rows[0]["semaphore"] == "evil\u202e:1"
    assert rows.rows[0]["label"] == "\x1b[31mred\u2028\x9b"


def test_thousands_of_locks_are_listed_as_they_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than the rows by which the columns are measured."""
    grant_time = datetime.fromisoformat("2026-01-01T00:00:00+00:00")
    lock = LockInfo("job", LockState.HELD, 1, "h", grant_time, None, grant_time)
    monkeypatch.setattr(memory_store(), "held", lambda *args: iter([lock] * 2500))
    done = run_command("list_locks", "--backend=memory")
    assert done.out.count("job ") == 2500
    assert "no end" in done.out
    assert done.out.endswith("\n2500 locks.\n")
    rows = run_command("list_locks", "--backend=memory", "--format=json").rows
    assert len(rows) == 2500


@on_each_database
def test_locks_in_a_database_are_read_page_by_page(
    alias: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None is missing at the pages' ends, or with a limit in the middle of one."""
    monkeypatch.setattr(listing, "PAGE", 2)
    for semaphore in "abcde":
        make_held(alias, semaphore)
        make_released(alias, f"{semaphore}, released")
    store = lock_backends[alias]
    for limit in (None, *range(7)):
        assert "".join(lock.semaphore for lock in store.held(limit=limit)) == "abcde"[:limit]


def test_pauses_are_shown_above_the_locks_and_alone(grant: Callable[..., int]) -> None:
    """With --pauses, they are the rows of the JSON, too."""
    grant("memory", "deploy:1")
    store = memory_store()
    assert run_command("list_locks", "--backend=memory", "--pauses").code == 1  # not seen from here
    store.pause("deploy:", 600, reason="migration", by="os user alice@web1")
    try:
        table = run_command("list_locks", "--backend=memory").out.splitlines()
        alone = run_command("list_locks", "--backend=memory", "--pauses")
        rows = run_command("list_locks", "--backend=memory", "--pauses", "--format=json").rows
    finally:
        store.resume("deploy:")
    assert table[1].startswith("Paused: what begins with deploy:, until 2")
    assert table[1].endswith(": migration")
    assert table[2].startswith("    by os user alice@web1, since 2")
    assert table[3].startswith("SEMAPHORE")
    assert alone.out.splitlines() == table[:3]
    [row] = rows
    assert set(row) == {"backend", "prefix", "since", "until", "reason", "by"}
    assert (row["backend"], row["prefix"], row["reason"]) == ("memory", "deploy:", "migration")
    lasts = datetime.fromisoformat(row["until"]) - datetime.fromisoformat(row["since"])
    assert round(lasts.total_seconds()) == 600
