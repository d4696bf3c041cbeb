"""`manage.py clear_stale_locks`: what it tidies up, and what it leaves alone."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any
from unittest import mock

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError, connections
from django.test import override_settings
from model_bakery import baker

from django_distlock import LockBackendUnavailable, acquire_lock, lock_backends
from django_distlock.backends.database import cleaning
from django_distlock.fields import to_microseconds
from django_distlock.leases.request import new_owner
from django_distlock.models import Lock
from tests.support.databases import on_each_database
from tests.support.processes import worker_environment

pytestmark = pytest.mark.django_db(databases="__all__")

HOUR = timedelta(hours=1)
# Between two minutes, so that the seconds which a test takes don't change what is shown.
HALF = timedelta(minutes=30, seconds=30)
SECRET = "5ec2e7" * 5


def make(alias: str, semaphore: str, **values: Any) -> Lock:
    lock: Lock = baker.make(Lock, _using=alias, semaphore=semaphore, **values)
    return lock


def make_stale(alias: str, semaphore: str, **values: Any) -> Lock:
    """Write a lock that was acquired three hours ago, and expired two hours ago."""
    now = datetime.now(UTC) - HALF
    ended = {"acquired_at": now - 3 * HOUR, "expires_at": now - 2 * HOUR}
    return make(alias, semaphore, **{"owner": SECRET, "token": 1, **ended, **values})


def make_held(alias: str, semaphore: str) -> Lock:
    now = datetime.now(UTC)
    ends = {"acquired_at": now - HOUR, "expires_at": now + HOUR}
    return make(alias, semaphore, owner=SECRET, token=1, **ends)


def make_released(alias: str, semaphore: str, age: timedelta = 5 * HOUR, token: int = 1) -> Lock:
    now = datetime.now(UTC) - HALF
    ended = {"acquired_at": now - age - HOUR, "expires_at": now - age}
    return make(alias, semaphore, owner="", token=token, **ended)


def run(alias: str, *arguments: str) -> str:
    """Run the command as a shell would, and return what it prints."""
    output = StringIO()
    call_command("clear_stale_locks", f"--backend={alias}", *arguments, stdout=output)
    return output.getvalue()


def rows(alias: str) -> list[dict[str, Any]]:
    return [dict(row) for row in Lock.objects.using(alias).values()]


def found(locks: Any) -> list[str]:
    return [lock.semaphore for lock in locks]


@on_each_database
def test_exactly_the_stale_locks_are_released(alias: str) -> None:
    """Held ones, those without an end too, and released ones stay as they are."""
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
    """One line a lock, and how many there were; the owner is nobody's to see."""
    make_stale(alias, "1234:collect", holder="payments (web1 pid 7 MainThread)")
    make_stale(alias, "1234:report", holder="", acquired_at=None)
    output = run(alias)
    assert output.splitlines() == [
        "1234:collect: payments (web1 pid 7 MainThread), acquired 3h 30m ago, expired 2h 30m ago",
        "1234:report: unknown holder, expired 2h 30m ago",
        "2 stale locks released.",
    ]
    assert SECRET not in output


def test_nothing_stale_is_no_error() -> None:
    """A cron job that has nothing to do says so."""
    make_held("default", "held")
    assert run("default") == "0 stale locks released.\n"


def test_one_lock_is_counted_in_the_singular() -> None:
    """Only for people, but they read it."""
    make_stale("default", "stale")
    make_released("default", "released")
    lines = run("default", "--purge-released=1h").splitlines()
    assert lines[1] == "1 stale lock released."
    assert lines[3] == "1 released lock deleted."


@on_each_database
def test_dry_run_prints_the_same_and_changes_nothing(alias: str) -> None:
    """What would be done is what is done."""
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
def test_only_the_backend_that_was_asked_for_is_tidied() -> None:
    """The default one, unless another is named."""
    for alias in ("default", "postgresql", "mariadb"):
        make_stale(alias, "stale")
    assert "1 stale lock released." in run("postgresql")
    stale = [found(Lock.objects.using(alias).stale()) for alias in ("default", "mariadb")]
    assert stale == [["stale"], ["stale"]]
    call_command("clear_stale_locks", stdout=StringIO())
    assert found(Lock.objects.using("default").stale()) == []
    assert found(Lock.objects.using("mariadb").stale()) == ["stale"]


# Purging


@on_each_database
def test_locks_released_longer_ago_than_the_age_are_deleted(alias: str) -> None:
    """Neither those released since, nor those that this very run released, nor held ones."""
    make_released(alias, "old", age=25 * HOUR)
    make_released(alias, "young", age=HOUR)
    make_stale(alias, "stale")
    make_held(alias, "held")
    output = run(alias, "--purge-released", "1d")
    assert output.splitlines()[-2:] == [
        "old: unknown holder, acquired 1d 2h ago, released 1d 1h ago",
        "1 released lock deleted.",
    ]
    assert found(Lock.objects.using(alias)) == ["held", "stale", "young"]


@pytest.mark.parametrize(
    ("age", "left"),
    [
        ("1m", []),
        ("61m", ["minutes"]),
        ("3600s", ["minutes"]),
        ("3h", ["hours", "minutes"]),
        ("1d", ["hours", "minutes"]),
        ("3d", ["days", "hours", "minutes"]),
    ],
)
def test_age_may_be_in_any_unit(age: str, left: list[str]) -> None:
    """Seconds, minutes, hours or days."""
    make_released("default", "minutes", age=timedelta(0))
    make_released("default", "hours", age=2 * HOUR)
    make_released("default", "days", age=48 * HOUR)
    run("default", f"--purge-released={age}")
    assert found(Lock.objects.using("default")) == left


@on_each_database
def test_nothing_is_deleted_unless_asked_for(alias: str) -> None:
    """Released locks stay, and no word is said about deleting."""
    make_released(alias, "old", age=1000 * HOUR)
    assert "deleted" not in run(alias)
    assert found(Lock.objects.using(alias)) == ["old"]


@pytest.mark.parametrize("age", ["", "1", "1w", "-1d", "1.5h", "soon", "1d 2h"])
def test_bad_age_is_a_clear_error(age: str) -> None:
    """It names the option and shows what would be right, and nothing is released either."""
    make_stale("default", "stale")
    with pytest.raises(CommandError) as caught:
        run("default", f"--purge-released={age}")
    message = f"--purge-released: {age!r} is not a duration; write 90s, 15m, 12h or 1d."
    assert message in str(caught.value)
    assert found(Lock.objects.using("default").stale()) == ["stale"]


@on_each_database
def test_tokens_never_go_back_after_a_purge(alias: str) -> None:
    """Without the row the next token is the clock's, which has passed the deleted one."""
    first = acquire_lock("report", backend=alias)
    assert first is not None
    assert first.token is not None
    first.release()
    Lock.objects.using(alias).update(expires_at=datetime.now(UTC) - HOUR)
    run(alias, "--purge-released=1m")
    assert found(Lock.objects.using(alias)) == []
    second = acquire_lock("report", backend=alias)
    assert second is not None
    assert second.token is not None
    assert second.token > first.token


@on_each_database
def test_lock_whose_token_is_ahead_of_the_clock_is_kept(alias: str) -> None:
    """After a step of the clock back the row is all that knows the last token."""
    ahead = to_microseconds(datetime.now(UTC) + HOUR)
    make_released(alias, "ahead", token=ahead)
    make_released(alias, "behind")
    assert "1 released lock deleted." in run(alias, "--purge-released=1h")
    lease = acquire_lock("ahead", backend=alias)
    assert lease is not None
    assert lease.token == ahead + 1


# Beside running workers


@pytest.fixture
def one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each lock be a batch of its own."""
    monkeypatch.setattr(cleaning, "BATCH", 1)
    monkeypatch.setattr(cleaning, "PAGE", 1)


class Intrusion(StringIO):
    """An output that lets a worker act as soon as a line about the first lock is printed."""

    def __init__(self, act: Any) -> None:
        super().__init__()
        self.act = act

    def write(self, text: str) -> int:
        if text.startswith("first:"):
            self.act()
        return super().write(text)


@on_each_database
@pytest.mark.usefixtures("one_at_a_time")
def test_lock_that_a_worker_takes_after_the_listing_is_left_to_it(alias: str) -> None:
    """A stale lock may be acquired before its turn comes: it isn't stale any more."""
    make_stale(alias, "first")
    make_stale(alias, "second")
    owner = new_owner()
    output = Intrusion(lambda: lock_backends[alias].acquire("second", owner, 60, "worker"))
    call_command("clear_stale_locks", f"--backend={alias}", stdout=output)
    assert "1 stale lock released." in output.getvalue()
    assert "second:" not in output.getvalue()
    lock = Lock.objects.using(alias).get(semaphore="second")
    assert (lock.owner, lock.holder) == (owner, "worker")
    assert found(Lock.objects.using(alias).held()) == ["second"]


@on_each_database
@pytest.mark.usefixtures("one_at_a_time")
def test_lock_that_was_granted_and_expired_meanwhile_is_told_with_its_last_holder(
    alias: str,
) -> None:
    """What is printed is what was released."""
    make_stale(alias, "first")
    make_stale(alias, "second")
    locks = Lock.objects.using(alias)
    output = Intrusion(lambda: locks.filter(semaphore="second").update(token=2, holder="next"))
    call_command("clear_stale_locks", f"--backend={alias}", stdout=output)
    assert found(locks.stale()) == []
    assert "second: next" in output.getvalue()


@on_each_database
@pytest.mark.usefixtures("one_at_a_time")
def test_lock_that_a_worker_takes_before_the_purge_is_not_deleted(alias: str) -> None:
    """A released lock may be acquired before its turn comes."""
    make_released(alias, "first")
    make_released(alias, "second")
    owner = new_owner()
    output = Intrusion(lambda: lock_backends[alias].acquire("second", owner, 60, "worker"))
    call_command("clear_stale_locks", f"--backend={alias}", "--purge-released=1h", stdout=output)
    assert "1 released lock deleted." in output.getvalue()
    assert found(Lock.objects.using(alias).held()) == ["second"]


@on_each_database
def test_expired_holder_cannot_release_what_was_cleared_and_taken_since(alias: str) -> None:
    """It gets "lost", and its successor is untouched."""
    late = acquire_lock("report", backend=alias)
    assert late is not None
    Lock.objects.using(alias).update(expires_at=datetime.now(UTC) - HOUR)
    run(alias)
    successor = new_owner()
    assert lock_backends[alias].acquire("report", successor, 60, "successor") is not None
    assert late.release() is False
    assert Lock.objects.using(alias).get(semaphore="report").owner == successor


# What can't be done


def test_unknown_backend_is_a_command_error() -> None:
    """A message, not a traceback."""
    with pytest.raises(CommandError, match=r"^DISTLOCK\['nowhere'\]: not configured"):
        run("nowhere")


@pytest.mark.parametrize("prefix", ["\udcff", "a\n", "x" * 256])
def test_prefix_that_no_semaphore_has_is_a_command_error(prefix: str) -> None:
    """Such as a shell's bytes that are no text."""
    with pytest.raises(CommandError, match="--prefix: A semaphore has"):
        run("default", f"--prefix={prefix}")


def unreachable(alias: str) -> dict[str, str]:
    """Return an environment in which this database isn't there."""
    environment = worker_environment()
    if alias == "default":
        return environment | {"DISTLOCK_TEST_SQLITE": "/nowhere/at.all"}
    variable = f"DISTLOCK_TEST_{alias.upper()}"
    entry = json.loads(environment[variable]) | {"HOST": "127.0.0.1", "PORT": "1"}
    return environment | {variable: json.dumps(entry)}


@pytest.mark.once
@on_each_database
def test_unreachable_database_is_told_without_a_traceback(alias: str) -> None:
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
    """Whatever the command is to do."""
    down = OperationalError("the database is down")
    with (
        mock.patch.object(connections["default"], "cursor", side_effect=down),
        pytest.raises(
            CommandError, match=r"^DISTLOCK\['default'\]: the database is down$"
        ) as caught,
    ):
        run("default", *arguments)
    assert isinstance(caught.value.__cause__, LockBackendUnavailable)


def test_store_without_listing_has_nothing_to_tidy() -> None:
    """A store whose locks end by themselves needs no cron job."""
    backend = {"BACKEND": "tests.app.backends.ModestBackend"}
    with override_settings(DISTLOCK={"plain": backend}):
        assert run("plain", "--purge-released=1h").splitlines() == [
            "0 stale locks released.",
            "0 released locks deleted.",
        ]
