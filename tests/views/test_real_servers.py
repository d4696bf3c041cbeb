"""Locked views under the servers that sites run: their workers, threads, reloads and timeouts."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, cast

import psutil
import pytest
from django.db import connections

from django_distlock import acquire_lock, lock_backends
from tests.support.concurrency import until
from tests.support.databases import DATABASES, committed, on_each_server, sessions
from tests.support.web_servers import Site

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pytest_django import DjangoDbBlocker

pytestmark = [committed, pytest.mark.once]


SQLITE, POSTGRESQL, MARIADB = DATABASES


@pytest.fixture(scope="module")
def alias(request: pytest.FixtureRequest) -> str:
    """Return where the locks are."""
    return cast("str", request.param)


@pytest.fixture(scope="module")
def web_server(request: pytest.FixtureRequest) -> str:
    """Return what runs the site."""
    return cast("str", request.param)


@pytest.fixture(scope="module")
def sessions_before(alias: str, django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> int:
    """Return how many sessions the database has without the site."""
    with django_db_blocker.unblock():
        try:
            return sessions(alias)
        finally:
            connections[alias].close()


@pytest.fixture(scope="module")
def site(
    web_server: str, alias: str, sessions_before: int, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """Run the site for several tests."""
    directory = tmp_path_factory.mktemp("site")
    with Site(web_server, directory, DISTLOCK_TEST_SERVED=alias) as running:
        yield running


# Each server, and each database by processes and threads, or by async code.
on_each_site = pytest.mark.parametrize(
    ("web_server", "alias"),
    [
        pytest.param(server, *database.values, marks=database.marks, id=f"{server}-{name}")
        for server, name, database in (
            ("sync", "mariadb", MARIADB),
            ("gthread", "sqlite", SQLITE),
            ("gthread", "postgresql", POSTGRESQL),
            ("uvicorn", "postgresql", POSTGRESQL),
            ("uvicorn", "mariadb", MARIADB),
        )
    ],
    indirect=True,
    scope="module",
)


@on_each_site
def test_locked_view_loses_no_increment(site: Site) -> None:
    """Of 500, by two workers for eight clients; and each is answered well.

    Under Uvicorn it is an async view. Each request comes by a connection of its own: those that are
    kept alive may all be the same worker's.
    """
    site.counter.write_text("0")
    assert site.load(site.view, 500, Connection="close") == {200: 500}
    assert site.counter.read_text() == "500"


@on_each_site
def test_reload_in_mid_load_loses_no_increment_and_leaks_nothing(
    site: Site, alias: str, sessions_before: int
) -> None:
    """Every request is answered, those that the server drops not having been carried out."""
    until(site.is_idle)
    old = site.states()
    site.counter.write_text("0")
    answers = site.load_and_reload(site.view, 300)
    assert answers.keys() <= {200, "dropped"}
    assert answers[200] == 300
    assert site.counter.read_text() == "300"

    until(lambda: not any(map(psutil.pid_exists, old)))
    until(site.is_idle)
    assert [*lock_backends[alias].held()] == []
    until(lambda: sessions(alias) <= sessions_before)
    threads = {tuple(state["threads"]) for state in site.states().values()}
    assert threads == {tuple(state["threads"]) for state in old.values()}


TIMING_OUT = ("--timeout=1", "--preload")


def hang(site: Site, path: str) -> None:
    """Have a worker hang in a view until the server has ended it."""
    workers = site.states().keys()
    with ThreadPoolExecutor(1) as client:
        answer = client.submit(site.get, path)
        until(lambda: not all(map(psutil.pid_exists, workers)))
        assert answer.exception(60)


def test_view_that_times_out_frees_its_lock(tmp_path: Path) -> None:
    """At once: Gunicorn interrupts it by SystemExit.

    A second later Gunicorn kills it. On a busy machine that may come first: then it is tried again.
    """
    with Site("sync", tmp_path, *TIMING_OUT, DISTLOCK_TEST_SERVED="default") as site:
        for number in range(1, 10):
            hang(site, f"/hang/{number}/")
            if acquire_lock(f"hanging {number}"):
                break
            until(lambda number=number: site.output().count("SIGKILL") >= number)
        else:
            pytest.fail(site.output())


@on_each_server
def test_lock_of_worker_that_is_killed_is_free_after_its_ttl(alias: str, tmp_path: Path) -> None:
    """As Gunicorn does if a view hangs that can't be interrupted: until then its lease is renewed.

    The worker is a fork of a process that has loaded the site.
    """
    with Site("sync", tmp_path, *TIMING_OUT, DISTLOCK_TEST_SERVED=alias) as site:
        hang(site, "/hang-on/")
        assert acquire_lock("hanging", backend=alias, timeout=30)
