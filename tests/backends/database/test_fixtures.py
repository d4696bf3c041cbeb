"""What dumpdata writes of the tables, and what loaddata makes of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from django.core import serializers
from django.core.management import call_command

from django_distlock.models import Lock, LockEvent, LockPause, LockWaiter, WaitingProcess
from tests.support.databases import on_each_database
from tests.support.holders import acquire
from tests.support.lock_rows import HOUR, NOW, make_lock, semaphores_of

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

pytestmark = pytest.mark.django_db(databases="__all__")

MILLISECONDS = NOW.replace(microsecond=678000)


@on_each_database
@pytest.mark.parametrize(
    ("form", "moment"),
    # Django's JSON cuts every datetime to milliseconds.
    [("json", MILLISECONDS), ("jsonl", MILLISECONDS), ("xml", NOW)],
)
def test_dumped_locks_can_be_loaded(
    alias: str, form: str, moment: datetime, tmp_path: Path
) -> None:
    """Every column comes back as it was, on each database, but for the owner."""
    end = moment + HOUR
    make_lock(alias, "a ", owner="x", token=2**62, holder="h", acquired_at=moment, expires_at=end)
    make_lock(alias, "ä\U0001f512", owner="", token=1, acquired_at=None, expires_at=None)
    before = [*Lock.objects.using(alias).values()]
    path = str(tmp_path / f"locks.{form}")
    call_command("dumpdata", "distlock", database=alias, format=form, output=path)
    Lock.objects.using(alias).all().delete()
    call_command("loaddata", path, database=alias, verbosity=0)
    assert [*Lock.objects.using(alias).values()] == [row | {"owner": ""} for row in before]


@on_each_database
@pytest.mark.parametrize("natural", [True, False])
@pytest.mark.parametrize("form", ["json", "jsonl", "xml"])
def test_dumped_lock_is_loaded_as_released(
    alias: str, form: str, natural: bool, tmp_path: Path
) -> None:
    """The owner is secret, and its holder is gone; the tokens continue to rise."""
    lease = acquire(alias, ttl=3600, renew=False)
    path = tmp_path / f"locks.{form}"
    call_command(
        "dumpdata",
        "distlock",
        database=alias,
        format=form,
        output=str(path),
        use_natural_foreign_keys=natural,
        use_natural_primary_keys=natural,
    )
    assert "1234collectPayment" in path.read_text()
    assert str(lease.owner) not in path.read_text()
    assert "owner" not in path.read_text()
    Lock.objects.using(alias).all().delete()
    call_command("loaddata", str(path), database=alias, verbosity=0)
    locks = Lock.objects.using(alias)
    assert (semaphores_of(locks.released()), semaphores_of(locks.held())) == (
        ["1234collectPayment"],
        [],
    )
    assert not lease.release()
    successor = acquire(alias)
    assert lease.token
    assert successor.token
    assert successor.token > lease.token


@on_each_database
def test_owner_that_a_fixture_has_is_not_loaded(alias: str, tmp_path: Path) -> None:
    """Such as a fixture written by hand."""
    path = tmp_path / "locks.json"
    fields = {"owner": "x" * 30, "token": 5, "holder": "h", "expires_at": "2100-01-01T00:00:00Z"}
    row = {"model": "distlock.lock", "pk": "report", "fields": fields}
    path.write_text(json.dumps([row]))
    call_command("loaddata", str(path), database=alias, verbosity=0)
    lock = Lock.objects.using(alias).get()
    assert (lock.semaphore, lock.owner, lock.token, lock.holder) == ("report", "", 5, "h")


@on_each_database
def test_only_locks_are_dumped(alias: str, tmp_path: Path) -> None:
    """Waiters wait in processes that run now; a pause would stop the site that loads it."""
    process = {"id": 255, "seen_at": NOW}
    WaitingProcess.objects.using(alias).create(**process)
    waiter = LockWaiter(semaphore="report", owner="x" * 30, holder="h", process=255, number=1)
    waiter.save(using=alias)
    LockPause.objects.using(alias).create(prefix="", since=NOW, reason="deploy", by="root")
    LockEvent.objects.using(alias).create(backend=alias, semaphore="report", kind="lost", at=NOW)
    path = tmp_path / "locks.json"
    call_command("dumpdata", "distlock", database=alias, output=str(path))
    assert json.loads(path.read_text()) == []
    assert "x" * 30 not in serializers.serialize("json", [waiter])


def test_dumped_time_can_be_read_by_people() -> None:
    """In ISO 8601, and not as a long number."""
    lock = Lock(semaphore="1234collectPayment", acquired_at=NOW)
    (fields,) = [dumped["fields"] for dumped in serializers.serialize("python", [lock])]
    assert Lock._meta.get_field("acquired_at").value_to_string(lock) == NOW.isoformat()
    assert Lock._meta.get_field("expires_at").value_to_string(lock) == ""
    assert fields["expires_at"] is None
    assert f'"acquired_at": "{NOW.isoformat()[:19]}' in serializers.serialize("json", [lock])
