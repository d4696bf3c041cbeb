"""The check for django-health-check, through its view."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from django.test import AsyncClient, Client, override_settings
from django.urls import path
from health_check.views import HealthCheckView

from tests.support.documentation import example
from tests.support.lock_servers import locks_by
from tests.support.paths import ROOT
from tests.support.ports import HOST

if TYPE_CHECKING:
    from collections.abc import Callable

LOCK_STORE = "django_distlock.health.health_check.LockStore"
SECRET = "a secret that is shown to nobody"

urls: Any = (
    path("default/", HealthCheckView.as_view(checks=[(LOCK_STORE, {"alias": "memory"})])),
    path("down/", HealthCheckView.as_view(checks=[(LOCK_STORE, {"alias": "lock_server"})])),
    path("nowhere/", HealthCheckView.as_view(checks=[(LOCK_STORE, {"alias": "nowhere"})])),
    path("database/", HealthCheckView.as_view(checks=[LOCK_STORE])),
)


def get(url: str) -> Any:
    """Ask for the page under WSGI."""
    return Client().get(url, {"format": "text"})


def aget(url: str) -> Any:
    """Ask for the page under ASGI."""
    return asyncio.run(AsyncClient().get(url, {"format": "text"}))


either_way = pytest.mark.parametrize("ask", [get, aget])


@either_way
def test_page_is_200_while_the_store_is_up(ask: Callable[[str], Any]) -> None:
    """With the store's alias."""
    with override_settings(ROOT_URLCONF=urls):
        answer = ask("/default/")
    assert (answer.status_code, answer.content) == (200, b"LockStore(alias='memory'): OK\n")


@either_way
def test_page_is_500_while_the_store_is_down(
    unused_port: int, caplog: pytest.LogCaptureFixture, ask: Callable[[str], Any]
) -> None:
    """Clients see which store it is; where it is goes to the log."""
    place = f"{HOST}:{unused_port}"
    options = {"address": place, "secret": SECRET, "store_timeout": 0.5}
    with override_settings(ROOT_URLCONF=urls), locks_by(options):
        answer = ask("/down/")
    assert answer.status_code == 500
    page = answer.content.decode()
    assert page.startswith("LockStore(alias='lock_server'): Unavailable: DISTLOCK['lock_server']")
    assert place not in page
    assert place in caplog.text
    assert SECRET not in caplog.text + page


def test_page_is_500_for_an_unknown_store() -> None:
    """The error is in the log."""
    with override_settings(ROOT_URLCONF=urls):
        answer = get("/nowhere/")
    assert (answer.status_code, b"DISTLOCK" in answer.content) == (500, False)


@pytest.mark.django_db(databases=["default"], transaction=True)
@either_way
def test_page_checks_the_database(ask: Callable[[str], Any]) -> None:
    """By the connection of the thread that asks, on SQLite."""
    with override_settings(ROOT_URLCONF=urls):
        assert ask("/database/").status_code == 200


WITHOUT = """
import sys
sys.modules["health_check"] = None
import django_distlock.health
try:
    import django_distlock.health.health_check
except ImportError as error:
    print(error)
"""


@pytest.mark.once
def test_extra_is_needed_for_the_check_alone() -> None:
    """The error says what to install."""
    found = subprocess.run(
        [sys.executable, "-c", WITHOUT], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert found.stdout == (
        'This needs django-health-check: pip install "django-distlock[health]".\n'
    )


@pytest.mark.once
def test_documented_page_is_made_of_checks_that_exist() -> None:
    """By their dotted paths and arguments."""
    [pattern] = example("reference/health.md", "django-health-check").urlpatterns
    view = HealthCheckView(**pattern.callback.view_initkwargs)
    assert [repr(each) for each in view.get_checks()][1:] == [
        "LockStore(alias='default')",
        "LockStore(alias='jobs')",
    ]
