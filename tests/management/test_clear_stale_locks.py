"""`manage.py clear_stale_locks`: which locks it releases, and what it prints."""

from __future__ import annotations

import json
import subprocess
import sys
from io import StringIO
from unittest import mock

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError, connections
from django.test import override_settings

from django_distlock import LockBackendUnavailable
from django_distlock.models import Lock
from tests.support.databases import on_each_database
from tests.support.processes import worker_environment
from tests.support.stale_locks import (
    SECRET,
    found,
    make,
    make_held,
    make_released,
    make_stale,
    rows,
    run,
)

pytestmark = pytest.mark.django_db(databases="__all__")


@on_each_database
def test_exactly_the_stale_locks_are_released(alias: str) -> None:
    """Held locks, unlimited ones too, and released locks stay as they are."""
    make_held(alias, "held")
    make(alias, "held without end", owner=SECRET, expires_at=None)
    make_released(alias, "released")
    untouched = rows(alias)
    make_stale(alias, "stale", token=7)
    make_stale(alias, "stale, too")
    run(alias)
    locks = Lock.objects.using(alias)
    assert [row for row in rows(alias) if "stale" not in row["semaphore"]] == untouched
    assert found(locks.stale()) == []
    assert found(locks.released()) == ["released", "stale", "stale, too"]
    assert locks.get(semaphore="stale").token == 7


@on_each_database
def test_semaphore_holder_ages_and_count_are_printed(alias: str) -> None:
    """One line a lock, and their number; the owner is never shown."""
    make_stale(alias, "1234:collect", holder="payments (web1 pid 7 MainThread)")
    make_stale(alias, "1234:report", holder="", acquired_at=None)
    output = run(alias)
    assert output.splitlines() == [
        "1234:collect: payments (web1 pid 7 MainThread), acquired 3h 30m ago, expired 2h 30m ago",
        "1234:report: unknown holder, expired 2h 30m ago",
        "2 stale locks released.",
    ]
    assert SECRET not in output


def test_command_without_stale_locks_succeeds() -> None:
    """A cron job that has nothing to do says so."""
    make_held("default", "held")
    assert run("default") == "0 stale locks released.\n"


def test_one_lock_is_counted_in_the_singular() -> None:
    """It is a text for people."""
    make_stale("default", "stale")
    make_released("default", "released")
    lines = run("default", "--purge-released=1h").splitlines()
    assert lines[1] == "1 stale lock released."
    assert lines[3] == "1 released lock deleted."


@on_each_database
def test_dry_run_prints_the_same_and_changes_nothing(alias: str) -> None:
    """It prints what the command would print."""
    make_stale(alias, "stale", holder="h")
    make_released(alias, "released")
    before = rows(alias)
    output = run(alias, "--dry-run", "--purge-released=1h")
    assert rows(alias) == before
    assert output.splitlines() == [
        "stale: h, acquired 3h 30m ago, expired 2h 30m ago",
        "1 stale lock would be released.",
        "released: unknown holder, acquired 6h 30m ago, released 5h 30m ago",
        "1 released lock would be deleted.",
    ]
    done = run(alias, "--purge-released=1h")
    assert done == output.replace("would be ", "")
    assert rows(alias) != before


@on_each_database
def test_prefix_limits_both_jobs(alias: str) -> None:
    """It is taken literally."""
    for semaphore in ("a_b", "axb", "A_b", "b"):
        make_stale(alias, f"stale:{semaphore}")
        make_released(alias, f"stale:{semaphore}:released")
    make_stale(alias, "other")
    output = run(alias, "--prefix=stale:a_", "--purge-released=1h")
    assert "1 stale lock released." in output
    assert "1 released lock deleted." in output
    locks = Lock.objects.using(alias)
    assert found(locks.stale()) == ["other", "stale:A_b", "stale:axb", "stale:b"]
    assert "stale:a_b:released" not in found(locks.released())
    assert locks.released().count() == 4


@pytest.mark.needs("postgresql", "mariadb")
def test_only_the_given_backend_is_cleared() -> None:
    """The default one, unless another is named."""
    for alias in ("default", "postgresql", "mariadb"):
        make_stale(alias, "stale")
    assert "1 stale lock released." in run("postgresql")
    stale = [found(Lock.objects.using(alias).stale()) for alias in ("default", "mariadb")]
    assert stale == [["stale"], ["stale"]]
    call_command("clear_stale_locks", stdout=StringIO())
    assert found(Lock.objects.using("default").stale()) == []
    assert found(Lock.objects.using("mariadb").stale()) == ["stale"]


def test_unknown_backend_is_a_command_error() -> None:
    """A message, not a traceback."""
    with pytest.raises(CommandError, match=r"^DISTLOCK\['nowhere'\]: not configured"):
        run("nowhere")


@pytest.mark.parametrize("prefix", ["\udcff", "a\n", "x" * 256])
def test_prefix_that_no_semaphore_has_is_a_command_error(prefix: str) -> None:
    """Such as undecodable bytes of a shell."""
    with pytest.raises(CommandError, match="--prefix: A semaphore has"):
        run("default", f"--prefix={prefix}")


def unreachable(alias: str) -> dict[str, str]:
    """Return an environment in which this database is unreachable."""
    environment = worker_environment()
    if alias == "default":
        return environment | {"DISTLOCK_TEST_SQLITE": "/nowhere/at.all"}
    variable = f"DISTLOCK_TEST_{alias.upper()}"
    entry = json.loads(environment[variable]) | {"HOST": "127.0.0.1", "PORT": "1"}
    return environment | {variable: json.dumps(entry)}


@pytest.mark.once
@on_each_database
def test_unreachable_database_is_reported_without_a_traceback(alias: str) -> None:
    """With the store's alias, the driver's reason, and an exit code that cron notices."""
    done = subprocess.run(
        [sys.executable, "-m", "django", "clear_stale_locks", f"--backend={alias}"],
        env=unreachable(alias),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"CommandError: DISTLOCK['{alias}']: ")
    assert "open" in done.stderr or "connect" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [[], ["--dry-run"], ["--purge-released=1h"]])
def test_unreachable_database_is_a_command_error(arguments: list[str]) -> None:
    """For every job of the command."""
    down = OperationalError("the database is down")
    with (
        mock.patch.object(connections["default"], "cursor", side_effect=down),
        pytest.raises(
            CommandError, match=r"^DISTLOCK\['default'\]: the database is down$"
        ) as caught,
    ):
        run("default", *arguments)
    assert isinstance(caught.value.__cause__, LockBackendUnavailable)


def test_store_without_listing_has_nothing_to_clear() -> None:
    """A store whose locks end by themselves needs no cron job."""
    backend = {"BACKEND": "tests.app.backends.MinimalBackend"}
    with override_settings(DISTLOCK={"plain": backend}):
        assert run("plain", "--purge-released=1h").splitlines() == [
            "0 stale locks released.",
            "0 released locks deleted.",
        ]
