"""`manage.py clear_stale_locks --purge-events`: old events, in the database that has them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from unittest import mock

import pytest
from django.db import OperationalError

from django_distlock.models import LockEvent
from tests.support.commands import run_command
from tests.support.databases import on_each_database

pytestmark = [pytest.mark.django_db(databases="__all__"), pytest.mark.once]


def add_event(alias: str, semaphore: str, days: int, backend: str = "") -> None:
    """Write an event that is so many days old."""
    LockEvent.objects.using(alias).create(
        backend=backend or alias,
        semaphore=semaphore,
        kind="lost",
        at=datetime.now(UTC) - timedelta(days=days),
    )


def left(alias: str) -> list[str]:
    """Return the semaphores of the events that are left."""
    return sorted(LockEvent.objects.using(alias).values_list("semaphore", flat=True))


@on_each_database
def test_events_that_are_older_are_deleted(alias: str) -> None:
    """Only those of this store, and with the prefix."""
    add_event(alias, "a:old", 31)
    add_event(alias, "a:older", 300)
    add_event(alias, "a:new", 29)
    add_event(alias, "b:old", 31)
    add_event(alias, "a:another store's", 31, backend="memory")
    arguments = "clear_stale_locks", f"--backend={alias}", "--prefix=a:", "--purge-events=30d"
    dry = run_command(*arguments, "--dry-run")
    assert (dry.code, dry.err) == (0, "")
    assert dry.out.splitlines()[-1] == "2 events would be deleted."
    assert len(left(alias)) == 5
    done = run_command(*arguments, "--format=json")
    assert (done.code, done.rows) == (0, [])
    assert done.err.splitlines()[-1] == "2 events deleted."
    assert left(alias) == ["a:another store's", "a:new", "b:old"]


def test_events_of_a_store_elsewhere_are_in_the_routers_database() -> None:
    """A store that keeps no events itself may have old ones, too."""
    add_event("default", "a", 31, backend="memory")
    done = run_command("clear_stale_locks", "--backend=memory", "--purge-events=30d")
    assert (done.code, done.out.splitlines()[-1]) == (0, "1 event deleted.")
    assert left("default") == []


def test_database_that_fails_is_a_line() -> None:
    """Such as one without the table."""
    failure = OperationalError("no such table: distlock_lockevent")
    with mock.patch.object(LockEvent.objects, "using", side_effect=failure):
        done = run_command("clear_stale_locks", "--purge-events=30d")
    assert done.code == 1
    assert done.err == (
        "CommandError: DISTLOCK['default']: the events: no such table: distlock_lockevent\n"
    )
