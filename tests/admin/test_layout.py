"""The admin's pages in a browser: nothing is cut off, in a window or on a phone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from django.contrib.auth.models import User

from django_distlock.models import Lock
from tests.support.browser import opened_page

if TYPE_CHECKING:
    from playwright.sync_api import Page
    from pytest_django.live_server_helper import LiveServer

LIST = "/admin/distlock/lock/"
HOLDER = "build invoice PDF (worker-17.internal.example.org pid 24804 ThreadPoolExecutor-0_3)"
SEMAPHORE = "invoices:2026-11:customer-000000000004711:build-and-send-by-mail"
# Elements of the list whose content is wider than its visible part.
CUT_OFF = """
[...document.querySelectorAll(".results, .results *")]
    .filter(each => getComputedStyle(each).display != "inline")
    .filter(each => each.scrollWidth > each.clientWidth)
    .map(each => `${each.tagName}.${each.className}: ${each.scrollWidth} > ${each.clientWidth}`)
"""
COLOURS = """
[...document.querySelectorAll(".distlock-state")].map(each => {
    const style = getComputedStyle(each);
    return [each.textContent, style.color, style.backgroundColor];
})
"""


@pytest.fixture
def address(live_server: LiveServer) -> str:
    """Write locks in all states, with realistic names; return the admin's address."""
    now, minute = datetime.now(UTC), timedelta(minutes=1)
    User.objects.create_superuser("demo", password="demo")
    for state, owner, ends in (("held", "x", 10), ("stale", "x", -10), ("released", "", -10)):
        Lock.objects.create(
            semaphore=f"{SEMAPHORE}:{state}",
            owner=owner,
            token=1795433949044000,
            holder=HOLDER,
            acquired_at=now - 60 * minute,
            expires_at=now + ends * minute,
        )
    return str(live_server.url)


def sign_in(page: Page, address: str) -> None:
    """Sign in, with the navigation closed, and go to the list of all locks."""
    page.goto(f"{address}{LIST}")
    page.get_by_label("Username").fill("demo")
    page.get_by_label("Password").fill("demo")
    page.get_by_role("button", name="Log in").click()
    page.goto(f"{address}{LIST}?state=all")


@pytest.mark.once
@pytest.mark.needs("chromium")
@pytest.mark.django_db(transaction=True, databases="__all__")
def test_nothing_is_cut_off_and_states_differ_in_colour(address: str) -> None:
    """At both widths, in both themes, which have colours of their own."""
    seen: set[tuple[str, ...]] = set()
    with opened_page() as page:
        sign_in(page, address)
        for width in (1280, 390):
            page.set_viewport_size({"width": width, "height": 800})
            for theme in ("light", "dark"):
                page.emulate_media(color_scheme=theme)
                assert page.evaluate(CUT_OFF) == []
                shown = page.evaluate(COLOURS)
                assert [word for word, *_ in shown] == ["held", "released", "stale"]
                assert len({tuple(colours) for _, *colours in shown}) == 3
                seen |= {tuple(each) for each in shown}
                for text in (HOLDER, "10m"):
                    assert page.get_by_text(text).first.is_visible()
    assert len(seen) == 3 * 2
