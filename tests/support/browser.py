"""A page in a browser, which must have no errors."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.support.installed import find_chromium

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from playwright.sync_api import ConsoleMessage, Page

TIMEOUT = 120
BROWSER_OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@contextmanager
def opened_page(*expected: str) -> Iterator[Page]:  # pragma: no cover - see below
    """Open a browser, and fail if its page has reported an error that isn't expected.

    Until it is closed an event loop runs in this thread, where Django allows no queries. Playwright
    switches between greenlets: measuring in these, too, would slow down every other test.
    """
    from playwright.sync_api import sync_playwright

    complaints: list[str] = []
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(
            executable_path=find_chromium(), args=BROWSER_OPTIONS
        ) as browser,
    ):
        page = browser.new_page(locale="en")
        page.set_default_timeout(TIMEOUT * 1000)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: complaints.extend(complaint(message, expected)))
        yield page
    assert complaints == [], complaints


def complaint(message: ConsoleMessage, expected: Iterable[str]) -> list[str]:
    """Return the error, if it is one: 409 is the answer for the losers of a race.

    A missing icon is no error, either.
    """
    texts = ("status of 409", *expected)
    is_expected = "/favicon.ico" in message.location["url"] or any(
        text in message.text for text in texts
    )
    is_wrong = message.type == "error" and not is_expected
    return [f"{message.location['url']}: {message.text}"] if is_wrong else []
