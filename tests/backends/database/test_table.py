"""The table of locks: its columns, migrations and fixtures."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timezone
from io import StringIO
from typing import TYPE_CHECKING, Any

import pytest
from django.core import serializers
from django.core.exceptions import ValidationError
from django.core.management import call_command
from django.db import connections, transaction
from django.db.migrations.executor import MigrationExecutor
from model_bakery import baker

from django_distlock.fields import EPOCH, EpochMicrosecondsField, to_datetime, to_microseconds
from django_distlock.models import Lock, LockWaiter, WaitingProcess
from tests.support.databases import on_each_database
from tests.support.holders import acquire
from tests.support.lock_rows import HOUR, NOW, TICK, make_lock, semaphores_of

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.django_db(databases="__all__")

MILLISECONDS = NOW.replace(microsecond=678000)
PARIS_SUMMER = timezone(2 * HOUR)


# Columns


@on_each_database
@pytest.mark.parametrize(
    "moment",
    [
        EPOCH,
        EPOCH - TICK,
        datetime(2026, 7, 8, 9, 10, 11, 123456, tzinfo=PARIS_SUMMER),
        datetime(1, 1, 1, tzinfo=UTC),
        datetime.max.replace(tzinfo=UTC),
    ],
    ids=str,
)
def test_aware_datetime_survives_to_the_microsecond(alias: str, moment: datetime) -> None:
    """Also before the epoch, and in the year 9999; it comes back in UTC."""
    make_lock(alias, "a", acquired_at=moment, expires_at=moment)
    lock = Lock.objects.using(alias).get(acquired_at=moment)
    assert lock.acquired_at == lock.expires_at == moment
    assert lock.acquired_at is not None
    assert lock.acquired_at.tzinfo is UTC


@on_each_database
def test_time_may_be_missing(alias: str) -> None:
    """A lease may be unlimited."""
    make_lock(alias, "a", acquired_at=None, expires_at=None)
    lock = Lock.objects.using(alias).get(expires_at=None)
    assert (lock.acquired_at, lock.expires_at) == (None, None)


@on_each_database
def test_naive_datetime_is_refused(alias: str) -> None:
    """Its zone is unknown, so it is neither written nor looked up."""
    naive = NOW.replace(tzinfo=None)
    with (
        pytest.raises(ValueError, match="expires_at takes an aware datetime"),
        transaction.atomic(using=alias),
    ):
        make_lock(alias, "a", expires_at=naive)
    with pytest.raises(ValueError, match="expires_at takes an aware datetime"):
        Lock.objects.using(alias).filter(expires_at__lt=naive).exists()
    assert not Lock.objects.using(alias).exists()


@pytest.mark.parametrize(
    ("value", "moment"),
    [
        (None, None),
        (NOW, NOW),
        (to_microseconds(NOW), NOW),
        ("2026-01-02T03:04:05.678901+00:00", NOW),
        ("2026-01-02 05:04:05.678901+02:00", NOW),
    ],
)
def test_field_understands_datetimes_microseconds_and_iso_8601(
    value: Any, moment: datetime | None
) -> None:
    """The forms that databases and fixtures have."""
    assert EpochMicrosecondsField().to_python(value) == moment


@pytest.mark.parametrize("text", ["tomorrow", "2026-02-30T00:00:00+00:00"])
def test_field_refuses_other_text(text: str) -> None:
    """With an error that a form or a fixture can show."""
    with pytest.raises(ValidationError, match=f"'{re.escape(text)}' is not a date and time"):
        EpochMicrosecondsField().to_python(text)


def test_microseconds_are_exact_over_a_datetimes_whole_range() -> None:
    """Without a conversion to float."""
    for moment in (datetime.min, datetime.max, datetime(2026, 1, 2, 3, 4, 5, 678901)):  # noqa: DTZ001, DTZ901
        aware = moment.replace(tzinfo=UTC)
        assert to_datetime(to_microseconds(aware)) == aware
    assert to_microseconds(EPOCH - TICK) == -1


@on_each_database
def test_semaphores_are_compared_byte_by_byte(alias: str) -> None:
    """Case, accents, trailing blanks and ways to write an accent make different locks."""
    semaphores = ["a", "A", "a ", "a  ", " a", "ä", "a\u0308", "ß", "ss", "\u00e5", "\u212b"]
    for semaphore in semaphores:
        make_lock(alias, semaphore, holder=repr(semaphore))
    for semaphore in semaphores:
        lock = Lock.objects.using(alias).get(semaphore=semaphore)
        assert (lock.semaphore, lock.holder) == (semaphore, repr(semaphore))
    assert Lock.objects.using(alias).count() == len(semaphores)


@on_each_database
def test_semaphores_are_in_the_order_of_code_points(alias: str) -> None:
    """As in Python, whatever the database's language."""
    semaphores = ["Z", "a", "a ", "b", "ä", "\ue000", "\U0001f512"]
    for semaphore in reversed(semaphores):
        make_lock(alias, semaphore)
    assert semaphores_of(Lock.objects.using(alias)) == semaphores == sorted(semaphores)


@pytest.mark.needs("postgresql")
def test_postgresql_compares_semaphores_by_code_points_in_any_locale() -> None:
    """By the column's own collation: the order of a database's language would break prefixes."""
    connection = connections["postgresql"]
    with connection.cursor() as cursor:
        columns = connection.introspection.get_table_description(cursor, Lock._meta.db_table)
    assert {column.name: column.collation for column in columns}["semaphore"] == "C"


@on_each_database
def test_longest_semaphore_is_kept_whole(alias: str) -> None:
    """255 characters, of four bytes each."""
    longest = "\U0001f512" * 254
    make_lock(alias, longest + "a")
    make_lock(alias, longest + "b")
    assert semaphores_of(Lock.objects.using(alias)) == [longest + "a", longest + "b"]


@on_each_database
def test_generated_semaphore_can_be_read_back(alias: str) -> None:
    """A factory that makes any text makes a semaphore."""
    lock = baker.make(Lock, _using=alias)
    assert Lock.objects.using(alias).get().semaphore == lock.semaphore != ""


@pytest.mark.needs("mariadb")
def test_semaphore_of_another_type_is_left_to_the_driver() -> None:
    """Only text becomes bytes."""
    field = Lock._meta.get_field("semaphore")
    assert field.get_db_prep_value(None, connections["mariadb"]) is None
    assert field.get_db_prep_value("ä", connections["mariadb"]) == "ä".encode()


@on_each_database
def test_semaphore_has_one_index(alias: str) -> None:
    """PostgreSQL's second one, for LIKE, would cost every write and be of no use."""
    connection = connections[alias]
    with connection.cursor() as cursor:
        constraints = connection.introspection.get_constraints(cursor, Lock._meta.db_table)
    indexes = [
        constraint
        for constraint in constraints.values()
        if constraint["columns"] == ["semaphore"] and not constraint["check"]
    ]
    assert [index["primary_key"] for index in indexes] == [True]


def test_lock_shows_its_semaphore_and_never_the_owner() -> None:
    """A reader of a log must not be able to release a lock."""
    lock = Lock(semaphore="1234collectPayment", owner="secret")
    assert str(lock) == "1234collectPayment"
    assert repr(lock) == "<Lock: 1234collectPayment>"


def test_tables_have_readable_rows() -> None:
    """For people who look at them in a shell."""
    assert str(WaitingProcess(id=255)) == "ff"
    assert str(LockWaiter(semaphore="report", holder="me")) == "report, me"


# Migrations and fixtures


@on_each_database
def test_migrations_are_up_to_date(alias: str) -> None:
    """The models are what the migrations make, and all of them are applied."""
    written = StringIO()
    call_command("makemigrations", check_changes=True, dry_run=True, stdout=written)
    assert written.getvalue() == "No changes detected\n"
    executor = MigrationExecutor(connections[alias])
    assert executor.migration_plan(executor.loader.graph.leaf_nodes()) == []


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
def test_waiters_are_not_dumped(alias: str, tmp_path: Path) -> None:
    """They wait for a release within a second, in processes that run now."""
    process = {"id": 255, "seen_at": NOW}
    WaitingProcess.objects.using(alias).create(**process)
    waiter = LockWaiter(semaphore="report", owner="x" * 30, holder="h", process=255, number=1)
    waiter.save(using=alias)
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
