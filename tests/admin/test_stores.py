"""The tabs of the admin's list: one for each store, whatever is wrong with it."""

from __future__ import annotations

import copy
import re
import time
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connections
from django.test import Client, override_settings

from django_distlock import LockBackendUnavailable, lock_backends
from django_distlock.records import Pause
from tests.support.admin_pages import LIST, alerts, listed, lock_page, make_held, page_text
from tests.support.commands import on_each_store
from tests.support.holders import holding
from tests.support.shown_stores import NOW, SECOND, Shown, a_lock, shown_store
from tests.support.strict_policy import NONCE, nonce

if TYPE_CHECKING:
    from tests.support.servers import Server

pytestmark = pytest.mark.django_db(databases="__all__")

DATABASE = "django_distlock.backends.database.DatabaseBackend"
STORES: dict[str, Any] = {
    "other": {"BACKEND": DATABASE, "OPTIONS": {"using": "locks"}},
    "memory": {"BACKEND": "django_distlock.backends.memory.MemoryBackend"},
    "small": {"BACKEND": "tests.app.backends.MinimalBackend"},
    "wrong": {"BACKEND": DATABASE, "OPTIONS": {"usign": "default"}},
}


def tabs(client: Client, **query: Any) -> list[tuple[str, bool]]:
    """Return the tabs, and which is open."""
    response = client.get(LIST, query)
    assert response.status_code == 200
    page = response.content.decode()
    found = response.context["tabs"]
    assert page.count('aria-current="page">') >= 1
    return [(f"{store.alias} {store.problem}".strip(), is_open) for store, _, is_open in found]


def test_each_store_has_a_tab(viewer: Client) -> None:
    """The first one of DISTLOCK is open at first; a misconfigured one says so on its tab."""
    with shown_store(**STORES):
        names = ["shown", "other", "memory", "small", "wrong misconfigured"]
        assert tabs(viewer) == [(name, name == "shown") for name in names]
        assert tabs(viewer, store="other") == [(name, name == "other") for name in names]
        text = page_text(viewer, LIST)
        assert "shown other memory small wrong misconfigured" in text


def test_tab_of_a_database_shows_that_database(viewer: Client) -> None:
    """Whatever routers say: the store knows its database."""
    make_held("default", "in default")
    make_held("locks", "in locks")
    with shown_store(**STORES):
        assert listed(viewer, store="other") == ["in locks"]


def test_memory_is_of_one_process(viewer: Client) -> None:
    """The page says that other processes have locks of their own."""
    with shown_store(**STORES), holding("memory", "report"):
        assert listed(viewer, store="memory") == ["report"]
        assert "of the process that answered" in page_text(viewer, LIST, store="memory")


@pytest.mark.parametrize("page", [LIST, f"{LIST}small_3Areport/change/"])
def test_store_that_lists_nothing_says_what_to_do(viewer: Client, page: str) -> None:
    """As Memcached. It isn't called empty."""
    with shown_store(**STORES):
        text = page_text(viewer, page, store="small")
    assert re.search("MinimalBackend can.t list its locks", text)
    assert "ends by itself when its ttl runs out" in text
    assert "Nobody holds" not in text


@pytest.mark.parametrize("page", [LIST, f"{LIST}wrong_3Areport/change/"])
def test_misconfigured_store_shows_its_error(viewer: Client, page: str) -> None:
    """The error that the system check shows."""
    with shown_store(**STORES):
        [alert] = alerts(viewer, page, store="wrong")
    assert alert.startswith("The store “wrong” is misconfigured.")
    assert "DISTLOCK['wrong']: wrong OPTIONS" in alert


@pytest.mark.parametrize("page", [LIST, f"{LIST}shown_3Areport/change/"])
def test_store_that_is_down_is_a_warning(viewer: Client, shown: Shown, page: str) -> None:
    """On its tab and page, which say no word of free locks. It is asked once, not again."""
    shown.failing = {"all"}
    shown.error = LockBackendUnavailable("redis://user:secret@10.0.0.7 is down")
    [alert] = alerts(viewer, page)
    assert alert.startswith("The store “shown” is unreachable.")
    assert "10.0.0.7 is down" in alert
    assert "secret" not in alert
    assert len(shown.calls) == 1
    assert "Nobody holds" not in page_text(viewer, page)
    assert tabs(viewer) == [("shown unreachable", True)]


def test_pauses_that_cannot_be_read_are_a_warning(viewer: Client, shown: Shown) -> None:
    """The store went down in between."""
    shown.failing = {"pauses"}
    assert alerts(viewer)


def test_setting_that_cannot_be_read_is_a_warning(viewer: Client) -> None:
    """There is no store to show."""
    with override_settings(DISTLOCK=[]):
        [alert] = alerts(viewer)
        assert "must be a dict of aliases." in alert
        assert viewer.get(f"{LIST}report/change/").status_code == 404
    with override_settings(DISTLOCK={}):
        assert "The setting DISTLOCK names no store." in page_text(viewer, LIST)


def test_link_to_a_store_that_is_gone_leads_to_the_first(viewer: Client, shown: Shown) -> None:
    """With a message, but not one for each time that an open page refreshed itself."""
    viewer.get(LIST, {"store": "gone"}, headers={"X-Distlock-Refresh": "1"})
    response = viewer.get(LIST, {"store": "gone"}, follow=True)
    assert response.redirect_chain == [(f"{LIST}?store=shown", 302)]
    assert [str(each) for each in response.context["messages"]] == ["DISTLOCK has no store gone."]


def test_pauses_are_on_top(viewer: Client, shown: Shown) -> None:
    """With their reason and end; on a lock's page if they concern it."""
    shown.locks = [a_lock("deploy:web"), a_lock("report")]
    shown.pauses = [
        Pause("", NOW, None),
        Pause("deploy:", NOW, NOW + 600 * SECOND, "release <1>", "alice at web1"),
    ]
    text = page_text(viewer, LIST)
    assert "Paused: all semaphores. Nothing new is granted; holders go on." in text
    assert "until it is resumed" in text
    assert "Paused: semaphores that begin with “deploy:”." in text
    assert "until Jan. 2, 2026, 8:59 a.m. · reason: release <1> · by: alice at web1" in text
    assert "deploy:”" in page_text(viewer, f"{LIST}shown_3Adeploy_3Aweb/change/")
    text = page_text(viewer, f"{LIST}shown_3Areport/change/")
    assert "Paused: all" in text
    assert "deploy" not in text


@on_each_store
def test_pause_of_each_store_is_shown(viewer: Client, alias: str) -> None:
    """And no more, once it is resumed."""
    store = lock_backends[alias]
    store.pause("deploy:", 600, reason="release 7", by="alice at web1")
    try:
        text = page_text(viewer, LIST, store=alias)
        assert "Paused: semaphores that begin with “deploy:”." in text
        assert "reason: release 7 · by: alice at web1" in text
    finally:
        store.resume("deploy:")
    assert "Paused" not in page_text(viewer, LIST, store=alias)


@pytest.mark.needs("redis")
def test_real_store_that_is_down_answers_within_its_time(
    viewer: Client, unused_port: int, redis_server: Server, settings: Any
) -> None:
    """A server that is gone, and one that is stopped: the page comes within store_timeout."""
    redis = "django.core.cache.backends.redis.RedisCache"
    settings.CACHES = settings.CACHES | {
        "gone": {"BACKEND": redis, "LOCATION": f"redis://127.0.0.1:{unused_port}"},
        "stopped": {"BACKEND": redis, "LOCATION": f"redis://127.0.0.1:{redis_server.port}"},
    }
    store = "django_distlock.backends.redis.RedisBackend"
    stores = {
        name: {"BACKEND": store, "OPTIONS": {"cache": name, "store_timeout": 0.3}}
        for name in ("gone", "stopped")
    }
    with override_settings(DISTLOCK=stores), redis_server.paused():
        for name in stores:
            began = time.monotonic()
            assert "unreachable" in alerts(viewer, store=name)[0]
            assert time.monotonic() - began < 5


def test_scripts_and_styles_have_the_policys_nonce(
    viewer: Client, shown: Shown, settings: Any
) -> None:
    """For a Content-Security-Policy that allows those alone."""
    [engine] = copy.deepcopy(settings.TEMPLATES)
    engine["OPTIONS"]["context_processors"].append(f"{nonce.__module__}.{nonce.__qualname__}")
    settings.TEMPLATES = [engine]
    for page in (LIST, lock_page("shown", "report")):
        text = viewer.get(page).content.decode()
        assert text.count("distlock/admin.css") == text.count("distlock/refresh.js") == 1
        assert f'distlock/admin.css" nonce="{NONCE}">' in text
        assert f'distlock/refresh.js" defer nonce="{NONCE}">' in text


def test_missing_table_is_a_warning(viewer: Client) -> None:
    """The table isn't migrated on the database of the locks; all else of the admin works."""
    with connections["locks"].cursor() as cursor:
        cursor.execute("ALTER TABLE distlock_lock RENAME TO elsewhere")
    try:
        with shown_store(**STORES):
            [alert] = alerts(viewer, store="other")
        assert "unreachable" in alert
    finally:
        with connections["locks"].cursor() as cursor:
            cursor.execute("ALTER TABLE elsewhere RENAME TO distlock_lock")
