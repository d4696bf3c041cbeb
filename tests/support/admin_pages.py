"""The admin's pages of locks, and locks to show there."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from django.contrib.admin.utils import quote
from django.contrib.auth.models import Permission, User
from django.db import connections
from django.test import Client, override_settings
from django.urls import reverse
from model_bakery import baker

from django_distlock import clocks
from django_distlock.fields import to_microseconds
from django_distlock.models import Lock
from tests.support.databases import DATABASES

if TYPE_CHECKING:
    from collections.abc import Iterator

on_each_locks_database = pytest.mark.parametrize("locks_database", DATABASES, indirect=True)

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
HOUR = timedelta(hours=1)
LIST = "/admin/distlock/lock/"
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
    """Make the admin read locks from this database, with a stopped clock."""
    frozen = {connections[alias].vendor: str(to_microseconds(NOW))}
    with mock.patch.dict(clocks.NOW, frozen), override_settings(DATABASE_ROUTERS=[LocksOn(alias)]):
        yield


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
    return reverse(f"admin:distlock_lock_{page}", args=[quote(semaphore)])


def columns(client: Client, **query: Any) -> dict[str, list[str]]:
    """Return the texts of the list's cells, by the semaphore in front of them."""
    rows = client.get(LIST, query).context["results"]
    texts = [[unescape(_without_tags(cell)) for cell in row] for row in rows]
    return {semaphore: cells for semaphore, *cells in texts}


def _without_tags(html: str) -> str:
    return "".join(part.rpartition(">")[2] for part in html.split("<"))
