"""The table of locks: what it keeps, and how it is asked."""

from __future__ import annotations

import importlib.util
import re
import sys
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from django.core import serializers
from django.core.exceptions import ValidationError
from django.core.management import call_command
from django.db import NotSupportedError, connections, transaction
from django.test import override_settings
from model_bakery import baker

from django_distlock import clocks
from django_distlock.backends.base import LockState
from django_distlock.fields import EPOCH, EpochMicrosecondsField, to_datetime, to_microseconds
from django_distlock.models import Lock
from tests.support.databases import DATABASES, on_each_database

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.django_db(databases="__all__")

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
MILLISECONDS = NOW.replace(microsecond=678000)
TICK = timedelta(microseconds=1)
HOUR = timedelta(hours=1)
PARIS_SUMMER = timezone(2 * HOUR)


def make(alias: str, semaphore: str, **values: Any) -> Lock:
    """Write a lock's row; without an owner it is released."""
    lock: Lock = baker.make(Lock, _using=alias, semaphore=semaphore, **values)
    return lock


def found(locks: Any) -> list[str]:
    return [lock.semaphore for lock in locks]


@contextmanager
def clock_at(alias: str, moment: datetime) -> Iterator[None]:
    """Let the database's clock stand still."""
    vendor = connections[alias].vendor
    with mock.patch.dict(clocks.NOW, {vendor: str(to_microseconds(moment))}):
        yield


@pytest.fixture
def locks_around_now(alias: str) -> Iterator[None]:
    """Write locks in all states, a microsecond apart, and let the clock stand still."""
    make(alias, "held", owner="x", expires_at=NOW + TICK)
    make(alias, "held without end", owner="x", expires_at=None)
    make(alias, "stale", owner="x", expires_at=NOW)
    make(alias, "stale for long", owner="x", expires_at=NOW - HOUR)
    make(alias, "released", owner="", expires_at=NOW - TICK)
    make(alias, "released by a fast clock", owner="", expires_at=NOW + HOUR)
    make(alias, "released, of unknown time", owner="", expires_at=None)
    with clock_at(alias, NOW):
        yield


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
    make(alias, "a", acquired_at=moment, expires_at=moment)
    lock = Lock.objects.using(alias).get(acquired_at=moment)
    assert lock.acquired_at == lock.expires_at == moment
    assert lock.acquired_at is not None
    assert lock.acquired_at.tzinfo is UTC


@on_each_database
def test_time_may_be_missing(alias: str) -> None:
    """A lease may have no end."""
    make(alias, "a", acquired_at=None, expires_at=None)
    lock = Lock.objects.using(alias).get(expires_at=None)
    assert (lock.acquired_at, lock.expires_at) == (None, None)


@on_each_database
def test_naive_datetime_is_refused(alias: str) -> None:
    """Nobody knows which zone it would be in: neither written nor looked for."""
    naive = NOW.replace(tzinfo=None)
    with (
        pytest.raises(ValueError, match="expires_at takes an aware datetime"),
        transaction.atomic(using=alias),
    ):
        make(alias, "a", expires_at=naive)
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
    """What the database has, and what fixtures have."""
    assert EpochMicrosecondsField().to_python(value) == moment


@pytest.mark.parametrize("text", ["tomorrow", "2026-02-30T00:00:00+00:00"])
def test_field_refuses_other_text(text: str) -> None:
    """With an error that a form or a fixture can show."""
    with pytest.raises(ValidationError, match=f"'{re.escape(text)}' is not a date and time"):
        EpochMicrosecondsField().to_python(text)


def test_microseconds_are_exact_over_a_datetimes_whole_range() -> None:
    """No float comes in between."""
    for moment in (datetime.min, datetime.max, datetime(2026, 1, 2, 3, 4, 5, 678901)):  # noqa: DTZ001, DTZ901
        aware = moment.replace(tzinfo=UTC)
        assert to_datetime(to_microseconds(aware)) == aware
    assert to_microseconds(EPOCH - TICK) == -1


@on_each_database
def test_semaphores_are_compared_byte_by_byte(alias: str) -> None:
    """Case, accents, trailing blanks and ways to write an accent make different locks."""
    semaphores = ["a", "A", "a ", "a  ", " a", "ä", "a\u0308", "ß", "ss", "\u00e5", "\u212b"]
    for semaphore in semaphores:
        make(alias, semaphore, holder=repr(semaphore))
    for semaphore in semaphores:
        lock = Lock.objects.using(alias).get(semaphore=semaphore)
        assert (lock.semaphore, lock.holder) == (semaphore, repr(semaphore))
    assert Lock.objects.using(alias).count() == len(semaphores)


@on_each_database
def test_semaphores_are_in_the_order_of_code_points(alias: str) -> None:
    """As Python has them, whatever the database's language."""
    semaphores = ["Z", "a", "a ", "b", "ä", "\ue000", "\U0001f512"]
    for semaphore in reversed(semaphores):
        make(alias, semaphore)
    assert found(Lock.objects.using(alias)) == semaphores == sorted(semaphores)


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
    make(alias, longest + "a")
    make(alias, longest + "b")
    assert found(Lock.objects.using(alias)) == [longest + "a", longest + "b"]


@on_each_database
def test_generated_semaphore_can_be_read_back(alias: str) -> None:
    """A factory that makes any text makes a semaphore."""
    lock = baker.make(Lock, _using=alias)
    assert Lock.objects.using(alias).get().semaphore == lock.semaphore != ""


@pytest.mark.needs("mariadb")
def test_semaphore_that_is_no_text_is_left_to_the_driver() -> None:
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
    """Who reads a log must not be able to release."""
    lock = Lock(semaphore="1234collectPayment", owner="secret")
    assert str(lock) == "1234collectPayment"
    assert repr(lock) == "<Lock: 1234collectPayment>"


# Migrations and fixtures


@on_each_database
def test_migrations_are_up_to_date(alias: str) -> None:
    """The models are what the migrations make, and all of them are applied."""
    call_command("makemigrations", check_changes=True, dry_run=True, verbosity=0)
    call_command("migrate", database=alias, check_unapplied=True, verbosity=0)


@on_each_database
@pytest.mark.parametrize(
    ("form", "moment"),
    # Django's JSON cuts every datetime to milliseconds.
    [("json", MILLISECONDS), ("jsonl", MILLISECONDS), ("xml", NOW)],
)
def test_dumped_locks_can_be_loaded(
    alias: str, form: str, moment: datetime, tmp_path: Path
) -> None:
    """Every column comes back as it was, on each database."""
    end = moment + HOUR
    make(alias, "a ", owner="x", token=2**62, holder="h", acquired_at=moment, expires_at=end)
    make(alias, "ä\U0001f512", owner="", token=1, acquired_at=None, expires_at=None)
    before = [*Lock.objects.using(alias).values()]
    path = str(tmp_path / f"locks.{form}")
    call_command("dumpdata", "django_distlock", database=alias, format=form, output=path)
    Lock.objects.using(alias).all().delete()
    call_command("loaddata", path, database=alias, verbosity=0)
    assert [*Lock.objects.using(alias).values()] == before


def test_dumped_time_can_be_read_by_people() -> None:
    """In ISO 8601, and not as a long number."""
    lock = Lock(semaphore="a", acquired_at=NOW)
    (fields,) = [dumped["fields"] for dumped in serializers.serialize("python", [lock])]
    assert Lock._meta.get_field("acquired_at").value_to_string(lock) == NOW.isoformat()
    assert Lock._meta.get_field("expires_at").value_to_string(lock) == ""
    assert fields["expires_at"] is None
    assert f'"acquired_at": "{NOW.isoformat()[:19]}' in serializers.serialize("json", [lock])


# States


@on_each_database
@pytest.mark.usefixtures("locks_around_now")
def test_held_locks_have_an_owner_and_an_unexpired_lease(alias: str) -> None:
    """Or one without an end."""
    assert found(Lock.objects.using(alias).held()) == ["held", "held without end"]


@on_each_database
@pytest.mark.usefixtures("locks_around_now")
def test_stale_locks_have_an_owner_and_an_expired_lease(alias: str) -> None:
    """At the end of its ttl a lease has expired."""
    assert found(Lock.objects.using(alias).stale()) == ["stale", "stale for long"]


@on_each_database
@pytest.mark.usefixtures("locks_around_now")
def test_released_locks_have_no_owner(alias: str) -> None:
    """Whatever their times are."""
    assert found(Lock.objects.using(alias).released()) == [
        "released",
        "released by a fast clock",
        "released, of unknown time",
    ]


@on_each_database
@pytest.mark.usefixtures("locks_around_now")
def test_state_is_annotated_as_the_filters_have_it(alias: str) -> None:
    """Each lock has exactly one state, by the database's time that is given with it."""
    locks = Lock.objects.using(alias)
    states = {lock.semaphore: lock.state for lock in locks.with_state()}
    assert states == {
        **dict.fromkeys(found(locks.held()), LockState.HELD),
        **dict.fromkeys(found(locks.stale()), LockState.STALE),
        **dict.fromkeys(found(locks.released()), LockState.RELEASED),
    }
    assert len(states) == 7
    assert {lock.seen_at for lock in locks.with_state()} == {NOW}


@on_each_database
@pytest.mark.usefixtures("locks_around_now")
def test_mark_released_frees_locks_at_the_databases_time(alias: str) -> None:
    """The token stays, and the answer says whether there was one."""
    locks = Lock.objects.using(alias)
    locks.filter(semaphore="held").update(token=5)
    assert locks.filter(semaphore="held").mark_released() is True
    lock = locks.get(semaphore="held")
    assert (lock.owner, lock.expires_at, lock.token) == ("", NOW, 5)
    assert locks.filter(semaphore="nothing").mark_released() is False
    assert "held without end" in found(locks.held())


@on_each_database
def test_purgeable_locks_were_released_longer_ago_than_that(alias: str) -> None:
    """Neither younger ones, nor stale or held ones."""
    make(alias, "long ago", owner="", token=1, expires_at=NOW - HOUR - TICK)
    make(alias, "an hour ago", owner="", token=1, expires_at=NOW - HOUR)
    make(alias, "of unknown time", owner="", token=1, expires_at=None)
    make(alias, "stale", owner="x", token=1, expires_at=NOW - 2 * HOUR)
    make(alias, "held", owner="x", token=1, expires_at=NOW + HOUR)
    with clock_at(alias, NOW):
        assert found(Lock.objects.using(alias).purgeable(HOUR)) == ["long ago"]
        assert found(Lock.objects.using(alias).purgeable(timedelta())) == [
            "an hour ago",
            "long ago",
        ]


@on_each_database
def test_lock_whose_token_is_ahead_of_the_clock_is_not_purgeable(alias: str) -> None:
    """Without its row, the next token would be the clock's, and smaller."""
    long_ago = NOW - 2 * HOUR
    for semaphore, ahead in (("behind", -TICK), ("equal", timedelta()), ("ahead", TICK)):
        token = to_microseconds(NOW + ahead)
        make(alias, semaphore, owner="", token=token, expires_at=long_ago)
    with clock_at(alias, NOW):
        assert found(Lock.objects.using(alias).purgeable(HOUR)) == ["behind"]


# Prefixes


@on_each_database
def test_prefix_is_taken_literally(alias: str) -> None:
    """No wildcards, no case folding, no stripping; the prefix itself begins with itself."""
    for semaphore in ("a", "ab", "a%", "a%b", "a_", "a_b", "A", "Ab", "a b", "a\\b", "a*b", "b"):
        make(alias, semaphore)
    locks = Lock.objects.using(alias)
    for prefix, expected in {
        "a%": ["a%", "a%b"],
        "a_": ["a_", "a_b"],
        "A": ["A", "Ab"],
        "a ": ["a b"],
        "a\\": ["a\\b"],
        "a*": ["a*b"],
        "ab": ["ab"],
        "c": [],
    }.items():
        assert found(locks.with_prefix(prefix)) == expected
    assert locks.with_prefix("").count() == 12
    assert locks.with_prefix("a").count() == 9


@on_each_database
def test_prefix_at_the_end_of_a_range_of_characters(alias: str) -> None:
    """The last character before the surrogates, and the last of all."""
    last = "\U0010ffff"
    semaphores = ["a", "a\ud7ff", "a\ud7ffb", "a\ue000", f"a{last}", f"a{last}b", "b", last]
    for semaphore in semaphores:
        make(alias, semaphore)
    locks = Lock.objects.using(alias)
    assert found(locks.with_prefix("a\ud7ff")) == ["a\ud7ff", "a\ud7ffb"]
    assert found(locks.with_prefix(f"a{last}")) == [f"a{last}", f"a{last}b"]
    assert found(locks.with_prefix(last)) == [last]


# Clocks


def assert_clock_is_right(alias: str) -> None:
    """Fail unless the database's clock is this machine's, on which it runs, and tells states."""
    locks = Lock.objects.using(alias)
    seen_at = locks.with_state().get(semaphore="held").seen_at
    assert abs(seen_at - datetime.now(UTC)) < timedelta(minutes=5)
    assert (found(locks.held()), found(locks.stale())) == (["held"], ["stale"])


@pytest.fixture
def locks_around_today(alias: str) -> None:
    """Write locks that differ by less than the hours of a wrong time zone."""
    today = datetime.now(UTC)
    make(alias, "held", owner="x", expires_at=today + HOUR / 4)
    make(alias, "stale", owner="x", expires_at=today - HOUR / 4)


@on_each_database
@pytest.mark.usefixtures("locks_around_today")
@pytest.mark.parametrize("use_tz", [True, False])
@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Asia/Kathmandu"])
def test_settings_of_time_zones_change_nothing(alias: str, use_tz: bool, zone: str) -> None:
    """Neither USE_TZ nor TIME_ZONE: times are read back alike, and states stay."""
    before = [*Lock.objects.using(alias).values()]
    with override_settings(USE_TZ=use_tz, TIME_ZONE=zone):
        assert_clock_is_right(alias)
        assert [*Lock.objects.using(alias).values()] == before
        make(alias, "written now", acquired_at=NOW)
        assert Lock.objects.using(alias).get(semaphore="written now").acquired_at == NOW


@pytest.mark.needs("postgresql")
@pytest.mark.parametrize("alias", ["postgresql"])
@pytest.mark.usefixtures("locks_around_today")
def test_postgresql_sessions_time_zone_changes_nothing(alias: str) -> None:
    """Two sessions in different zones have one clock."""
    with connections[alias].cursor() as cursor:
        cursor.execute("SET LOCAL TIME ZONE 'America/New_York'")
    assert_clock_is_right(alias)


@pytest.mark.needs("mariadb")
@pytest.mark.parametrize("alias", ["mariadb"])
@pytest.mark.usefixtures("locks_around_today")
def test_mariadb_sessions_time_zone_changes_nothing(alias: str) -> None:
    """Two sessions in different zones have one clock."""
    with connections[alias].cursor() as cursor:
        cursor.execute("SET @before = @@time_zone, time_zone = '-05:00'")
        try:
            assert_clock_is_right(alias)
        finally:
            cursor.execute("SET time_zone = @before")


@pytest.mark.parametrize(
    ("alias", "sleep"),
    [
        pytest.param("postgresql", "pg_sleep(0.02)", marks=pytest.mark.needs("postgresql")),
        pytest.param("mariadb", "sleep(0.02)", marks=pytest.mark.needs("mariadb")),
    ],
)
def test_servers_clock_goes_on_within_a_statement(alias: str, sleep: str) -> None:
    """A statement that waited for a row must not act on the time at which it began."""
    connection = connections[alias]
    now = clocks.NOW[connection.vendor]
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {now}, {sleep}, {now}")
        before, _, after = cursor.fetchone()
    assert after - before >= 20_000


@pytest.mark.parametrize("alias", DATABASES[:2])  # for want of one, on two that keep zones apart
@pytest.mark.usefixtures("locks_around_today")
def test_other_vendors_clock_is_read_through_django(alias: str) -> None:
    """A database without an expression of its own here is asked for its time."""
    make(alias, "released", owner="", expires_at=datetime.now(UTC) - 2 * HOUR)
    with mock.patch.dict(clocks.NOW, clear=True):
        assert_clock_is_right(alias)
        assert found(Lock.objects.using(alias).purgeable(HOUR)) == ["released"]
        assert found(Lock.objects.using(alias).purgeable(3 * HOUR)) == []


@on_each_database
def test_other_vendors_clock_needs_aware_times(alias: str) -> None:
    """Without USE_TZ Django doesn't tell which zone a time is in, and a guess could grant twice."""
    with (
        override_settings(USE_TZ=False),
        pytest.raises(NotSupportedError, match=r"needs USE_TZ = True"),
    ):
        clocks.read_clock(connections[alias])


def test_monotonic_clock_without_boottime() -> None:
    """Without a clock that goes on while suspended, Python's monotonic one counts."""
    spec = importlib.util.spec_from_file_location("django_distlock.clocks_again", clocks.__file__)
    assert spec is not None
    assert spec.loader is not None
    for has_boottime in (True, False):
        with mock.patch.object(time, "CLOCK_BOOTTIME", 7, create=True):
            if not has_boottime:
                del time.CLOCK_BOOTTIME
            again = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(again)
            assert (again.monotonic is time.monotonic) is not has_boottime
    assert spec.name not in sys.modules


def test_monotonic_clock_goes_forward() -> None:
    """In seconds."""
    first = clocks.monotonic()
    assert first <= clocks.monotonic() < first + 60
