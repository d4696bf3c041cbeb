"""The list of locks in the admin: columns, search, filter and pages."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connections
from django.test import Client, override_settings
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_distlock.records import LockQuery, LockState, SearchScope
from tests.support.admin_pages import (
    LIST,
    listed,
    lock_page,
    log_in,
    make_all_states,
    make_held,
    on_each_locks_database,
    page_text,
    rows,
)
from tests.support.shown_stores import HOUR, NOW, SECOND, ShownBackend, a_lock, a_stale_lock

if TYPE_CHECKING:
    from tests.support.shown_stores import Shown

pytestmark = pytest.mark.django_db(databases="__all__")


@on_each_locks_database
def test_list_has_the_locks_of_a_database(locks_database: str, viewer: Client) -> None:
    """Held and stale ones of the tab's own database; a released lock is none."""
    make_all_states(locks_database)
    assert listed(viewer, store=locks_database) == ["held", "held without end", "stale"]
    assert listed(viewer, store="locks") == []
    assert listed(viewer, store=locks_database, state="stale") == ["stale"]
    assert listed(viewer, store=locks_database, q="WITHOUT") == ["held without end"]


def test_columns_tell_state_holder_times_token_and_waiters(viewer: Client, shown: Shown) -> None:
    """A hung worker shows: its lock is old, and renewed all the same."""
    shown.locks = [
        a_lock("held"),
        a_lock("held without end", expires_at=None, renewed_at=None, waiting=None),
        a_lock("kept", kept=True, renewed_at=None, expires_at=NOW + 9 * SECOND, waiting=0),
        a_stale_lock("stale", holder="web1 pid 7 MainThread", token=None),
        a_lock("told nothing", acquired_at=None, holder=""),
    ]
    process, token = "web1 pid 7 MainThread", "1796006054951302"
    label = "collect payment"
    assert rows(viewer) == {
        "held": ["held", process, label, "2h renewed 4s ago", "56s", token, "2"],
        "held without end": [
            "held",
            process,
            label,
            "2h never renewed",
            "until released",
            token,
            "unknown",
        ],
        "kept": ["kept by min_hold", process, label, "2h", "9s", token, "0"],
        "stale": ["stale", process, "", "2h renewed 1h 1m ago", "expired 1h ago", "", "0"],
        "told nothing": ["held", "", "", "renewed 4s ago", "56s", token, "2"],
    }


@pytest.mark.parametrize(
    ("values", "percent"),
    [
        ({}, 93),
        ({"renewed_at": None, "acquired_at": NOW - 56 * SECOND}, 50),
        ({"renewed_at": NOW + 56 * SECOND}, 0),
        ({"expires_at": None}, None),
        ({"renewed_at": None, "acquired_at": None}, None),
        ({"state": LockState.STALE}, None),
    ],
)
def test_bar_shows_how_much_of_the_lease_is_left(
    viewer: Client, shown: Shown, values: dict[str, Any], percent: int | None
) -> None:
    """Of the lease since it was renewed, if both ends are known."""
    shown.locks = [a_lock("held", **values)]
    page = viewer.get(LIST).content.decode()
    assert page.count("<meter") == (percent is not None)
    assert percent is None or f'value="{percent}"' in page


def test_renewals_that_a_store_does_not_tell_are_not_called_none(
    viewer: Client, shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A third party's store may know nothing of them."""
    monkeypatch.setattr(ShownBackend, "lists_renewals", False)
    shown.locks = [a_lock("report", renewed_at=None)]
    assert rows(viewer)["report"][3] == "2h"
    assert "Renewal" not in page_text(viewer, lock_page("shown", "report"))


def test_states_differ_by_more_than_a_word(viewer: Client, shown: Shown) -> None:
    """Each has a style of its own, and a sentence that explains it."""
    shown.locks = [a_lock("a"), a_lock("b", kept=True), a_stale_lock("c")]
    page = viewer.get(LIST).content.decode()
    for state, text in (("held", "works"), ("kept", "min_hold"), ("stale", "expired")):
        assert page.count(f'class="distlock-state distlock-{state}" title="') == 1
        assert text in page.partition(f'distlock-{state}" title="')[2].partition('"')[0]


def test_hostile_texts_are_shown_as_they_are(viewer: Client, shown: Shown) -> None:
    """Markup is text, and a right-to-left mark reverses nothing outside its own cell."""
    semaphore, holder = "<script>alert(1)</script>\u202eabc", "<b>h</b> (w pid 1 M\u202e)"
    shown.locks = [a_lock(semaphore, holder=holder)]
    page = viewer.get(LIST).content.decode()
    assert "<script>alert" not in page
    assert "<bdi>&lt;script&gt;alert(1)&lt;/<wbr>script&gt;\u202eabc</bdi>" in page
    assert "<bdi>&lt;b&gt;h&lt;/<wbr>b&gt;</bdi>" in page


def test_search_says_where_the_store_looked(viewer: Client, shown: Shown) -> None:
    """Any part, or only the beginning where there are too many locks."""
    shown.locks = [a_lock("sync:crm"), a_lock("report", holder="sync (web1 pid 7 MainThread)")]
    assert listed(viewer, q="SYNC") == ["sync:crm", "report"]
    text = page_text(viewer, LIST, q="sync")
    assert "Searched in any part of the semaphore or of the holder." in text
    shown.page = {"scope": SearchScope.PREFIX, "is_capped": True}
    text = page_text(viewer, LIST, q="sync")
    assert "Searched in the beginning of the semaphore only" in text
    assert "There are more than 10000 locks." in text
    assert "all 2+ held 2+ stale 0+" in text
    assert shown.queries[-1] == LockQuery(search="sync", limit=100)


@pytest.mark.parametrize("search", ["\x00", "x" * 256])
def test_search_for_what_no_lock_can_have_finds_nothing(
    viewer: Client, shown: Shown, search: str
) -> None:
    """The store isn't asked."""
    shown.locks = [a_lock("report")]
    assert listed(viewer, q=search) == []
    assert "No lock was found." in page_text(viewer, LIST, q=search)
    assert shown.queries == []


def test_states_are_filtered_with_counts_that_count(viewer: Client, shown: Shown) -> None:
    """They count what the search finds, whichever state is listed. The links keep the search."""
    shown.locks = [a_lock("x1"), a_lock("x2"), a_lock("b"), a_stale_lock("x3")]
    for query in ({}, {"state": "held"}, {"state": "stale"}):
        assert "all 3 held 2 stale 1" in page_text(viewer, LIST, q="x", **query)
    assert listed(viewer, state="held") == ["x1", "x2", "b"]
    assert listed(viewer, state="stale") == ["x3"]
    assert listed(viewer, state="nonsense") == ["x1", "x2", "b", "x3"]
    page = viewer.get(LIST, {"q": "x", "state": "held"}).content.decode()
    assert 'href="/admin/distlock/lock/?store=shown&amp;q=x&amp;state=stale"' in page
    assert page.count('aria-current="true">held') == 1
    shown.page = {"counts": {}}
    assert "all held stale" in page_text(viewer, LIST)


def test_empty_list_says_so(viewer: Client, shown: Shown) -> None:
    """And an empty result of a filter, otherwise."""
    assert "Nobody holds a lock in this store." in page_text(viewer, LIST)
    assert "No lock was found." in page_text(viewer, LIST, state="stale")


def test_list_has_pages(viewer: Client, shown: Shown) -> None:
    """A page that is gone is the last one, and no page is the first. Links keep all else."""
    shown.locks = [a_lock(f"lock {number:03}") for number in range(250)]
    assert listed(viewer)[0] == "lock 000"
    assert len(listed(viewer)) == 100
    for page in ("3", "99"):
        assert listed(viewer, p=page)[0] == "lock 200"
    for page in ("0", "x", "-1", "\u0661", "1" * 9):
        assert listed(viewer, p=page)[0] == "lock 000"
    page = viewer.get(LIST, {"p": "2", "q": "lock"}).content.decode()
    assert 'href="/admin/distlock/lock/?store=shown&amp;q=lock&amp;p=3"' in page
    assert page.count('aria-current="page">2</a>') == 1


@pytest.mark.parametrize("search", ["a&b=c", "ä \u202e", "100%"])
def test_links_keep_any_search(viewer: Client, shown: Shown, search: str) -> None:
    """The address of the list has all of its state."""
    shown.locks = [a_lock(f"{search} {number:03}") for number in range(101)]
    page = viewer.get(LIST, {"q": search})
    (_, second) = page.context["listing"].pages
    assert viewer.get(second.address).context["listing"].address.search == search


def test_times_are_in_the_viewers_zone(viewer: Client, shown: Shown, settings: Any) -> None:
    """Where Django has no time zones, in the site's."""
    shown.locks = [a_lock("report", acquired_at=NOW)]
    address = "/admin/distlock/lock/shown_3Areport/change/"
    assert "Jan. 2, 2026, 8:49 a.m." in page_text(viewer, address)
    with timezone.override("Asia/Tokyo"):  # as a site's middleware does for its user
        assert "Jan. 2, 2026, 12:04 p.m." in page_text(viewer, address)
    settings.USE_TZ = False
    settings.TIME_ZONE = "America/New_York"
    assert "Jan. 1, 2026, 10:04 p.m." in page_text(viewer, address)


def test_refreshing_script_gets_the_changing_part_only(viewer: Client, shown: Shown) -> None:
    """With the same rows, and without the site's navigation."""
    shown.locks = [a_lock("report")]
    part = viewer.get(LIST, headers={"X-Distlock-Refresh": "1"}).content.decode()
    assert part.lstrip().startswith('<div id="distlock-live"')
    assert "report" in part
    assert "<html" not in part
    assert without_time(part).strip() in without_time(viewer.get(LIST).content.decode())


def without_time(page: str) -> str:
    """Return the page without the second at which it was made."""
    return re.sub(r'data-as-of="[\d:]+"', "", page)


@on_each_locks_database
@pytest.mark.parametrize("page", ["list", "lock"])
def test_page_takes_few_queries_however_many_locks_there_are(
    locks_database: str, page: str
) -> None:
    """Under fifteen, the session's and the permissions' included."""
    client = log_in("view_lock", "force_release_lock")
    address = LIST if page == "list" else f"{LIST}{locks_database}_3Areport/change/"

    def count() -> int:
        with (
            CaptureQueriesContext(connections["default"]) as site,
            CaptureQueriesContext(connections[locks_database]) as locks,
        ):
            assert "report" in page_text(client, address, store=locks_database)
        return len(site) + (len(locks) if locks_database != "default" else 0)

    make_held(locks_database, "report")
    count()  # connections ask their servers for this and that at first
    few = count()
    for number in range(20):
        make_held(locks_database, f"report {number}")
    assert count() == few < 15


@override_settings(LANGUAGE_CODE="de", USE_THOUSAND_SEPARATOR=True)
def test_numbers_that_are_names_are_not_formatted(operator: Client, shown: Shown) -> None:
    """A token is an identity: in any language it has no separators."""
    shown.locks = [a_lock("report", acquired_at=NOW - HOUR)]
    page = operator.get(LIST).content.decode()
    assert ">1796006054951302</td>" in page
    assert 'value="1796006054951302:report"' in page
