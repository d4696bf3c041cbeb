"""The example shows what it says: payments collected twice without the lock, once with it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing, contextmanager
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.support.browser import TIMEOUT, opened_page
from tests.support.children import tied
from tests.support.paths import ROOT
from tests.support.redis_servers import connect

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Page

    from tests.support.servers import Server

CUSTOMERS, REQUESTS = 3, 8


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Copy the example without the database that running it has left."""
    ignored = shutil.ignore_patterns("*.sqlite3*", "__pycache__")
    return shutil.copytree(ROOT / "example_project", tmp_path / "example", ignore=ignored)


@contextmanager
def manage(project: Path, *arguments: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """Run one of the example's commands, and stop what still runs at the end of the block."""
    process = subprocess.Popen(
        tied([sys.executable, "manage.py", *arguments]),
        cwd=project,
        env=os.environ
        | {
            "DJANGO_SETTINGS_MODULE": "example.settings",
            "PYTHONPATH": str(ROOT),
            "PYTHONUTF8": "1",
            "COLUMNS": "120",
            "REDIS_URL": "",  # What the developer may have is left alone.
        }
        | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if "PATH" in environment else None,
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


def rows_of_locks(project: Path) -> int:
    """Count the semaphores that were ever used in the example's database."""
    with closing(sqlite3.connect(project / "example.sqlite3")) as database:
        [(number,)] = database.execute("SELECT COUNT(*) FROM django_distlock_lock")
    return int(number)


def assert_nothing_runs(project: Path, *servers: str) -> None:
    """Check that no process of the example is left, nor one in whose command such a server is."""
    left = [
        process.info["cmdline"]
        for process in psutil.process_iter(["cwd", "cmdline"])
        if process.info["cwd"] == str(project)
        or any(server in " ".join(process.info["cmdline"] or ()) for server in servers)
    ]
    assert left == []


def address_in(url: str) -> str:
    """Return the host and port, as redis-server has them in its command."""
    return url.rpartition("/")[2]


@pytest.mark.needs("example")
def test_race_collects_twice_only_without_the_lock(project: Path) -> None:
    """`manage.py race` counts customers who paid twice without the lock, and none with it."""
    told = run_race(project)
    assert "Locks are kept" not in told
    assert rows_of_locks(project) == CUSTOMERS


@pytest.mark.once
@pytest.mark.needs("example", "redis")
def test_race_starts_a_redis_server_and_stops_it(project: Path) -> None:
    """`manage.py race --store redis`: the same, and no lock was in the database."""
    told = run_race(project, "--store=redis")
    [url] = re.findall(r"^Locks are kept in Redis, at (\S+)$", told, re.MULTILINE)
    assert_nothing_runs(project, address_in(url))
    assert rows_of_locks(project) == 0


@pytest.mark.once
@pytest.mark.needs("example")
def test_race_starts_a_lock_server_and_stops_it(project: Path) -> None:
    """`manage.py race --store server`: likewise."""
    told = run_race(project, "--store=server")
    [path] = re.findall(r"^Locks are kept in a lock server, at unix:(\S+)$", told, re.MULTILINE)
    assert_nothing_runs(project, path)
    assert not Path(path).parent.exists()
    assert rows_of_locks(project) == 0


@pytest.mark.once
@pytest.mark.needs("example")
def test_lock_server_that_does_not_start_says_why(project: Path) -> None:
    """As in a directory whose path is too long for a socket; and nothing is begun."""
    directory = project / ("long" * 25)
    directory.mkdir()
    with manage(project, "race", "--store=server", PATH="", TMPDIR=str(directory)) as process:
        told, error = process.communicate(timeout=TIMEOUT)
    assert (process.returncode, told) == (1, "")
    assert error.startswith(
        f"CommandError: The lock server did not start.\nCommandError: '{directory}"
    )
    assert [*directory.iterdir()] == []
    assert not (project / "example.sqlite3").exists()


@pytest.fixture
def empty_redis(servers: dict[str, Server]) -> Iterator[dict[str, str]]:
    """Return what leads to an empty database of a Redis server that is there already."""
    number, place = 9, servers["redis"].settings
    with connect(servers["redis"], number) as client:
        client.flushdb()
        yield {"REDIS_URL": f"redis://:@{place['HOST']}:{place['PORT']}/{number}"}
        client.flushdb()


@pytest.mark.once
@pytest.mark.needs("example", "redis")
def test_race_uses_the_redis_server_that_it_is_given(
    project: Path, empty_redis: dict[str, str], servers: dict[str, Server]
) -> None:
    """REDIS_URL says which, and is shown without its password; no other one is started."""
    told = run_race(project, "--store=redis", **empty_redis)
    assert f"Locks are kept in Redis, at {empty_redis['REDIS_URL'].replace(':@', '')}\n" in told
    with connect(servers["redis"], 9) as client:
        tokens = client.keys("example:distlock:{*collectPayment}:token")
    assert len(tokens) == CUSTOMERS
    assert rows_of_locks(project) == 0


@pytest.mark.once
@pytest.mark.needs("example", "redis")
@pytest.mark.parametrize(
    ("command", "environment", "message"),
    [
        (
            "race",
            {"PATH": ""},
            "There is no redis-server: apt install redis-server, or set REDIS_URL.",
        ),
        (
            "race",
            {"PATH": "", "REDIS_URL": "redis://127.0.0.1:1"},
            (
                "REDIS_URL leads to no Redis that answers: "
                "Error 111 connecting to 127.0.0.1:1. Connection refused."
            ),
        ),
        (
            "demo",
            {"PATH": "", "PYTHONPATH": "without"},
            "--store redis needs a package: pip install django-redis.",
        ),
    ],
    ids=["no server", "none that answers", "no package"],
)
def test_missing_redis_is_told_in_one_line(
    project: Path, command: str, environment: dict[str, str], message: str
) -> None:
    """What to install or set; and nothing is begun."""
    if "PYTHONPATH" in environment:
        (project / "without" / "django_redis.py").parent.mkdir()
        (project / "without" / "django_redis.py").write_text("raise ImportError")
        path = os.pathsep.join([str(project / "without"), str(ROOT)])
        environment = environment | {"PYTHONPATH": path}
    with manage(project, command, "--store=redis", **environment) as process:
        told, error = process.communicate(timeout=TIMEOUT)
    assert (process.returncode, told, error) == (1, "", f"CommandError: {message}\n")
    assert not (project / "example.sqlite3").exists()


def run_race(project: Path, *options: str, **environment: str) -> str:
    """Check that the race shows what it should, and return what it printed."""
    options = (f"--customers={CUSTOMERS}", f"--requests={REQUESTS}", "--workers=3", *options)
    with manage(project, "race", *options, **environment) as process:
        table, _ = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0, table

    requests, once, more, refused = figures(table, "without the lock")
    assert (requests, once + more, refused) == (CUSTOMERS * REQUESTS, CUSTOMERS, 0)
    assert more >= 1

    requests, once, more, refused = figures(table, "with the lock")
    assert (requests, once, more) == (CUSTOMERS * REQUESTS, CUSTOMERS, 0)
    assert 1 <= refused <= requests - once
    return table


def run_pause(project: Path, store: str) -> None:
    """Check that a paused worker's late write is refused, by its row's fence."""
    with manage(project, "race", "--pause", "--store", store) as process:
        told, _ = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0, told
    first, second = map(int, re.findall(r"holds 1collectPayment, token (\d+)", told))
    assert first < second
    assert re.search(rf"payments\.Invoice with pk 1 was not written: .* token {second}", told), told
    assert f"its row has the fence {second}; collected 1 time(s)" in told


@pytest.mark.once
@pytest.mark.needs("example")
def test_paused_workers_late_write_is_refused(project: Path) -> None:
    """`manage.py race --pause` stops a real worker beyond its lease; its invoice says no.

    With a lock server, too: other stores' tokens are forgotten. Those of a server whose clock was
    ahead would else refuse the next race's writes.
    """
    run_pause(project, "server")
    assert rows_of_locks(project) == 0
    with closing(sqlite3.connect(project / "example.sqlite3")) as database, database:
        database.execute("UPDATE payments_invoice SET fence = 1 << 60")
    run_pause(project, "database")
    assert rows_of_locks(project) == 1


@contextmanager
def demo_on(store: str, project: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run `manage.py demo` until the site is served; return it, and where the locks are."""
    with manage(project, "demo", "--port=0", f"--store={store}") as process:
        assert process.stdout is not None
        told = "".join(takewhile(lambda line: not line.startswith("Stop"), process.stdout))
        [site] = re.findall(r"^The site: +(http://127.0.0.1:\d+/)$", told, re.MULTILINE)
        [place] = re.findall(r"^Locks: +(\S+) \(the admin lists", told, re.MULTILINE)
        assert b" 200 OK" in ask(site, b"GET / HTTP/1.0\r\n\r\n")
        yield process, place


@pytest.mark.once
@pytest.mark.needs("example", "redis")
def test_site_and_its_redis_server_end_together_at_sigterm(project: Path) -> None:
    """`manage.py demo --store redis` says where the locks are, and leaves nothing behind."""
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
    """Return the beginning of what a server that the example started answers."""
    port = int(address.rstrip("/").rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), TIMEOUT) as connection:
        connection.sendall(request)
        return connection.recv(1000)


@contextmanager
def demo(project: Path) -> Iterator[str]:
    """Serve the example as `manage.py demo` does, on a port that it takes itself."""
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
    """Race with the lock, which one request must win; tell whether it had to refuse another."""
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
        page.get_by_role("heading", name="Select lock to view").wait_for()
        page.get_by_role("link", name="released", exact=True).click()
        page.get_by_role("link", name="1collectPayment", exact=True).wait_for()
