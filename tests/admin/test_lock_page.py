"""The admin's page of one lock: it is read-only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from django.urls import reverse

from django_distlock.models import Lock
from tests.support.admin_pages import LIST, SECRET, detail, make_held, on_each_locks_database

if TYPE_CHECKING:
    from django.test import Client

pytestmark = [
    pytest.mark.django_db(databases="__all__"),
    pytest.mark.usefixtures("locks_database"),
]


@on_each_locks_database
@pytest.mark.parametrize(
    "semaphore", ["1234collectPayment", "a/b?c=d&e #f_g", "a ", "ä<b>\U0001f512"]
)
def test_page_of_a_lock_shows_the_columns_of_the_list(
    locks_database: str, viewer: Client, semaphore: str
) -> None:
    """The semaphore may have any characters, and there are no form fields."""
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


def test_admin_cannot_add_locks(admin_client: Client) -> None:
    """Not even a superuser: locks are acquired by code."""
    add = reverse("admin:distlock_lock_add")
    assert admin_client.get(add).status_code == 403
    assert admin_client.post(add, {"semaphore": "report", "holder": "h"}).status_code == 403
    assert not Lock.objects.exists()
    assert add not in admin_client.get(LIST).content.decode()


@pytest.mark.parametrize("page", ["change", "delete"])
def test_admin_cannot_change_or_delete_locks(admin_client: Client, page: str) -> None:
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
    """Deleting the selected locks isn't offered, and a request for it is refused."""
    make_held("report")
    assert 'name="action"' not in admin_client.get(LIST).content.decode()
    admin_client.post(
        LIST, {"action": "delete_selected", "_selected_action": "report", "post": "yes"}
    )
    assert Lock.objects.get().owner == SECRET
