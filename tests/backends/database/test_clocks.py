"""The clocks: the database's, by which leases end, and this machine's."""

from __future__ import annotations

import importlib.util
import sys
import time
from datetime import UTC, datetime, timedelta
from unittest import mock

import pytest
from django.db import NotSupportedError, connections
from django.test import override_settings

from django_distlock import clocks
from django_distlock.models import Lock
from tests.support.databases import DATABASES, on_each_database
from tests.support.lock_rows import HOUR, NOW, make_lock, semaphores_of

pytestmark = pytest.mark.django_db(databases="__all__")


def assert_clock_is_right(alias: str) -> None:
    """Fail unless the database's clock is this machine's, and decides the states of locks."""
    locks = Lock.objects.using(alias)
    seen_at = locks.with_state().get(semaphore="held").seen_at
    assert abs(seen_at - datetime.now(UTC)) < timedelta(minutes=5)
    assert (semaphores_of(locks.held()), semaphores_of(locks.stale())) == (["held"], ["stale"])


@pytest.fixture
def locks_around_today(alias: str) -> None:
    """Write locks that differ by less than the hours of a wrong time zone."""
    today = datetime.now(UTC)
    make_lock(alias, "held", owner="x", expires_at=today + HOUR / 4)
    make_lock(alias, "stale", owner="x", expires_at=today - HOUR / 4)


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
        make_lock(alias, "written now", acquired_at=NOW)
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


@pytest.mark.parametrize("alias", DATABASES[:2])  # stand in for other vendors
@pytest.mark.usefixtures("locks_around_today")
def test_other_vendors_clock_is_read_through_django(alias: str) -> None:
    """A database without an expression of its own here is asked for its time."""
    make_lock(alias, "released", owner="", expires_at=datetime.now(UTC) - 2 * HOUR)
    with mock.patch.dict(clocks.NOW, clear=True):
        assert_clock_is_right(alias)
        assert semaphores_of(Lock.objects.using(alias).purgeable(HOUR)) == ["released"]
        assert semaphores_of(Lock.objects.using(alias).purgeable(3 * HOUR)) == []


@on_each_database
def test_other_vendors_clock_needs_aware_times(alias: str) -> None:
    """Without USE_TZ a time has no zone, and a wrong guess could grant a lock twice."""
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
