"""The example shows what it says: payments collected twice without the lock, once with it."""

from __future__ import annotations

import os
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.browser import TIMEOUT
from tests.support.example import (
    REQUESTS,
    address_in,
    assert_nothing_runs,
    figures,
    manage,
    rows_of_locks,
)
from tests.support.paths import ROOT
from tests.support.redis_servers import connect

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.servers import Server


CUSTOMERS = 3


@pytest.mark.needs("example")
def test_race_collects_twice_only_without_the_lock(project: Path) -> None:
    """`manage.py race` counts customers who paid twice without the lock, and none with it."""
    output = run_race(project)
    assert "Locks are kept" not in output
    assert rows_of_locks(project) == CUSTOMERS


@pytest.mark.once
@pytest.mark.needs("example", "redis")
def test_race_starts_a_redis_server_and_stops_it(project: Path) -> None:
    """`manage.py race --store redis`: the same, and no lock was in the database."""
    output = run_race(project, "--store=redis")
    [url] = re.findall(r"^Locks are kept in Redis, at (\S+)$", output, re.MULTILINE)
    assert_nothing_runs(project, address_in(url))
    assert rows_of_locks(project) == 0


@pytest.mark.once
@pytest.mark.needs("example")
def test_race_starts_a_lock_server_and_stops_it(project: Path) -> None:
    """`manage.py race --store server`: likewise."""
    output = run_race(project, "--store=server")
    [path] = re.findall(r"^Locks are kept in a lock server, at unix:(\S+)$", output, re.MULTILINE)
    assert_nothing_runs(project, path)
    assert not Path(path).parent.exists()
    assert rows_of_locks(project) == 0


@pytest.mark.once
@pytest.mark.needs("example")
def test_lock_server_that_does_not_start_says_why(project: Path) -> None:
    """As in a directory whose path is too long for a socket; the race doesn't start."""
    directory = project / ("long" * 25)
    directory.mkdir()
    with manage(project, "race", "--store=server", PATH="", TMPDIR=str(directory)) as process:
        output, error = process.communicate(timeout=TIMEOUT)
    assert (process.returncode, output) == (1, "")
    assert error.startswith(
        f"CommandError: The lock server did not start.\nCommandError: '{directory}"
    )
    assert [*directory.iterdir()] == []
    assert not (project / "example.sqlite3").exists()


@pytest.fixture
def empty_redis(servers: dict[str, Server]) -> Iterator[dict[str, str]]:
    """Return the environment for an empty database of a running Redis server."""
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
    """REDIS_URL names it, and is shown without its password; no other server is started."""
    output = run_race(project, "--store=redis", **empty_redis)
    assert f"Locks are kept in Redis, at {empty_redis['REDIS_URL'].replace(':@', '')}\n" in output
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
def test_missing_redis_is_reported_in_one_line(
    project: Path, command: str, environment: dict[str, str], message: str
) -> None:
    """The line says what to install or set; the race doesn't start."""
    if "PYTHONPATH" in environment:
        (project / "without" / "django_redis.py").parent.mkdir()
        (project / "without" / "django_redis.py").write_text("raise ImportError")
        path = os.pathsep.join([str(project / "without"), str(ROOT)])
        environment = environment | {"PYTHONPATH": path}
    with manage(project, command, "--store=redis", **environment) as process:
        output, error = process.communicate(timeout=TIMEOUT)
    assert (process.returncode, output, error) == (1, "", f"CommandError: {message}\n")
    assert not (project / "example.sqlite3").exists()


def run_race(project: Path, *options: str, **environment: str) -> str:
    """Check the race's figures, and return its output."""
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
        output, _ = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0, output
    first, second = map(int, re.findall(r"holds 1collectPayment, token (\d+)", output))
    assert first < second
    assert re.search(rf"payments\.Invoice with pk 1 was not written: .* token {second}", output), (
        output
    )
    assert f"its row has the fence {second}; collected 1 time(s)" in output


@pytest.mark.once
@pytest.mark.needs("example")
def test_paused_workers_late_write_is_refused(project: Path) -> None:
    """`manage.py race --pause` stops a real worker beyond its lease; its invoice refuses it.

    With a lock server, too: other stores' tokens are forgotten. Otherwise those of a server whose
    clock was ahead would refuse the next race's writes.
    """
    run_pause(project, "server")
    assert rows_of_locks(project) == 0
    with closing(sqlite3.connect(project / "example.sqlite3")) as database, database:
        database.execute("UPDATE payments_invoice SET fence = 1 << 60")
    run_pause(project, "database")
    assert rows_of_locks(project) == 1
