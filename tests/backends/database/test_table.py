"""The tables: their columns and migrations."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timezone
from io import StringIO
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.core.exceptions import ValidationError
from django.core.management import call_command
from django.db import connections, transaction
from django.db.migrations.executor import MigrationExecutor
from model_bakery import baker

from django_distlock.fields import EPOCH, EpochMicrosecondsField, to_datetime, to_microseconds
from django_distlock.models import Lock, LockEvent, LockPause, LockWaiter, WaitingProcess
from django_distlock.records import EventKind
from tests.support.databases import on_each_database
from tests.support.lock_rows import HOUR, NOW, TICK, make_lock, semaphores_of

pytestmark = pytest.mark.django_db(databases="__all__")

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
def test_semaphore_has_one_index_of_all_rows(alias: str) -> None:
    """PostgreSQL's second one, for LIKE, would cost every write and be of no use."""
    connection = connections[alias]
    with connection.cursor() as cursor:
        constraints = connection.introspection.get_constraints(cursor, Lock._meta.db_table)
    unreleased = constraints.pop("distlock_unreleased_locks")
    assert unreleased["columns"][-1] == "semaphore"
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
    assert str(LockPause(prefix="report:")) == "report:"
    assert str(LockEvent(semaphore="report", kind="lost")) == "report, lost"


def test_force_release_has_a_permission_of_its_own() -> None:
    """Who may see locks need not be trusted to take one away; only rows for people have any."""
    found = Permission.objects.filter(content_type__app_label="distlock")
    assert "force_release_lock" in found.values_list("codename", flat=True)
    others = found.exclude(content_type__model="lock").values_list("codename", flat=True)
    assert [*others] == ["view_lockevent"]


@on_each_database
def test_all_of_an_event_is_kept(alias: str) -> None:
    """Each kind fits in its column, as does any semaphore and any number of microseconds."""
    written = [
        LockEvent(
            backend="x" * 255,
            semaphore="\U0001f512" * 255,
            kind=kind,
            at=NOW,
            token=2**63 - 1,
            waited=2**62,
            held=None,
            by="<b>",
        )
        for kind in EventKind
    ]
    LockEvent.objects.using(alias).bulk_create(written)
    found = LockEvent.objects.using(alias).order_by("id")
    assert [event.get_kind_display() for event in found] == [
        "acquired",
        "released",
        "lost",
        "contended",
        "force-released",
    ]
    [first, *_] = found.values_list("backend", "semaphore", "at", "token", "waited", "held", "by")
    assert first == ("x" * 255, "\U0001f512" * 255, NOW, 2**63 - 1, 2**62, None, "<b>")


# Migrations


@on_each_database
def test_migrations_are_up_to_date(alias: str) -> None:
    """The models are what the migrations make, and all of them are applied."""
    written = StringIO()
    call_command("makemigrations", check_changes=True, dry_run=True, stdout=written)
    assert written.getvalue() == "No changes detected\n"
    executor = MigrationExecutor(connections[alias])
    assert executor.migration_plan(executor.loader.graph.leaf_nodes()) == []
