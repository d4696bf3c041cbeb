"""The panel of django-debug-toolbar: the locks of a request, and what came of them."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest

pytest.importorskip("debug_toolbar")

from django.conf import settings
from django.test import AsyncClient, Client, override_settings
from pytest_django.live_server_helper import LiveServer

from django_distlock import acquire_lock
from django_distlock.conf import lock_backends
from django_distlock.locks.acquisition import before_acquisitions
from django_distlock.signals import lock_acquired, lock_contended, lock_lost, lock_released
from tests.support.browser import opened_page
from tests.support.concurrency import elsewhere, run
from tests.support.databases import committed
from tests.support.documentation import example
from tests.support.holders import acquire, finish_background_work, take_away
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.once, committed]

PANEL = "django_distlock.integrations.debug_toolbar.LocksPanel"
SITE = ROOT / "tests" / "support" / "toolbar_site.py"
MARKUP = "<img src=x onerror=alert(1)>"


@pytest.fixture(autouse=True)
def site() -> Iterator[None]:
    """Serve a site with the toolbar."""
    with override_settings(
        DEBUG=True,
        INTERNAL_IPS=["127.0.0.1"],
        ROOT_URLCONF="tests.support.toolbar_site",
        INSTALLED_APPS=[*settings.INSTALLED_APPS, "debug_toolbar"],
        MIDDLEWARE=["debug_toolbar.middleware.DebugToolbarMiddleware", *settings.MIDDLEWARE],
        DEBUG_TOOLBAR_PANELS=["debug_toolbar.panels.history.HistoryPanel", PANEL],
        DISTLOCK={
            "default": {"BACKEND": "django_distlock.backends.memory.MemoryBackend"},
            "database": {"BACKEND": "django_distlock.backends.database.DatabaseBackend"},
        },
    ):
        from django_distlock.integrations import debug_toolbar

        debug_toolbar.LocksPanel.ready()
        lock_backends["default"].clear()  # type: ignore[attr-defined]
        yield
        lock_backends["default"].clear()  # type: ignore[attr-defined]
        debug_toolbar.held_locks.clear()
        before_acquisitions.remove(debug_toolbar.record_place)
        for signal in (lock_acquired, lock_contended, lock_released, lock_lost):
            for recorder in signal.recorders:
                if recorder.__module__ == debug_toolbar.__name__:
                    signal.stop_recording(recorder)


def stored(response: Any, panel: str = "LocksPanel") -> dict[str, Any]:
    """Return what the toolbar has stored of the response, for the page and its history."""
    from debug_toolbar.store import MemoryStore

    found: dict[str, Any] = MemoryStore.panel(response["djdt-request-id"], panel)
    return found


def outcomes(response: Any) -> dict[str, str]:
    """Return what came of each lock, by its semaphore."""
    return {lock["semaphore"]: lock["outcome"] for lock in stored(response)["locks"]}


def shown(response: Any) -> str:
    """Return the panel's HTML, as the toolbar's page asks for it."""
    query = {"request_id": response["djdt-request-id"], "panel_id": "LocksPanel"}
    content: str = Client().get("/__debug__/render_panel/", query).json()["content"]
    return content


def line_of(text: str) -> str:
    """Return the place of the first line of the site that has the text."""
    lines = SITE.read_text("utf-8").splitlines()
    number = next(number for number, line in enumerate(lines, start=1) if text in line)
    return f"support/toolbar_site.py:{number}"


def test_locks_of_a_request_are_shown() -> None:
    """With their times, tokens and places; the view's own is at the view."""
    response = Client().get("/collect/1234/")
    own, stock, ledger, _ = stored(response)["locks"]
    assert [lock["backend"] for lock in (own, stock, ledger)] == ["default", "default", "database"]
    assert own["outcome"] == stock["outcome"] == ledger["outcome"] == "released"
    assert stock["waited"] >= 0
    assert 0 <= stock["held"] <= own["held"]
    assert stock["token"] != own["token"] is not None
    assert stock["where"] == line_of("with distributed_lock")
    assert "toolbar_site.py" in stock["stack"]
    assert "django_distlock" not in stock["stack"]
    assert own["where"] == line_of('@distributed_lock("<customer_id>collectPayment")')
    assert own["template"] == "<customer_id>collectPayment"
    html = shown(response)
    assert str(own["token"]) in html
    assert "&lt;customer_id&gt;collectPayment" in html
    assert "4 locks, " in response.content.decode()
    assert response["Server-Timing"].startswith("LocksPanel_waited;dur=")


def test_refusal_is_shown_with_the_holder() -> None:
    """What others wrote is escaped."""
    other = elsewhere(lambda: acquire("default", MARKUP, label=MARKUP))
    response = Client().get("/collect/1234/", {"last": MARKUP})
    refused = stored(response)["locks"][-1]
    assert (refused["outcome"], refused["held"], refused["token"]) == ("contended", None, None)
    assert refused["holder"] == other.holder
    html = shown(response)
    assert html.count("&lt;img src=x") == 2
    assert "<img" not in html
    assert other.release()


def test_lock_of_a_method_is_at_its_class() -> None:
    """No line of the site's code calls it."""
    response = Client().get("/class/1234/")
    [lock] = stored(response)["locks"]
    assert lock["where"] == line_of("class Collect(View):")
    assert "1 lock, " in response.content.decode()


def test_locks_of_an_async_request_are_shown() -> None:
    """Each, whichever thread carries it out, with its place in the coroutine."""
    response = run(get_async("/awaits/"))
    found = {lock["semaphore"]: lock for lock in stored(response)["locks"]}
    assert {lock["outcome"] for lock in found.values()} == {"released"}
    assert "after the response" not in found
    assert found["in the event loop"]["where"] == line_of("async with distributed_lock")
    assert found["in a thread"]["where"] == line_of("await aacquire_lock")
    assert found["in sync code"]["where"] == line_of("with distributed_lock(semaphore)")
    assert found["in another thread"]["where"] == line_of("with distributed_lock(semaphore)")


def test_concurrent_requests_show_their_own_locks() -> None:
    """Both hold one at the same time, in one event loop."""

    async def meet() -> tuple[Any, Any]:
        return await asyncio.gather(get_async("/meet/first/"), get_async("/meet/second/"))

    first, second = run(meet())
    assert outcomes(first) == {"first": "released"}
    assert outcomes(second) == {"second": "released"}


async def get_async(url: str) -> Any:
    """Visit the site through ASGI, and wait for the tasks that it leaves behind."""
    from tests.support.toolbar_site import tasks_left

    response = await AsyncClient().get(url)
    while tasks_left:
        await tasks_left.pop()
    return response


def test_end_after_the_response_is_shown_later() -> None:
    """A streamed response keeps its view's lock: the page and its history then show its end."""
    response = Client().get("/stream/1234/")
    assert outcomes(response) == {"1234collectPayment": "held"}
    assert "still held" in shown(response)
    [held] = stored(response)["locks"]
    assert held["held"] > 0
    assert b"Done." in response.getvalue()
    assert outcomes(response) == {"1234collectPayment": "released_later"}
    assert "released after the response" in shown(response)
    assert stored(response)["locks"][0]["held"] > held["held"]


def test_end_after_the_response_waits_for_no_other_store() -> None:
    """Nobody who releases a lock waits for the toolbar's database."""
    with mock.patch(f"{PANEL.rpartition('.')[0]}.MemoryStore", type("AnotherStore", (), {})):
        response = Client().get("/stream/1234/")
        response.close()
    assert outcomes(response) == {"1234collectPayment": "held"}


def test_forgotten_request_stays_forgotten() -> None:
    """The toolbar keeps the latest requests only."""
    from debug_toolbar.store import MemoryStore

    response = Client().get("/stream/1234/")
    MemoryStore.clear()
    response.close()
    assert not MemoryStore.exists(response["djdt-request-id"])


def test_loss_and_forgotten_release_are_shown() -> None:
    """What a request leaves behind is released when it ends."""
    with pytest.warns(ResourceWarning, match="kept"):
        response = Client().get("/loses/")
    assert outcomes(response) == {"lost": "lost", "kept": "released_later"}
    [lost, _] = stored(response)["locks"]
    assert "an operator took it away" in lost["reason"]
    assert "an operator took it away" in shown(response)


def test_lock_of_a_rolled_back_transaction_is_shown_once() -> None:
    """Its second block takes the lock back; the background thread releases it."""
    response = Client().get("/rolls-back/")
    finish_background_work()
    assert list(outcomes(response)) == ["report"]
    assert outcomes(response)["report"].startswith("released")


def test_panel_that_is_off_records_nothing() -> None:
    """By its checkbox, which sets a cookie."""
    from django_distlock.integrations import debug_toolbar

    client = Client()
    client.cookies["djdtLocksPanel"] = "off"
    with mock.patch.object(debug_toolbar, "stack_of_caller") as stack:
        response = client.get("/class/1234/")
        assert acquire_lock("outside a request")
    assert not stack.called
    assert stored(response) == {}
    assert debug_toolbar.held_locks == {}


def test_locks_outside_requests_are_not_recorded() -> None:
    """Neither are losses and refusals; though the panel listens, and may be told to twice."""
    from django_distlock.integrations import debug_toolbar

    debug_toolbar.LocksPanel.ready()
    lost = acquire("default")
    assert elsewhere(lambda: acquire_lock("1234collectPayment")) is None
    take_away(lost)
    assert not lost.release()
    assert debug_toolbar.held_locks == {}


def test_failing_stack_harms_nobody() -> None:
    """A lock doesn't depend on what the toolbar does with frames."""
    with mock.patch(f"{PANEL.rpartition('.')[0]}.get_stack_trace", side_effect=ValueError):
        response = Client().get("/class/1234/")
    [lock] = stored(response)["locks"]
    assert (lock["outcome"], lock["stack"]) == ("released", "")


def test_held_locks_are_bounded() -> None:
    """The end of some is never seen."""
    from django_distlock.integrations import debug_toolbar

    with mock.patch.object(debug_toolbar, "MOST_HELD", 0):
        response = Client().get("/stream/1234/")
        assert debug_toolbar.held_locks == {}
    response.close()
    assert outcomes(response) == {"1234collectPayment": "held"}


def test_how_to_adds_the_panel() -> None:
    """To those that the toolbar has."""
    assert (
        example("integrations/debug-toolbar.md", "Add the panel").DEBUG_TOOLBAR_PANELS[-1] == PANEL
    )


@pytest.mark.needs("chromium")
def test_page_shows_the_panel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wide and light, narrow and dark. DISTLOCK_SCREENSHOTS=1 takes the how-to's picture."""
    monkeypatch.setattr(
        "django_distlock.leases.request.describe_process", lambda pid: "web-2 pid 7"
    )
    other = elsewhere(lambda: acquire("default", "invoices:2026-11", label="invoices.tasks.build"))
    server = LiveServer("localhost")
    with opened_page() as page:
        for width, theme in ((1280, "light"), (390, "dark")):
            page.set_viewport_size({"width": width, "height": 420})
            page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
            page.goto(f"{server.url}/collect/1234/")
            page.locator("#djdt-LocksPanel a").click()
            page.get_by_text("contended").wait_for()
            if os.environ.get("DISTLOCK_SCREENSHOTS") and theme == "light":
                page.screenshot(path=ROOT / "docs" / "images" / "debug-toolbar.png")
            page.locator("#distlockMain_1 .djToggleSwitch").click()
            page.get_by_text("<customer_id>collectPayment").wait_for()
    server.stop()
    assert other.release()
