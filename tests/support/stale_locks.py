"""Locks in the database that are held, stale or released, and the command that clears them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any

from django.core.management import call_command
from model_bakery import baker

from django_distlock.models import Lock

HOUR = timedelta(hours=1)
# Between two minutes, so that the seconds that a test takes don't change the output.
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
