"""Permissions to see and force-release locks in the admin; and that no page shows the owner."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import Group, User
from django.db import connections
from django.test import Client, RequestFactory
from django.test.utils import CaptureQueriesContext
from django.urls import path, reverse

from django_distlock.admin import LockAdmin
from django_distlock.models import Lock
from tests.support.admin_pages import (
    FORCE_RELEASE,
    LIST,
    SECRET,
    lock_page,
    log_in,
    make_all_states,
    make_held,
    page_text,
)
from tests.support.documentation import example
from tests.support.shown_stores import Shown, a_lock

if TYPE_CHECKING:
    from django.http import HttpRequest

pytestmark = pytest.mark.django_db(databases="__all__")

PAGES = [LIST, lock_page("default", "report"), lock_page("default", "report", "history")]


def test_view_permission_is_all_it_takes_to_see(viewer: Client) -> None:
    """The admin's index links to the list."""
    make_held("default", "report")
    for page in PAGES:
        assert viewer.get(page).status_code == 200
    assert LIST in viewer.get("/admin/").content.decode()


@pytest.mark.parametrize("permission", ["view_user", "force_release_lock"])
def test_without_view_permission_there_is_nothing_to_see(permission: str) -> None:
    """Staff with other permissions get a 403, as do their force-releases."""
    make_held("default", "report", token=1)
    client = log_in(permission)
    for page in PAGES:
        assert client.get(page).status_code == 403
    assert client.post(FORCE_RELEASE, {"selected": "1:report"}).status_code == 403


def test_anonymous_user_is_asked_to_log_in() -> None:
    """As everywhere in the admin."""
    for page in (*PAGES, FORCE_RELEASE):
        response = Client().get(page)
        assert (response.status_code, response["Location"].split("?")[0]) == (302, "/admin/login/")


def test_without_its_permission_force_release_is_refused(viewer: Client, shown: Shown) -> None:
    """There is no button and no checkbox, and a POST is a 403."""
    shown.locks = [a_lock("report", token=1)]
    for page in (LIST, lock_page("shown", "report")):
        shown_page = viewer.get(page).content.decode()
        assert "orce-release" not in shown_page.partition('id="content-main"')[2]
        assert 'name="selected"' not in shown_page
    for data in ({"selected": "1:report"}, {"selected": "1:report", "confirmed": "yes"}):
        assert viewer.post(FORCE_RELEASE, data).status_code == 403
    assert "force_release" not in shown.calls


def test_force_release_takes_a_csrf_token(operator: Client, shown: Shown) -> None:
    """Another site's form can't release a lock."""
    shown.locks = [a_lock("report", token=1)]
    operator.handler.enforce_csrf_checks = True
    data = {"selected": "1:report", "confirmed": "yes"}
    assert operator.post(FORCE_RELEASE, data).status_code == 403
    assert [lock.semaphore for lock in shown.locks] == ["report"]


class NightShiftAdmin(LockAdmin):
    """Lets users force-release by a rule of the site."""

    def has_force_release_permission(self, request: HttpRequest) -> bool:
        return request.user.get_username() == "night shift"


class NightShiftSite(admin.AdminSite):
    """An admin site at an address of its own."""


site = NightShiftSite(name="night")
site.register(Lock, NightShiftAdmin)
urlpatterns = [path("admin/", admin.site.urls), path("night/admin/", site.urls)]


@pytest.mark.urls(__name__)
def test_custom_admin_site_has_its_own_addresses(operator: Client, shown: Shown) -> None:
    """Its links stay in it, and its own rule for the permission counts."""
    shown.locks = [a_lock("report", token=1)]
    address = reverse("admin:distlock_lock_changelist", current_app="night")
    assert address == "/night/admin/distlock/lock/"
    for page in (address, f"{address}shown_3Areport/change/"):
        text = operator.get(page).content.decode().partition('id="content-main"')[2]
        assert "/night/admin/" in text
        assert '"/admin/' not in text
        assert "orce-release" not in text
    operator.post(f"{address}force-release/", {"selected": "1:report", "confirmed": "yes"})
    assert shown.locks
    allowed = Client()
    allowed.force_login(User.objects.create_superuser("night shift"))
    response = allowed.post(f"{address}force-release/?store=shown", {"selected": "1:report"})
    assert 'action="/night/admin/distlock/lock/force-release/' in response.content.decode()


def test_documented_site_has_its_own_rule(shown: Shown) -> None:
    """As docs/reference/admin.md registers it: users of the group "on call" may force-release."""
    model_admin: Any = example("reference/admin.md", "Your own rules").site.get_model_admin(Lock)
    user = User.objects.create_user("bob", is_staff=True)
    request = RequestFactory().get(LIST)
    request.user = user
    assert not model_admin.has_force_release_permission(request)
    user.groups.add(Group.objects.create(name="on call"))
    assert model_admin.has_force_release_permission(request)
    assert model_admin.list_per_page == 50


def test_owner_is_on_no_page_and_is_not_read(admin_client: Client) -> None:
    """It is the secret that releases a lock. What isn't read can't get into an error report."""
    make_all_states("default")
    lists = [f"{LIST}?state={state}" for state in ("", "held", "stale")]
    locks = [lock_page("default", semaphore) for semaphore in ("held", "stale", "released")]
    for page in (*lists, *locks, lock_page("default", "held", "history")):
        with CaptureQueriesContext(connections["default"]) as queries:
            response = admin_client.get(page)
        assert response.status_code == 200
        assert SECRET not in response.content.decode()
        selected = [query["sql"].partition(" FROM ")[0] for query in queries]
        assert not [columns for columns in selected if '"distlock_lock"."owner",' in columns]
    with CaptureQueriesContext(connections["default"]) as queries:
        response = admin_client.post(FORCE_RELEASE, {"selected": ["1:held", "3:stale"]})
    assert SECRET not in response.content.decode()


@pytest.mark.parametrize("lookup", ["owner", "owner__startswith", "owner__gt", "q"])
def test_owner_cannot_be_guessed_by_filters(viewer: Client, lookup: str) -> None:
    """The list answers no questions about the secret."""
    make_held("default", "report")
    answers = {
        page_text(viewer, LIST, **{lookup: guess}).replace(guess, "")
        for guess in (SECRET, "0" * 30)
    }
    assert len({answer.count("report") for answer in answers}) == 1


def test_owner_cannot_be_guessed_as_a_key(viewer: Client) -> None:
    """A lock's page is found by its semaphore only."""
    make_held("default", "report")
    address = lock_page("default", SECRET)
    assert "Nobody holds this lock" in page_text(viewer, address, _to_field="owner")


def test_lookups_are_not_taken(viewer: Client) -> None:
    """A list is asked by the store's own means."""
    make_held("default", "report")
    values: dict[str, Any] = {"token__gt": 10**18, "semaphore__contains": "nothing"}
    assert "report" in page_text(viewer, LIST, **values)
