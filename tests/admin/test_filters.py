"""Which locks the admin's list shows: by state, by the beginning of the semaphore, or all."""

from __future__ import annotations

import re
from html import unescape
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

import pytest

from tests.support.admin_pages import (
    LIST,
    listed,
    make_all_states,
    make_held,
    on_each_locks_database,
)

if TYPE_CHECKING:
    from django.test import Client

pytestmark = [
    pytest.mark.django_db(databases="__all__"),
    pytest.mark.usefixtures("locks_database"),
]


@on_each_locks_database
def test_list_has_held_locks_unless_another_state_is_asked_for(
    locks_database: str, viewer: Client
) -> None:
    """Operators usually look for held locks."""
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
    """ "All" lists them together."""
    make_all_states()
    assert listed(viewer, state=state) == semaphores


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
    """The counts cover all states within the search, whichever state is listed."""
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
    """It shows all states, not only held locks. Clearing the filters keeps the search."""
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
