"""Whatever is wrong is refused: with the right type of error, and a message that says what to do.

Each test tries the rows of a part of the table, and shows all that were not refused as they should.
"""

from __future__ import annotations

from collections import Counter

import pytest

from django_distlock import acquire_lock, lock_backends
from tests.bad_input import arguments, calls, configuration, operators
from tests.bad_input.table import LISTING, STORES, complaints
from tests.support.databases import committed

SERVERS = {
    "postgresql": "postgresql",
    "orm_postgresql": "postgresql",
    "mariadb": "mariadb",
    "mysql": "mariadb",
    "redis": "redis",
    "django_redis_cache": "redis",
    "redis_cluster": "redis_cluster",
    "memcached": "memcached",
    "lock_server": "lock_server",
}
"""What a store needs."""
on_each_store = pytest.mark.parametrize(
    "alias",
    [
        pytest.param(alias, marks=pytest.mark.needs(SERVERS[alias]) if alias in SERVERS else ())
        for alias in sorted(STORES)
    ],
)
CALLS = [*arguments.ROWS, *calls.ROWS, *operators.ROWS]


@committed
@on_each_store
def test_wrong_call_is_refused(alias: str) -> None:
    """And changes nothing: the lock is free afterwards."""
    rows = [row for row in CALLS if alias in row.stores]
    assert len(rows) > 80
    assert complaints(rows, alias) == []
    if alias in LISTING:
        assert [*lock_backends[alias].held()] == []
        assert lock_backends[alias].pauses() == []
    lease = acquire_lock("1234collectPayment", backend=alias)
    assert lease
    assert lease.release()


def test_wrong_setting_is_refused() -> None:
    """When the store is first used, and by `check`."""
    assert complaints(configuration.ROWS) == []


def test_rows_have_names_of_their_own() -> None:
    """So that a failure shows which it is."""
    assert [name for name, number in Counter(row.what for row in CALLS).items() if number > 9] == []
