"""The list of locks in the admin."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connections
from django.test import Client, override_settings
from django.test.utils import CaptureQueriesContext

from django_distlock.models import Lock
from tests.support.admin_pages import (
    HOUR,
    LIST,
    NOW,
    SECRET,
    LocksOn,
    columns,
    detail,
    listed,
    make_all_states,
    make_held,
    on_each_locks_database,
)

pytestmark = [
    pytest.mark.django_db(databases="__all__"),
    pytest.mark.usefixtures("locks_database"),
]
DATABASE = "django_distlock.backends.database.DatabaseBackend"


@pytest.mark.parametrize(
    ("using", "routed", "listed_from"),
    [
        (["locks"], None, "locks"),
        (["locks"], "default", "locks"),
        (["default", "locks"], None, "default"),
        (["default", "locks"], "locks", "locks"),
        ([], None, "default"),
    ],
)
def test_list_has_the_locks_of_a_store(
    viewer: Client, using: list[str], routed: str | None, listed_from: str
) -> None:
    """The store may be in any database, with or without a router."""
    for database in ("default", "locks"):
        expires_at = NOW + 100_000 * HOUR
        Lock.objects.using(database).create(
            semaphore=f"in {database}",
            owner=SECRET,
            token=1,
            acquired_at=NOW,
            expires_at=expires_at,
        )
    stores: dict[str, Any] = {
        f"on {name}": {"BACKEND": DATABASE, "OPTIONS": {"using": name}} for name in using
    }
    stores["elsewhere"] = {"BACKEND": "django_distlock.backends.memory.MemoryBackend"}
    stores["wrong"] = {"BACKEND": DATABASE, "OPTIONS": {"using": "nowhere"}}
    routers = [LocksOn(routed)] if routed else []
    with override_settings(DISTLOCK=stores, DATABASE_ROUTERS=routers):
        assert listed(viewer) == [f"in {listed_from}"]
        page = viewer.get(detail(f"in {listed_from}"))
    assert page.status_code == 200


def test_states_differ_by_more_than_a_word(viewer: Client) -> None:
    """Each state has its own style, on the list and on the lock's page."""
    make_all_states()
    page = viewer.get(LIST, {"state": "all"}).content.decode()
    for state, number in (("held", 2), ("stale", 1), ("released", 2)):
        shown = f'<span class="distlock-state distlock-{state}">{state}</span>'
        assert page.count(shown) == number
    assert 'distlock-stale">stale<' in viewer.get(detail("stale")).content.decode()


def test_list_is_shown_where_django_has_no_time_zones(viewer: Client, settings: Any) -> None:
    """Times are in the site's time zone."""
    settings.USE_TZ = False
    settings.TIME_ZONE = "America/New_York"
    make_held("report", holder="h", token=1)
    assert columns(viewer)["report"] == ["held", "h", "Jan. 1, 2026, 10:04 p.m.", "1h", "1"]
    assert "Jan. 1, 2026, 10:04 p.m." in viewer.get(detail("report")).content.decode()


def test_columns_show_state_holder_times_and_token(viewer: Client) -> None:
    """Times of day in the site's zone, the rest of a lease as a duration."""
    make_held("report", holder="payments (web1 pid 7 MainThread)", token=1767323045000000)
    cells = columns(viewer)["report"]
    holder = "payments (web1 pid 7 MainThread)"
    assert cells == ["held", holder, "Jan. 2, 2026, 8:49 a.m.", "1h", "1767323045000000"]
    headers = [str(header["text"]) for header in viewer.get(LIST).context["result_headers"]]
    assert headers == ["semaphore", "state", "holder", "since", "time left", "token"]


def test_time_left_of_each_state(viewer: Client) -> None:
    """How long a lease still lasts, or how long ago it ended."""
    make_all_states()
    shown = {semaphore: (row[0], row[3]) for semaphore, row in columns(viewer, state="all").items()}
    assert shown == {
        "held": ("held", "1h"),
        "held without end": ("held", "until released"),
        "stale": ("stale", "expired 1h ago"),
        "released": ("released", "released 1d 6h ago"),
        "released, of unknown time": ("released", "-"),
    }


@pytest.mark.parametrize(
    ("column", "semaphores"),
    [("3", ["older", "newer"]), ("-3", ["newer", "older"]), ("-4", ["older", "newer"])],
)
def test_times_can_be_sorted_by(viewer: Client, column: str, semaphores: list[str]) -> None:
    """By age, or by the time that is left."""
    make_held("newer", acquired_at=NOW, expires_at=NOW + HOUR)
    make_held("older", acquired_at=NOW - HOUR, expires_at=NOW + 2 * HOUR)
    assert listed(viewer, o=column) == semaphores


@on_each_locks_database
def test_number_of_queries_does_not_grow_with_the_number_of_locks(
    locks_database: str, viewer: Client
) -> None:
    """One query reads all rows of the page."""

    def count() -> dict[str, int]:
        with (
            CaptureQueriesContext(connections["default"]) as users,
            CaptureQueriesContext(connections[locks_database]) as locks,
        ):
            listed(viewer)
        return {"users": len(users), "locks": len(locks)}

    make_held("report")
    few = count()
    for number in range(20):
        make_held(f"report {number}")
    assert count() == few
