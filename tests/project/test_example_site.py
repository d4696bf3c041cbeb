"""The example's site, which `manage.py demo` serves, in a browser and when it is stopped."""

from __future__ import annotations

import re
import signal
import socket
import stat
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.browser import TIMEOUT, opened_page
from tests.support.example import REQUESTS, address_in, assert_nothing_runs, manage

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

    from playwright.sync_api import Page


@contextmanager
def demo_on(store: str, project: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run `manage.py demo` until the site is served; return its URL and the locks' place."""
    with manage(project, "demo", "--port=0", f"--store={store}") as process:
        assert process.stdout is not None
        output = "".join(takewhile(lambda line: not line.startswith("Stop"), process.stdout))
        [site] = re.findall(r"^The site: +(http://127.0.0.1:\d+/)$", output, re.MULTILINE)
        [place] = re.findall(r"^Locks: +(\S+)$", output, re.MULTILINE)
        assert b" 200 OK" in ask(site, b"GET / HTTP/1.0\r\n\r\n")
        yield process, place


@pytest.mark.once
@pytest.mark.needs("example", "redis")
def test_site_and_its_redis_server_end_together_at_sigterm(project: Path) -> None:
    """`manage.py demo --store redis` prints the locks' place, and leaves nothing running."""
    with demo_on("redis", project) as (process, url):
        assert ask(url, b"PING\r\n") == b"+PONG\r\n"
        process.terminate()
        assert process.wait(TIMEOUT) == 128 + signal.SIGTERM
        assert_nothing_runs(project, address_in(url))


@pytest.mark.once
@pytest.mark.needs("example")
def test_site_and_its_lock_server_end_together_at_ctrl_c(project: Path) -> None:
    """`manage.py demo --store server` likewise; nobody else can read the server's secret."""
    with demo_on("server", project) as (process, place):
        path = place.removeprefix("unix:")
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(path)
            assert connection.recv(1000).startswith(b'{"distlock":1,')
        assert stat.S_IMODE(Path(path).with_name("secret").stat().st_mode) == 0o600
        process.send_signal(signal.SIGINT)
        assert process.wait(TIMEOUT) == 0
        assert_nothing_runs(project, path)
        assert not Path(path).parent.exists()


def ask(address: str, request: bytes) -> bytes:
    """Return the beginning of the answer of a server that the example started."""
    port = int(address.rstrip("/").rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), TIMEOUT) as connection:
        connection.sendall(request)
        return connection.recv(1000)


@contextmanager
def demo(project: Path) -> Iterator[str]:
    """Serve the example as `manage.py demo` does, on a free port."""
    with manage(project, "demo", "--port=0") as process:
        assert process.stdout is not None
        yield next(line for line in process.stdout if line.startswith("The site:")).split()[-1]
    assert process.returncode == 0


@pytest.fixture
def page() -> Iterator[Page]:
    """Open a browser."""
    with opened_page() as page:
        yield page


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


def is_won_by_one_of_several(page: Page) -> bool:
    """Race with the lock, which one request must win; return whether another was refused."""
    verdict = race(page, "with")
    assert verdict.startswith("Collected once with the lock")
    assert page.locator("#answers .collected").count() == 1
    assert page.locator("#answers .wrong").count() == 0
    return page.locator("#answers .busy").count() >= 1


@pytest.mark.once
@pytest.mark.needs("chromium", "example")
def test_site_shows_the_race_and_the_locks(project: Path, page: Page) -> None:
    """In a browser the race is lost without the lock and won with it; the admin lists locks."""
    with demo(project) as address:
        page.goto(address)
        sign_in(page)
        page.get_by_label("Requests").fill(str(REQUESTS))

        # On a busy machine requests may come one after the other by chance.
        verdicts = (race(page, "without") for _ in range(10))
        lost = re.compile(r"Collected ([2-9]|\d\d) times without the lock")
        assert any(map(lost.match, verdicts))
        assert page.locator("#answers .wrong").count() >= 1
        assert any(is_won_by_one_of_several(page) for _ in range(10))

        page.get_by_role("link", name="Held locks").click()
        page.get_by_role("heading", name="Locks").wait_for()
        page.get_by_text("Nobody holds a lock in this store.").wait_for()
        page.goto("about:blank")  # or else the list would ask for itself when the site has stopped
