"""The view of docs/how-to/protect-from-abuse.md, which looks the object up before it locks."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client, override_settings
from django.urls import path
from model_bakery import baker

from django_distlock import lock_backends
from django_distlock.leases.request import new_owner
from django_distlock.models import Lock
from tests.support.documentation import example

pytestmark = pytest.mark.django_db(databases="__all__")


@pytest.fixture
def client() -> Any:
    """Serve the page's example, and return the client of a logged-in user."""
    views = example("how-to/protect-from-abuse.md", "Look the object up before the lock")
    client = Client()
    client.force_login(baker.make(User, username="me"))
    urls = [path("profiles/<username>/edit/", views.edit_profile)]
    with override_settings(ROOT_URLCONF=tuple(urls)):
        yield client


def test_unknown_id_is_not_found_and_leaves_no_row(client: Client) -> None:
    """However many a crawler tries."""
    for number in range(3):
        assert client.get(f"/profiles/nobody-{number}/edit/").status_code == 404
    assert not Lock.objects.exists()


def test_known_id_is_locked_by_its_key(client: Client) -> None:
    """One request gets it, and others get a 409 in the meantime."""
    user = User.objects.get()
    assert client.get("/profiles/me/edit/").content == b"edited me"
    assert [lock.semaphore for lock in Lock.objects.all()] == [f"{user.pk}:edit"]
    assert lock_backends["default"].acquire(f"{user.pk}:edit", new_owner(), 60, "another")
    assert client.get("/profiles/me/edit/").status_code == 409


def test_stranger_gets_no_lock(client: Client) -> None:
    """The permission is checked outside the lock."""
    client.logout()
    assert client.get("/profiles/me/edit/").status_code == 302
    assert not Lock.objects.exists()
