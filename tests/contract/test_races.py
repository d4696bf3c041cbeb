"""Real processes race on real databases."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
from django.db import connections

from django_distlock import acquire_lock, clocks, lock_backends
from django_distlock.backends.database.mariadb import MariaDBStatements
from django_distlock.backends.database.mysql import MySQLStatements
from django_distlock.backends.database.statements import LAST, Parameters
from tests.app.models import Counter
from tests.support.databases import DATABASES, committed
from tests.support.processes import Workers, send_and_wait

pytestmark = [committed, pytest.mark.once]
databases = pytest.mark.parametrize("alias", DATABASES)


@databases
def test_eight_processes_exclude_each_other(alias: str, tmp_path: Path) -> None:
    """Each fresh key is granted once, no increment of a file is lost, and the tokens rise.

    8 processes try at once for 100 new keys. Then they read the file and write it back, one at a
    time: in the order of time, each token is greater than the last.
    """
    file = tmp_path / "counter"
    file.write_text("0")
    with Workers(8, "race", alias, str(file), "75", "100") as workers:
        results = workers.results()
    granted = [name for result in results for name in result["granted"]]
    assert sorted(granted) == sorted(f"fresh {number}" for number in range(100))
    assert file.read_text() == "600"
    tokens = [token for _, token in sorted(tuple(one) for each in results for one in each["seen"])]
    assert tokens == sorted(set(tokens))


@databases
def test_killed_holders_lock_is_free_after_its_ttl(alias: str) -> None:
    """By itself, with a greater token; not before, by the store's clock."""
    with Workers(1, "hold", alias, "1.5") as workers:
        [holder] = workers.processes
        [token] = json.loads(workers.read(holder))
        [held] = lock_backends[alias].held("held")
        send_and_wait(holder, signal.SIGKILL)
        struck = clocks.monotonic()
        lease = acquire_lock("held", backend=alias, timeout=60)
    assert lease is not None
    assert clocks.monotonic() - struck < 15
    assert held.expires_at is not None
    assert lease.acquired_at >= held.expires_at
    assert lease.token is not None
    assert lease.token > token


@databases
def test_view_under_atomic_requests_loses_no_increment(alias: str) -> None:
    """The lock outlasts the commit: 160 of 160 (peer defect 26), however the view is locked."""
    paths = ["/increment/1234/", "/increment-method/1234/", "/increment-in-block/1234/"]
    counters = Counter.objects.using(alias)
    counters.create()
    with Workers(4, "visit_each", " ".join(paths), "40", DISTLOCK_TEST_ATOMIC=alias) as workers:
        for number, path in enumerate(paths, 1):
            statuses = [json.loads(workers.read(process)) for process in workers.processes]
            assert statuses == [[200] * 40] * 4, path
            assert counters.get().value == number * 160, path
            workers.proceed()


@pytest.mark.needs("postgresql")
def test_view_without_lock_loses_an_increment() -> None:
    """So the test above would notice a lock that doesn't work."""
    Counter.objects.using("postgresql").create()
    path, atomic = "/increment-unlocked/1234/", {"DISTLOCK_TEST_ATOMIC": "postgresql"}
    with Workers(2, "pause_request", path, **atomic) as workers:
        for process in workers.processes:
            assert json.loads(workers.read(process)) == "read"
        workers.proceed()
        assert workers.results() == [200, 200]
    assert Counter.objects.using("postgresql").get().value == 1


@pytest.mark.needs("mariadb")
def test_sessions_in_different_time_zones_exclude_each_other() -> None:
    """On MariaDB a clock in the session's zone would grant twice."""
    entry = json.loads(os.environ["DISTLOCK_TEST_MARIADB"])
    entry["NAME"] = connections["mariadb"].settings_dict["NAME"]
    granted: list[str] = []
    for zone in ("-08:00", "+05:30"):
        options = {"init_command": f"SET time_zone = '{zone}'"}
        variable = json.dumps(entry | {"OPTIONS": options})
        with Workers(1, "grab", "mariadb", "1", DISTLOCK_TEST_MARIADB=variable) as workers:
            # Then it is killed, and its grant stays.
            granted += json.loads(workers.read(workers.processes[0]))
    assert granted == ["fresh 0"]


@pytest.mark.needs("mariadb")
@pytest.mark.parametrize("statements", [MariaDBStatements, MySQLStatements])
def test_clock_does_not_follow_the_sessions_zone(statements: type[MySQLStatements]) -> None:
    """Also on the caller's connection, whose zone the package must not set."""
    owners = iter(["first", "second", "third"])
    for zone in ("+00:00", "+05:30", "-08:00"):
        connection = connections["mariadb"].copy()
        try:
            with connection.cursor() as cursor:
                cursor.execute("SET time_zone = %s", [zone])
            lock = statements(connection, "distlock_lock")
            parameters = Parameters(
                semaphore="zones", owner=next(owners), ttl=60_000_000, holder="", place=LAST
            )
            grant = lock.acquire(parameters)
            assert bool(grant) == (parameters["owner"] == "first")
            if grant:
                assert abs((grant.token or 0) / 1e6 - time.time()) < 60
        finally:
            connection.close()
