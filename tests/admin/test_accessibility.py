"""The admin's pages of locks for everybody: axe-core, narrow windows, light and dark.

With DISTLOCK_SCREENSHOTS=1 it takes the pictures that README.md and docs/reference/admin.md show.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
from axe_playwright_python.sync_playwright import Axe

from django_distlock.models import LockEvent
from django_distlock.records import Pause, WaiterInfo
from tests.support.admin_browser import signed_in, strict_site
from tests.support.admin_pages import BOTH, LIST, lock_page, log_in
from tests.support.paths import ROOT
from tests.support.shown_stores import (
    HOUR,
    NOW,
    SECOND,
    RedisBackend,
    Shown,
    a_lock,
    a_stale_lock,
    shown_store,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Page

pytestmark = [
    pytest.mark.once,
    pytest.mark.needs("chromium"),
    pytest.mark.django_db(transaction=True, databases=["default"]),
]

STUCK = "invoices:2026-11:customer-4711:build-and-send"
STORES: dict[str, Any] = {
    "default": {"BACKEND": "django_distlock.backends.database.DatabaseBackend"},
    "sessions": {"BACKEND": "tests.app.backends.MinimalBackend"},
    "old": {"BACKEND": "tests.app.backends.NoBackend"},
}
PICTURES = {
    "admin-light",
    "admin-dark",
    "admin-light-390",
    "admin-dark-390",
    "admin-confirm-light",
    "admin-confirm-dark",
    "admin-lock-light",
    "admin-lock-dark",
}
CUT_OFF = """
[...document.querySelectorAll(".distlock *")]
    .filter(each => !["inline", "none"].includes(getComputedStyle(each).display))
    .filter(each => !each.closest(".distlock-hidden") && !each.closest("thead"))
    .filter(each => each.scrollWidth > each.clientWidth + 1)
    .map(each => `${each.tagName}.${each.className}: ${each.scrollWidth} > ${each.clientWidth}`)
"""
SIDEWAYS = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
COLOURS = """
[...document.querySelectorAll("tr .distlock-state")].map(each => {
    const style = getComputedStyle(each);
    return [each.textContent, style.color, style.backgroundColor];
})
"""


@pytest.fixture
def redis() -> Iterator[Shown]:
    """Show a Redis server's locks in all states, with realistic names."""
    with shown_store("redis", RedisBackend, events=True, **STORES) as store:
        never, token = {"renewed_at": None}, 1796006054951302
        worker = "worker-17.eu.example.org pid 24804 ThreadPoolExecutor-0_3"
        store.locks = [
            a_lock(
                "1234collectPayment",
                token=token + 411_702,
                holder="payments.views.collect (web-2 pid 311 Thread-4)",
                acquired_at=NOW - 12 * SECOND,
                expires_at=NOW + 48 * SECOND,
                waiting=1,
                **never,
            ),
            a_stale_lock("import:products", holder="import_products (worker-3 pid 991 MainThread)"),
            a_lock(STUCK, token=token + 9, holder=f"invoices.tasks.build ({worker})", waiting=3),
            a_lock(
                "reports:nightly",
                token=token - 88_001,
                holder="web-1 pid 88 MainThread",
                acquired_at=NOW - 9 * HOUR,
                expires_at=None,
                waiting=0,
                **never,
            ),
            a_lock(
                "sync:crm",
                token=token + 77,
                holder="crm.tasks.sync (worker-4 pid 12 MainThread)",
                acquired_at=NOW - 21 * SECOND,
                expires_at=NOW + 39 * SECOND,
                kept=True,
                waiting=0,
                **never,
            ),
            a_lock(
                "thumbnails:88123",
                token=token + 12_345,
                holder="media.tasks.resize (worker-9 pid 40 MainThread)",
                acquired_at=NOW - 245 * SECOND,
                renewed_at=NOW - 53 * SECOND,
                expires_at=NOW + 7 * SECOND,
                waiting=0,
            ),
        ]
        store.waiters = [
            WaiterInfo(f"invoices.tasks.build (worker-{number} pid 7 MainThread)", NOW - SECOND)
            for number in (2, 5, 11)
        ]
        store.pauses = [
            Pause("deploy:", NOW - 60 * SECOND, NOW + 540 * SECOND, "release 2026.11", "alice")
        ]
        record_past(token)
        yield store


def record_past(token: int) -> None:
    """Record what happened to the stuck lock before."""
    kinds = ["released", "released", "lost", "released", "contended", "released"]
    for number, kind in enumerate(kinds):
        waited = 900_000 * number
        held = None if kind == "contended" else 1_700_000 * (7 - number)
        at = NOW - 3 * HOUR + 60 * number * SECOND
        known: dict[str, Any] = {
            "backend": "redis",
            "semaphore": STUCK,
            "holder": f"invoices.tasks.build (worker-{number + 3} pid 7 MainThread)",
            "token": None if kind == "contended" else token - 6 + number,
        }
        if kind != "contended":
            LockEvent.objects.create(kind="acquired", at=at, waited=waited, **known)
        LockEvent.objects.create(kind=kind, at=at + 20 * SECOND, waited=waited, held=held, **known)


def faults(page: Page) -> list[str]:
    """Return the serious and critical faults that axe-core finds, in the part that is ours."""
    results = Axe().run(page, context="#content-main")
    violations: list[dict[str, Any]] = results.response["violations"]
    return [
        f"{each['id']}: {node['html']}"
        for each in violations
        if each["impact"] in {"serious", "critical"}
        for node in each["nodes"]
    ]


def picture(page: Page, name: str) -> None:
    """Take a picture that a document shows, if that is asked for."""
    if os.environ.get("DISTLOCK_SCREENSHOTS") and name in PICTURES:
        page.screenshot(path=ROOT / "docs" / "images" / f"{name}.png", full_page=True)


def test_pages_have_no_serious_fault_and_fit(redis: Shown) -> None:
    """Each page, wide and narrow, light and dark, under a strict Content-Security-Policy."""
    client = log_in(*BOTH)
    colours: set[tuple[str, ...]] = set()
    with strict_site() as address, signed_in(client, address) as page:
        for width in (1280, 390):
            page.set_viewport_size({"width": width, "height": 800})
            for theme in ("light", "dark"):
                page.emulate_media(color_scheme=theme)
                for name, path in {
                    "admin": LIST,
                    "admin-lock": lock_page("redis", STUCK),
                    "admin-confirm": "",
                    "": f"{LIST}?store=sessions",
                    " ": f"{LIST}?store=old",
                }.items():
                    if path:
                        page.goto(f"{address}{path}")
                    else:
                        page.get_by_role("button", name="Force-release").click()
                        page.get_by_role("button", name="Yes").wait_for()
                    assert faults(page) == []
                    assert page.evaluate(CUT_OFF) == []
                    assert page.evaluate(SIDEWAYS) == 0
                    colours |= {tuple(each) for each in page.evaluate(COLOURS)}
                    picture(page, f"{name}-{theme}{'' if width == 1280 else '-390'}")
    assert len({tuple(rest) for _, *rest in colours}) == len(colours) == 3 * 2


def test_words_of_other_languages_fit(redis: Shown, settings: Any) -> None:
    """They are longer: no column is cut off, and no page scrolls sideways."""
    client = log_in(*BOTH)
    with strict_site() as address, signed_in(client, address) as page:
        for language in ("de", "fr"):
            settings.LANGUAGE_CODE = language
            for width in (1280, 390):
                page.set_viewport_size({"width": width, "height": 800})
                for path in (LIST, lock_page("redis", STUCK)):
                    page.goto(f"{address}{path}")
                    assert page.locator("html").get_attribute("lang") == language
                    assert page.evaluate(CUT_OFF) == []
                    assert page.evaluate(SIDEWAYS) == 0
