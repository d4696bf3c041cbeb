"""The admin's pages of locks, as a test reads them."""

from __future__ import annotations

import re
from contextlib import contextmanager
from html import unescape
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from django.contrib.admin.utils import quote
from django.contrib.auth.models import Permission, User
from django.db import connections
from django.test import Client
from django.urls import reverse
from model_bakery import baker

from django_distlock import clocks
from django_distlock.fields import to_microseconds
from django_distlock.models import Lock
from tests.support.databases import DATABASES
from tests.support.shown_stores import HOUR, NOW

if TYPE_CHECKING:
    from collections.abc import Iterator

on_each_locks_database = pytest.mark.parametrize("locks_database", DATABASES, indirect=True)

LIST = "/admin/distlock/lock/"
FORCE_RELEASE = "/admin/distlock/lock/force-release/"
SECRET = "5ec2e7" * 5
BOTH = ("view_lock", "force_release_lock")


@contextmanager
def stopped_clock(alias: str) -> Iterator[None]:
    """Stop the clock of the database."""
    frozen = {connections[alias].vendor: str(to_microseconds(NOW))}
    with mock.patch.dict(clocks.NOW, frozen):
        yield


def log_in(*permissions: str) -> Client:
    """Return the browser of a member of staff with these permissions."""
    user = baker.make(User, username="alice", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client()
    client.force_login(user)
    return client


def make(alias: str, semaphore: str, **values: Any) -> None:
    """Write a lock into the database."""
    row = baker.prepare(Lock, semaphore=semaphore, **{"owner": SECRET, **values})
    row.save(using=alias, force_insert=True)


def make_held(alias: str, semaphore: str, **values: Any) -> None:
    """Write a lock that is held for an hour from NOW."""
    make(alias, semaphore, **{"acquired_at": NOW, "expires_at": NOW + HOUR, **values})


def make_all_states(alias: str) -> None:
    """Write locks in each state."""
    make_held(alias, "held", token=1)
    make(alias, "held without end", token=2, expires_at=None)
    make(alias, "stale", token=3, expires_at=NOW - HOUR)
    make(alias, "released", token=4, owner="", expires_at=NOW - 30 * HOUR)
    make(alias, "released, of unknown time", token=5, owner="", expires_at=None)


def text_of(html: str) -> str:
    """Return what a person reads there."""
    visible = re.sub(r"<(script|style)\b.*?</\1>|<wbr>", "", html, flags=re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", visible)).split())


def page_text(client: Client, address: str, **query: Any) -> str:
    """Return the text of a page that must be there."""
    response = client.get(address, query)
    assert response.status_code == 200
    return text_of(response.content.decode())


def rows(client: Client, **query: Any) -> dict[str, list[str]]:
    """Return the texts of the list's cells, by the semaphore."""
    response = client.get(LIST, query)
    assert response.status_code == 200
    found = {}
    for row in re.findall(
        r"<tr role=\"row\" data-key.*?</tr>", response.content.decode(), re.DOTALL
    ):
        cells = [text_of(cell) for cell in re.findall(r"<t[hd]\b.*?</t[hd]>", row, re.DOTALL)]
        if "distlock-select" in row:
            del cells[0]
        found[cells[0]] = cells[1:]
    return found


def listed(client: Client, **query: Any) -> list[str]:
    """Return the semaphores on the list."""
    return list(rows(client, **query))


def lock_page(alias: str, semaphore: str, page: str = "change") -> str:
    """Return the address of a lock's page."""
    return reverse(f"admin:distlock_lock_{page}", args=[quote(f"{alias}:{semaphore}")])


def alerts(client: Client, address: str = LIST, **query: Any) -> list[str]:
    """Return the texts of the page's warnings."""
    page = client.get(address, query).content.decode()
    return [
        text_of(each) for each in re.findall(r'<div[^>]*role="alert".*?</div>', page, re.DOTALL)
    ]


def messages_after(client: Client, address: str, data: dict[str, Any]) -> list[str]:
    """Send a form, and return the messages on the page to which that leads."""
    response = client.post(address, data, follow=True)
    assert response.status_code == 200
    return [text_of(str(message)) for message in response.context["messages"]]
