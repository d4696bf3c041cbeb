"""The example shows what it says: payments collected twice without the lock, once with it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.processes import ROOT
from tests.servers import find_chromium

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import ConsoleMessage, Page

CUSTOMERS, REQUESTS = 6, 8
TIMEOUT = 120
BROWSER_OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Copy the example without the database that running it has left."""
    ignored = shutil.ignore_patterns("*.sqlite3*", "__pycache__")
    return shutil.copytree(ROOT / "example_project", tmp_path / "example", ignore=ignored)


@contextmanager
def manage(project: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run one of the example's commands, and stop what still runs at the end of the block."""
    process = subprocess.Popen(
        [sys.executable, "manage.py", *arguments],
        cwd=project,
        env=os.environ
        | {
            "DJANGO_SETTINGS_MODULE": "example.settings",
            "PYTHONPATH": str(ROOT),
            "PYTHONUTF8": "1",
            "COLUMNS": "120",
        },
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=TIMEOUT)


def figures(table: str, row: str) -> list[int]:
    """Return the numbers in the row of the race's table that starts with these words."""
    (line,) = re.findall(rf"^\W*{row}\W.*$", table, re.MULTILINE)
    return [int(number) for number in re.findall(r"\d+", line)]


@pytest.mark.needs("example")
def test_race_collects_twice_only_without_the_lock(project: Path) -> None:
    """`manage.py race` counts customers who paid twice without the lock, and none with it."""
    options = (f"--customers={CUSTOMERS}", f"--requests={REQUESTS}", "--workers=3")
    with manage(project, "race", *options) as process:
        table, _ = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0, table

    requests, once, more, refused = figures(table, "without the lock")
    assert (requests, once + more, refused) == (CUSTOMERS * REQUESTS, CUSTOMERS, 0)
    assert more >= 1

    requests, once, more, refused = figures(table, "with the lock")
    assert (requests, once, more) == (CUSTOMERS * REQUESTS, CUSTOMERS, 0)
    assert 1 <= refused <= requests - once


@pytest.mark.needs("example")
def test_paused_workers_late_write_is_refused(project: Path) -> None:
    """`manage.py race --pause` stops a real worker beyond its lease; its invoice says no."""
    with manage(project, "race", "--pause") as process:
        told, _ = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0, told
    first, second = map(int, re.findall(r"holds 1collectPayment, token (\d+)", told))
    assert first < second
    assert re.search(rf"payments\.Invoice with pk 1 was not written: .* token {second}", told), told
    assert f"its row has the fence {second}; collected 1 time(s)" in told


@contextmanager
def demo(project: Path) -> Iterator[str]:
    """Serve the example as `manage.py demo` does, on a port that it takes itself."""
    with manage(project, "demo", "--port=0") as process:
        assert process.stdout is not None
        yield next(line for line in process.stdout if line.startswith("The site:")).split()[-1]
    assert process.returncode == 0


@pytest.fixture
def page() -> Iterator[Page]:
    """Open a browser whose page must not have anything to complain of.

    Until it is closed an event loop runs in this thread, where Django allows no queries.
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
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: complaints.extend(complaint(message)))
        yield page
    assert complaints == []


def complaint(message: ConsoleMessage) -> list[str]:
    """Return what is wrong, if anything: 409 is what the losers of a race are answered."""
    is_wrong = message.type == "error" and "status of 409" not in message.text
    return [f"{message.location['url']}: {message.text}"] if is_wrong else []


def sign_in(page: Page) -> None:
    """Sign in with the login that `manage.py demo` prints."""
    page.get_by_role("navigation").get_by_role("link", name="Sign in").click()
    page.get_by_label("Username").fill("demo")
    page.get_by_label("Password").fill("demo")
    page.get_by_role("button", name="Log in").click()


def race(page: Page, side: str) -> str:
    """Press a button of the race, wait for all its answers, and return the verdict."""
    page.get_by_role("button", name=f"Race {side} the lock").click()
    page.locator("#answers[aria-busy=false]").wait_for()
    assert page.locator("#answers li").count() == REQUESTS
    return page.locator("#verdict").inner_text()


@pytest.mark.needs("chromium", "example")
def test_site_shows_the_race_and_the_locks(project: Path, page: Page) -> None:
    """In a browser the race is lost without the lock and won with it; the admin lists locks."""
    with demo(project) as address:
        page.goto(address)
        sign_in(page)
        page.get_by_label("Requests").fill(str(REQUESTS))

        verdict = race(page, "without")
        assert re.match(r"Collected ([2-9]|\d\d) times without the lock", verdict), verdict
        assert page.locator("#answers .wrong").count() >= 1

        verdict = race(page, "with")
        assert verdict.startswith("Collected once with the lock")
        assert page.locator("#answers .collected").count() == 1
        assert page.locator("#answers .wrong").count() == 0
        assert page.locator("#answers .busy").count() >= 1

        page.get_by_role("link", name="Held locks").click()
        page.get_by_role("heading", name="Select lock to view").wait_for()
        page.get_by_role("link", name="released", exact=True).click()
        page.get_by_role("link", name="1collectPayment", exact=True).wait_for()
