"""Real processes race on real databases."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
from django.db import connections

from django_distlock import acquire_lock, clocks
from django_distlock.backends.database.mysql import MariaDBStatements, MySQLStatements
from django_distlock.backends.database.statements import Parameters
from tests.app.models import Counter
from tests.support.databases import DATABASES, committed
from tests.support.processes import Workers, strike

pytestmark = [committed, pytest.mark.once]
databases = pytest.mark.parametrize("alias", DATABASES)


@databases
def test_unguarded_counter_loses_no_increment(alias: str, tmp_path: Path) -> None:
    """8 processes read a file and write it back, one at a time."""
    file = tmp_path / "counter"
    file.write_text("0")
    with Workers(8, "count", alias, str(file), "20") as workers:
        workers.results()
    assert file.read_text() == "160"


@databases
def test_each_fresh_key_is_granted_once(alias: str) -> None:
    """Of 8 processes that try at once for 100 semaphores that nobody has had before."""
    with Workers(8, "grab", alias, "100") as workers:
        granted = [name for names in workers.results() for name in names]
    assert sorted(granted) == sorted(f"fresh {number}" for number in range(100))


@databases
def test_tokens_of_contended_grants_rise(alias: str) -> None:
    """600 grants to 8 processes: in the order of time, each token is greater than the last."""
    with Workers(8, "tokens", alias, "75") as workers:
        grants = sorted(tuple(grant) for result in workers.results() for grant in result)
    tokens = [token for _, token in grants]
    assert len(tokens) == 600
    assert tokens == sorted(set(tokens))


@databases
def test_killed_holders_lock_is_free_after_its_ttl(alias: str) -> None:
    """With nobody's help, and with a greater token; not before."""
    with Workers(1, "hold", alias, "1.5") as workers:
        before = clocks.monotonic()
        [holder] = workers.processes
        [token] = json.loads(workers.read(holder))
        strike(holder, signal.SIGKILL)
        assert acquire_lock("held", backend=alias) is None
        lease = acquire_lock("held", backend=alias, timeout=30)
    assert lease is not None
    assert 1.5 <= clocks.monotonic() - before < 15
    assert lease.token is not None
    assert lease.token > token


@databases
@pytest.mark.parametrize(
    "path",
    ["/increment/1234/", "/increment-method/1234/", "/increment-in-block/1234/"],
)
def test_view_under_atomic_requests_loses_no_increment(alias: str, path: str) -> None:
    """The lock outlasts the commit: 160 of 160 (peer defect 26)."""
    Counter.objects.using(alias).create()
    with Workers(4, "visit", path, "40", DISTLOCK_TEST_ATOMIC=alias) as workers:
        assert workers.results() == [[200] * 40] * 4
    assert Counter.objects.using(alias).get().value == 160


@pytest.mark.needs("postgresql")
def test_view_without_lock_loses_increments() -> None:
    """So the test above would show a lock that doesn't work."""
    Counter.objects.using("postgresql").create()
    path = "/increment-unlocked/1234/"
    with Workers(4, "visit", path, "40", DISTLOCK_TEST_ATOMIC="postgresql") as workers:
        assert workers.results() == [[200] * 40] * 4
    assert Counter.objects.using("postgresql").get().value < 160


@pytest.mark.needs("mariadb")
def test_sessions_in_different_time_zones_exclude_each_other() -> None:
    """On MariaDB a clock in the session's zone would grant twice."""
    entry = json.loads(os.environ["DISTLOCK_TEST_MARIADB"])
    entry["NAME"] = connections["mariadb"].settings_dict["NAME"]
    granted: list[str] = []
    for zone in ("+00:00", "+05:30", "-08:00"):
        options = {"init_command": f"SET time_zone = '{zone}'"}
        variable = json.dumps(entry | {"OPTIONS": options})
        with Workers(1, "grab", "mariadb", "1", DISTLOCK_TEST_MARIADB=variable) as workers:
            granted += workers.results()[0]
    assert granted == ["fresh 0"]


@pytest.mark.needs("mariadb")
@pytest.mark.parametrize("statements", [MariaDBStatements, MySQLStatements])
def test_clock_does_not_follow_the_sessions_zone(statements: type[MySQLStatements]) -> None:
    """Nor on the caller's connection, whose zone isn't ours to set."""
    owners = iter("abc")
    for zone in ("+00:00", "+05:30", "-08:00"):
        connection = connections["mariadb"].copy()
        try:
            with connection.cursor() as cursor:
                cursor.execute("SET time_zone = %s", [zone])
            lock = statements(connection, "django_distlock_lock")
            parameters = Parameters(
                semaphore="zones", owner=next(owners), ttl=60_000_000, holder=""
            )
            row = lock.acquire(parameters)
            assert (row is not None) == (parameters["owner"] == "a")
            if row:
                assert abs(row.token / 1e6 - time.time()) < 60
        finally:
            connection.close()
