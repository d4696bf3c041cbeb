"""Permissions to see locks in the admin, and that no page shows the owner."""

from __future__ import annotations

from urllib.parse import urlencode

import pytest
from django.db import connections
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from tests.support.admin_pages import LIST, SECRET, detail, log_in, make_all_states, make_held

pytestmark = [
    pytest.mark.django_db(databases="__all__"),
    pytest.mark.usefixtures("locks_database"),
]


def test_view_permission_is_all_it_takes(viewer: Client) -> None:
    """The admin's index links to the list."""
    make_held("report")
    for page in (LIST, detail("report"), detail("report", "history")):
        assert viewer.get(page).status_code == 200
    assert LIST in viewer.get("/admin/").content.decode()


def test_without_view_permission_there_is_nothing_to_see() -> None:
    """Staff with other permissions get a 403."""
    make_held("report")
    client = log_in("view_user")
    for page in (LIST, detail("report"), detail("report", "history")):
        assert client.get(page).status_code == 403
    assert LIST not in client.get("/admin/").content.decode()


def test_anonymous_user_is_asked_to_log_in() -> None:
    """As everywhere in the admin."""
    make_held("report")
    for page in (LIST, detail("report"), detail("report", "history")):
        response = Client().get(page)
        assert (response.status_code, response["Location"].split("?")[0]) == (302, "/admin/login/")


def test_owner_is_on_no_page(admin_client: Client) -> None:
    """It is the secret that releases a lock: not on lists, a lock's page or its history."""
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
        on_locks = [columns for columns in selected if '"distlock_lock"."semaphore"' in columns]
        assert on_locks
        assert not [columns for columns in on_locks if '"distlock_lock"."owner",' in columns]


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
    page = reverse("admin:distlock_lock_change", args=[SECRET])
    assert viewer.get(page, {"_to_field": "owner"}).status_code == 400
