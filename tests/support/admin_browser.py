"""An operator's browser at the admin's pages of locks."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING
from unittest import mock

from django.conf import settings
from django.test import Client, override_settings
from pytest_django.live_server_helper import LiveServer

from django_distlock.admin import LockAdmin
from tests.support.admin_pages import LIST
from tests.support.browser import opened_page
from tests.support.strict_policy import strict_policy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Locator, Page

POLICY = f"{strict_policy.__module__}.{strict_policy.__qualname__}"
FOCUSED = "element => element === document.activeElement"
OUTLINE = "element => getComputedStyle(element).outlineStyle"
TABS = 80
"""How often a keyboard's user would press Tab at most."""


@contextmanager
def strict_site() -> Iterator[str]:
    """Serve the site with a strict Content-Security-Policy; pages refresh themselves soon."""
    middleware = [POLICY, *settings.MIDDLEWARE]
    with (
        override_settings(MIDDLEWARE=middleware),
        mock.patch.object(LockAdmin, "refresh_seconds", 0.2),
    ):
        server = LiveServer("localhost")
        try:
            yield server.url
        finally:
            server.stop()


@contextmanager
def signed_in(client: Client, address: str, *expected: str) -> Iterator[Page]:
    """Open the browser of a user who has signed in. See opened_page()."""
    session = client.cookies[settings.SESSION_COOKIE_NAME].value
    with opened_page(*expected) as page:
        page.context.add_cookies([{"name": "sessionid", "value": session, "url": address}])
        page.goto(f"{address}{LIST}")
        yield page


def tab_to(page: Page, target: Locator) -> None:
    """Press Tab until the control has the focus, which must be visible."""
    target.wait_for()
    for _ in range(TABS):
        page.keyboard.press("Tab")
        if target.evaluate(FOCUSED):
            assert target.evaluate(OUTLINE) != "none"
            return
    raise AssertionError(f"{target} can't be reached by the keyboard")


def refreshed(page: Page) -> None:
    """Wait until the page has refreshed itself once more."""
    controls = "document.querySelector('[data-distlock-refresh]').dataset"
    seen = page.evaluate(f"{controls}.refreshes")
    page.wait_for_function(f"seen => {controls}.refreshes !== seen", arg=seen)
