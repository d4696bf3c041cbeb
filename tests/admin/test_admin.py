"""Locks in the admin: who sees what, and that nobody changes anything."""

from __future__ import annotations

import re
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import TYPE_CHECKING, Any
from unittest import mock
from urllib.parse import parse_qsl, urlencode

import pytest
from django.contrib.admin.utils import quote
from django.contrib.auth.models import Permission, User
from django.db import connections
from django.test import Client, override_settings
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from model_bakery import baker

from django_distlock import clocks
from django_distlock.fields import to_microseconds
from django_distlock.models import Lock
from tests.support.databases import DATABASES

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.django_db(databases="__all__")
on_each_locks_database = pytest.mark.parametrize("locks_database", DATABASES, indirect=True)

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
HOUR = timedelta(hours=1)
LIST = "/admin/django_distlock/lock/"
SECRET = "5ec2e7" * 5


class LocksOn:
    """A router: locks are in one database, users and all else in the default one."""

    def __init__(self, alias: str) -> None:
        self.alias = alias

    def db_for_read(self, model: Any, **hints: Any) -> str | None:
        return self.alias if model is Lock else None

    db_for_write = db_for_read


@contextmanager
def locks_on(alias: str) -> Iterator[None]:
    """Let the admin read locks there, by a clock that stands still."""
    frozen = {connections[alias].vendor: str(to_microseconds(NOW))}
    with mock.patch.dict(clocks.NOW, frozen), override_settings(DATABASE_ROUTERS=[LocksOn(alias)]):
        yield


@pytest.fixture(autouse=True)
def locks_database(request: pytest.FixtureRequest) -> Iterator[str]:
    """Read locks of the database that the test is parametrised with, else of the default one."""
    alias = getattr(request, "param", "default")
    with locks_on(alias):
        yield alias


@pytest.fixture
def viewer() -> Client:
    """Log in somebody who may view locks, and nothing else."""
    return log_in("view_lock")


def log_in(*permissions: str) -> Client:
    user = baker.make(User, is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client()
    client.force_login(user)
    return client


def make(semaphore: str, **values: Any) -> Lock:
    lock: Lock = baker.make(Lock, semaphore=semaphore, **{"owner": SECRET, **values})
    return lock


def make_held(semaphore: str, **values: Any) -> Lock:
    return make(semaphore, **{"acquired_at": NOW, "expires_at": NOW + HOUR, **values})


def make_all_states() -> None:
    make_held("held", token=1)
    make("held without end", token=2, expires_at=None)
    make("stale", token=3, expires_at=NOW - HOUR)
    make("released", token=4, owner="", expires_at=NOW - 30 * HOUR)
    make("released, of unknown time", token=5, owner="", expires_at=None)


def listed(client: Client, **query: Any) -> list[str]:
    """Return the semaphores on the list page."""
    response = client.get(LIST, query)
    assert response.status_code == 200
    return [lock.semaphore for lock in response.context["cl"].result_list]


def detail(semaphore: str, page: str = "change") -> str:
    return reverse(f"admin:django_distlock_lock_{page}", args=[quote(semaphore)])


def columns(client: Client, **query: Any) -> dict[str, list[str]]:
    """Return the texts of the list's cells, by the semaphore in front of them."""
    rows = client.get(LIST, query).context["results"]
    texts = [[unescape(_without_tags(cell)) for cell in row] for row in rows]
    return {semaphore: cells for semaphore, *cells in texts}


def _without_tags(html: str) -> str:
    return "".join(part.rpartition(">")[2] for part in html.split("<"))


# The list


@on_each_locks_database
def test_list_has_held_locks_unless_another_state_is_asked_for(
    locks_database: str, viewer: Client
) -> None:
    """They are what somebody looks for."""
    make_all_states()
    assert listed(viewer) == ["held", "held without end"]


@on_each_locks_database
@pytest.mark.parametrize(
    ("state", "semaphores"),
    [
        ("held", ["held", "held without end"]),
        ("stale", ["stale"]),
        ("released", ["released", "released, of unknown time"]),
        ("all", ["held", "held without end", "released", "released, of unknown time", "stale"]),
    ],
)
def test_each_state_can_be_asked_for(
    locks_database: str, viewer: Client, state: str, semaphores: list[str]
) -> None:
    """And all of them together."""
    make_all_states()
    assert listed(viewer, state=state) == semaphores


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
    """Whichever database that is in, with or without a router."""
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


@pytest.mark.parametrize(
    ("query", "selected"),
    [
        ({}, "held"),
        ({"state": "stale"}, "stale (expired, never released)"),
        ({"state": "all"}, "All"),
    ],
)
def test_filter_shows_which_state_is_listed(
    viewer: Client, query: dict[str, str], selected: str
) -> None:
    """One choice is marked, and each leads to its state."""
    changelist = viewer.get(LIST, query).context["cl"]
    (state_filter,) = changelist.filter_specs
    choices = [*state_filter.choices(changelist)]
    assert [str(choice["display"]) for choice in choices if choice["selected"]] == [selected]
    assert [choice["query_string"] for choice in choices] == [
        "?state=held",
        "?state=stale",
        "?state=released",
        "?state=all",
    ]


@on_each_locks_database
@pytest.mark.parametrize("state", [None, "held", "all"])
def test_counts_of_each_state_can_be_shown(
    locks_database: str, viewer: Client, state: str | None
) -> None:
    """Whichever is listed: within what is searched for."""
    make_all_states()
    query = {"_facets": "", **({"state": state} if state else {})}
    for search, counts in (("", (2, 1, 2, 5)), ("held", (2, 0, 0, 2))):
        changelist = viewer.get(LIST, {**query, "q": search}).context["cl"]
        (state_filter,) = changelist.filter_specs
        assert [str(choice["display"]) for choice in state_filter.choices(changelist)] == [
            f"{name} ({count})"
            for name, count in zip(
                ("held", "stale (expired, never released)", "released", "All"), counts, strict=True
            )
        ]


@pytest.mark.parametrize(
    "query",
    [
        {},
        {"state": "held"},
        {"state": "stale"},
        {"q": "held"},
        {"q": "held", "state": "all"},
        {"_facets": "", "q": "stale", "state": "released"},
    ],
    ids=str,
)
@pytest.mark.parametrize("link", ["Show all", "Clear all filters"])
def test_link_that_shows_all_locks_does(viewer: Client, query: dict[str, str], link: str) -> None:
    """And not held ones only. To clear the filters leaves what is searched for."""
    make_all_states()
    page = viewer.get(LIST, query).content.decode()
    found = re.search(rf'<a href="([^"]*)"[^>]*>[^<]*{link}', page)
    if link == "Clear all filters" and query.get("state", "all") == "all":
        assert not found
        return
    assert found
    target = dict(parse_qsl(unescape(found[1]).lstrip("?"), keep_blank_values=True))
    search = query.get("q", "") if link == "Clear all filters" else ""
    everything = listed(viewer, state="all")
    assert listed(viewer, **target) == [each for each in everything if each.startswith(search)]
    assert ("_facets" in target) == ("_facets" in query)


def test_list_of_all_locks_offers_no_link_to_itself(viewer: Client) -> None:
    """It says how many there are."""
    make_all_states()
    page = viewer.get(LIST, {"state": "all"}).content.decode()
    assert "5 results" in page
    assert "Show all" not in page


def test_states_are_told_apart_by_more_than_a_word(viewer: Client) -> None:
    """Each has a look of its own, on the list and on its own page."""
    make_all_states()
    page = viewer.get(LIST, {"state": "all"}).content.decode()
    for state, number in (("held", 2), ("stale", 1), ("released", 2)):
        shown = f'<span class="distlock-state distlock-{state}">{state}</span>'
        assert page.count(shown) == number
    assert 'distlock-stale">stale<' in viewer.get(detail("stale")).content.decode()


def test_list_is_shown_where_django_has_no_time_zones(viewer: Client, settings: Any) -> None:
    """Times are in the zone of the site."""
    settings.USE_TZ = False
    settings.TIME_ZONE = "America/New_York"
    make_held("report", holder="h", token=1)
    assert columns(viewer)["report"] == ["held", "h", "Jan. 1, 2026, 10:04 p.m.", "1h", "1"]
    assert "Jan. 1, 2026, 10:04 p.m." in viewer.get(detail("report")).content.decode()


@on_each_locks_database
def test_search_finds_semaphores_by_their_beginning(locks_database: str, viewer: Client) -> None:
    """Literally: % and _ are no wildcards, case counts, blanks are kept apart."""
    for semaphore in ("a%b", "a_b", "axb", "Axb", "ä", "ba%"):
        make_held(semaphore)
    for term, semaphores in {
        "a%": ["a%b"],
        "a_": ["a_b"],
        "a": ["a%b", "a_b", "axb"],
        "A": ["Axb"],
        "ä": ["ä"],
        "b": ["ba%"],
        "%": [],
        "xb": [],
    }.items():
        assert listed(viewer, q=term) == semaphores


def test_search_is_within_the_state_that_is_listed(viewer: Client) -> None:
    """A search for a stale lock needs the filter, too."""
    make_all_states()
    assert listed(viewer, q="released") == []
    assert listed(viewer, q="released,", state="released") == ["released, of unknown time"]
    assert "The beginning of the semaphore" in viewer.get(LIST).content.decode()


def test_columns_tell_state_holder_times_and_token(viewer: Client) -> None:
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
    """Oldest or youngest first, or whose lease lasts longest."""
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


# The page of a lock


@on_each_locks_database
@pytest.mark.parametrize(
    "semaphore", ["1234collectPayment", "a/b?c=d&e #f_g", "a ", "ä<b>\U0001f512"]
)
def test_page_of_a_lock_shows_what_the_list_does(
    locks_database: str, viewer: Client, semaphore: str
) -> None:
    """Whatever characters its semaphore has, and with nothing to fill in."""
    make_held(semaphore, holder="the holder", token=4711)
    make_held(f"{semaphore}, another", holder="the other")
    response = viewer.get(detail(semaphore))
    assert response.status_code == 200
    assert response.context["original"].semaphore == semaphore
    page = response.content.decode()
    for text in ("the holder", "4711", "Time left", "1h"):
        assert text in page
    assert "the other" not in page
    assert 'type="submit" value="Save"' not in page
    assert "deletelink" not in page


def test_page_of_a_lock_shows_times_as_the_list_does(viewer: Client) -> None:
    """In the site's zone and format."""
    make_held("report")
    assert "Jan. 2, 2026, 8:49 a.m." in viewer.get(detail("report")).content.decode()


def test_page_of_a_lock_that_is_not_there_leads_back(viewer: Client) -> None:
    """As of any model in the admin."""
    assert viewer.get(detail("nothing")).status_code == 302


# Read-only


def test_nobody_adds_a_lock(admin_client: Client) -> None:
    """Not even a superuser: locks are acquired by code."""
    add = reverse("admin:django_distlock_lock_add")
    assert admin_client.get(add).status_code == 403
    assert admin_client.post(add, {"semaphore": "report", "holder": "h"}).status_code == 403
    assert not Lock.objects.exists()
    assert add not in admin_client.get(LIST).content.decode()


@pytest.mark.parametrize("page", ["change", "delete"])
def test_nobody_changes_or_deletes_a_lock(admin_client: Client, page: str) -> None:
    """A POST is refused, and the row stays as it is."""
    make_held("report")
    before = Lock.objects.values().get()
    response = admin_client.post(
        detail("report", page), {"holder": "me", "owner": "", "post": "yes"}
    )
    assert response.status_code == 403
    assert Lock.objects.values().get() == before


def test_page_to_delete_a_lock_is_refused(admin_client: Client) -> None:
    """There is nothing to confirm."""
    make_held("report")
    assert admin_client.get(detail("report", "delete")).status_code == 403


def test_list_has_no_actions(admin_client: Client) -> None:
    """Deleting the selected locks isn't offered, nor done for who asks all the same."""
    make_held("report")
    assert 'name="action"' not in admin_client.get(LIST).content.decode()
    admin_client.post(
        LIST, {"action": "delete_selected", "_selected_action": "report", "post": "yes"}
    )
    assert Lock.objects.get().owner == SECRET


# Permissions


def test_view_permission_is_all_it_takes(viewer: Client) -> None:
    """And the admin's index leads there."""
    make_held("report")
    for page in (LIST, detail("report"), detail("report", "history")):
        assert viewer.get(page).status_code == 200
    assert LIST in viewer.get("/admin/").content.decode()


def test_without_view_permission_there_is_nothing_to_see() -> None:
    """Staff who may do something else get a 403."""
    make_held("report")
    client = log_in("view_user")
    for page in (LIST, detail("report"), detail("report", "history")):
        assert client.get(page).status_code == 403
    assert LIST not in client.get("/admin/").content.decode()


def test_who_is_not_logged_in_is_asked_to() -> None:
    """As everywhere in the admin."""
    make_held("report")
    for page in (LIST, detail("report"), detail("report", "history")):
        response = Client().get(page)
        assert (response.status_code, response["Location"].split("?")[0]) == (302, "/admin/login/")


# The owner


def test_owner_is_on_no_page(admin_client: Client) -> None:
    """Who has it can release the lock: not on lists, a lock's page or its history."""
    make_all_states()
    pages = [f"{LIST}?{urlencode({'state': state})}" for state in ("held", "stale", "all")]
    pages += [detail("stale"), detail("held"), detail("held", "history")]
    for page in pages:
        response = admin_client.get(page)
        assert response.status_code == 200
        assert SECRET not in response.content.decode()


def test_owner_is_not_read_from_the_database(admin_client: Client) -> None:
    """What isn't read can't get into an error report."""
    make_held("report")
    for page in (LIST, detail("report"), detail("report", "history")):
        with CaptureQueriesContext(connections["default"]) as queries:
            admin_client.get(page)
        selected = [query["sql"].partition(" FROM ")[0] for query in queries]
        on_locks = [
            columns for columns in selected if '"django_distlock_lock"."semaphore"' in columns
        ]
        assert on_locks
        assert not [columns for columns in on_locks if '"django_distlock_lock"."owner",' in columns]


@pytest.mark.parametrize("lookup", ["owner", "owner__startswith", "owner__gt", "owner__regex"])
def test_owner_cannot_be_guessed_by_filters(viewer: Client, lookup: str) -> None:
    """The list must not answer questions about the secret."""
    make_held("report")
    answers = []
    for guess in (SECRET, "0" * 30):
        response = viewer.get(LIST, {lookup: guess})
        context = response.context
        answers.append((response.status_code, context and len(context["cl"].result_list)))
    assert answers[0] == answers[1]


def test_owner_cannot_be_guessed_as_a_key(viewer: Client) -> None:
    """A lock's page is found by its semaphore only."""
    make_held("report")
    page = reverse("admin:django_distlock_lock_change", args=[SECRET])
    assert viewer.get(page, {"_to_field": "owner"}).status_code == 400
