"""Sites with USE_TZ off: a naive datetime is one in TIME_ZONE, as everywhere in Django."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.db.models import F, Value
from django.utils import timezone

from django_distlock.fields import EpochMicrosecondsField
from django_distlock.models import Lock
from tests.support.databases import on_each_database
from tests.support.lock_rows import HOUR, make_lock, semaphores_of

pytestmark = pytest.mark.django_db(databases="__all__")

ZONE = ZoneInfo("America/New_York")
MOMENT = datetime(2026, 7, 8, 9, 10, 11, 123456)  # noqa: DTZ001 - that is what this is about
AWARE = MOMENT.replace(tzinfo=ZONE)


@pytest.fixture(autouse=True)
def without_zones(settings: Any) -> None:
    """Switch Django's support for time zones off."""
    settings.USE_TZ = False
    settings.TIME_ZONE = ZONE.key


@on_each_database
def test_now_is_djangos_now(alias: str) -> None:
    """As in issue 17."""
    now = timezone.now()
    assert now.tzinfo is None
    make_lock(alias, "held", owner="x", expires_at=now + HOUR)
    make_lock(alias, "expired", owner="x", expires_at=now - HOUR)
    locks = Lock.objects.using(alias)
    assert semaphores_of(locks.filter(expires_at__gt=now)) == ["held"]
    assert semaphores_of(locks.held()) == ["held"]
    assert semaphores_of(locks.stale()) == ["expired"]


@on_each_database
@pytest.mark.parametrize(
    "lookup",
    [
        {"expires_at": MOMENT},
        {"expires_at": AWARE},
        {"expires_at": MOMENT.isoformat()},
        {"expires_at__in": [MOMENT]},
        {"expires_at__gte": MOMENT},
        {"expires_at__lte": MOMENT},
        {"expires_at__gt": MOMENT - timedelta(microseconds=1)},
        {"expires_at__lt": MOMENT + timedelta(microseconds=1)},
        {"expires_at__range": (MOMENT, MOMENT)},
        {"expires_at__gt": date(2026, 7, 8)},
        {"expires_at__lt": date(2026, 7, 9)},
        {"expires_at__gt": F("acquired_at")},
        {"expires_at": Value(MOMENT, output_field=EpochMicrosecondsField())},
    ],
    ids=str,
)
def test_each_lookup_takes_naive_times(alias: str, lookup: dict[str, Any]) -> None:
    """And finds what was written with the same time in its zone, and nothing else."""
    make_lock(alias, "then", acquired_at=MOMENT - HOUR, expires_at=MOMENT)
    locks = Lock.objects.using(alias)
    assert locks.get().expires_at == AWARE
    assert semaphores_of(locks.filter(**lookup)) == ["then"]
    assert semaphores_of(locks.exclude(**lookup)) == []


@on_each_database
def test_naive_time_can_be_written_by_an_update_and_annotated(alias: str) -> None:
    """It comes back with its zone."""
    make_lock(alias, "then")
    locks = Lock.objects.using(alias)
    locks.update(expires_at=MOMENT)
    until = Value(MOMENT, output_field=EpochMicrosecondsField())
    found = locks.annotate(until=until, same=F("expires_at")).values("expires_at", "until", "same")
    assert set(found.get().values()) == {AWARE}


def test_text_without_a_zone_is_in_the_default_one() -> None:
    """As a fixture may have it."""
    assert EpochMicrosecondsField().to_python(MOMENT.isoformat()) == AWARE
