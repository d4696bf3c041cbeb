"""Locked views under the servers that sites run: their workers, threads, reloads and timeouts."""

from __future__ import annotations

import http.client
import socket
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from django_distlock import acquire_lock, lock_backends
from tests.support.concurrency import until
from tests.support.databases import DATABASES, committed, on_each_server, sessions
from tests.support.web_servers import DROPPED, HOST, Site

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [committed, pytest.mark.once]


SQLITE, POSTGRESQL, MARIADB = DATABASES


def site_of(server: str, name: str, database: Any) -> Any:
    """Return the parameters of a test on such a site."""
    return pytest.param(server, *database.values, marks=database.marks, id=f"{server}-{name}")


# Each server, and each database with processes, threads or async code.
@pytest.mark.parametrize(
    ("web_server", "alias"),
    [
        site_of("sync", "mariadb", MARIADB),
        site_of("gthread", "sqlite", SQLITE),
        site_of("gthread", "postgresql", POSTGRESQL),
        site_of("uvicorn", "postgresql", POSTGRESQL),
        site_of("uvicorn", "mariadb", MARIADB),
    ],
)
def test_locked_view_loses_no_increment_and_a_reload_leaks_nothing(
    web_server: str, alias: str, tmp_path: Path
) -> None:
    """With two workers and eight clients, and while the server reloads; all answers are right.

    Under Uvicorn it is an async view.
    """
    assert [*lock_backends[alias].held()] == []  # this process has a session for that from now on
    sessions_before = sessions(alias)
    with Site(web_server, tmp_path, DISTLOCK_TEST_SERVED=alias) as site:
        # A new connection each: keep-alive connections may all belong to one worker.
        assert site.load(site.view, 200, Connection="close") == {200: 200}
        assert site.counter.read_text() == "200"

        until(site.is_idle)
        old = site.states()
        answers = site.load_and_reload(site.view, 300)
        # A dropped request has not been handled.
        assert answers.keys() <= {200, DROPPED}
        assert answers[200] == 300
        assert site.counter.read_text() == "500"

        until(lambda: not any(map(psutil.pid_exists, old)))
        until(site.is_idle)
        assert [*lock_backends[alias].held()] == []
        until(lambda: sessions(alias) <= sessions_before)
        threads = {tuple(state["threads"]) for state in site.states().values()}
        assert threads == {tuple(state["threads"]) for state in old.values()}


@pytest.mark.parametrize("web_server", ["sync", "gthread", "uvicorn"])
def test_client_that_sends_slowly_keeps_nobody_out(web_server: str, tmp_path: Path) -> None:
    """It gets no lock before it has sent all. Under Uvicorn, Django calls no view before that."""
    with Site(web_server, tmp_path, DISTLOCK_TEST_SERVED="default") as site:
        body = b"12345678"
        head = f"POST /receive/ HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {len(body)}\r\n\r\n"
        with socket.create_connection((HOST, site.port), 60) as slow:
            slow.sendall(head.encode() + body[:1])
            if web_server != "uvicorn":
                until((tmp_path / "announced").exists)
            for _ in range(20):
                assert site.get("/receive/") == {"received": 0}
            slow.sendall(body[1:])
            answer = http.client.HTTPResponse(slow)
            answer.begin()
            assert (answer.status, answer.read()) == (200, b'{"received": 8}')


TIMING_OUT = ("--timeout=1", "--preload")


def hang(site: Site, path: str) -> None:
    """Hang a worker in a view until the server has ended it."""
    workers = site.states().keys()
    with ThreadPoolExecutor(1) as client:
        answer = client.submit(site.get, path)
        until(lambda: not all(map(psutil.pid_exists, workers)))
        assert answer.exception(60)


def test_view_that_times_out_frees_its_lock(tmp_path: Path) -> None:
    """At once: Gunicorn interrupts it by SystemExit.

    A second later Gunicorn kills it. On a busy machine that may come first: then the test retries.
    """
    with Site("sync", tmp_path, *TIMING_OUT, DISTLOCK_TEST_SERVED="default") as site:
        for number in range(1, 10):
            hang(site, f"/hang/{number}/")
            if acquire_lock(f"hanging {number}"):
                break
            until(partial(has_killed, site, number))
        else:
            pytest.fail(site.output())


def has_killed(site: Site, number: int) -> bool:
    """Return whether Gunicorn has logged that it killed so many workers."""
    return site.output().count("SIGKILL") >= number


def test_lock_of_worker_that_a_stop_kills_is_free_after_its_ttl(tmp_path: Path) -> None:
    """Gunicorn kills a worker that is still busy after its graceful_timeout."""
    options = ("--graceful-timeout=1",)
    with (
        ThreadPoolExecutor(1) as client,
        Site("sync", tmp_path, *options, DISTLOCK_TEST_SERVED="default") as site,
    ):
        answer = client.submit(site.get, "/hang-on/")
        until(lambda: bool([*lock_backends["default"].held("hanging")]))
        site.process.terminate()
        assert site.process.wait(60) == 0, site.output()
        assert answer.exception(60)
        assert acquire_lock("hanging", timeout=30)


@on_each_server
def test_lock_of_worker_that_is_killed_is_free_after_its_ttl(alias: str, tmp_path: Path) -> None:
    """Gunicorn kills a view that can't be interrupted: until then its lease is renewed.

    The worker is a fork of a process that has loaded the site.
    """
    with Site("sync", tmp_path, *TIMING_OUT, DISTLOCK_TEST_SERVED=alias) as site:
        hang(site, "/hang-on/")
        assert acquire_lock("hanging", backend=alias, timeout=30)
