"""Whatever is wrong is refused: with the right type of error, and a message that says what to do.

Each test tries the rows of a part of the table, and shows all that were not refused as they should.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from django_distlock import acquire_lock, lock_backends
from tests.bad_input import (
    arguments,
    calls,
    commands,
    configuration,
    decorators,
    frames,
    operators,
    requests,
)
from tests.bad_input.table import LISTING, STORES, complaints
from tests.support.databases import committed
from tests.support.lock_client import endpoint_of

if TYPE_CHECKING:
    from tests.support.servers import Server

pytestmark = pytest.mark.once

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
CALLS = [*arguments.ROWS, *calls.ROWS, *decorators.ROWS, *operators.ROWS]


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


@pytest.mark.urls(requests.__name__)
@committed
@on_each_store
def test_wrong_request_is_refused(alias: str, settings: Any) -> None:
    """By the right status, and no lock is left behind."""
    settings.MIDDLEWARE = []  # nobody logs in: the tables of users aren't there
    assert complaints(requests.VIEWS, alias) == []
    assert requests.get("int/1234/")(alias) is None


@pytest.mark.django_db(databases="__all__")
def test_wrong_request_to_the_admin_is_refused() -> None:
    """Without a 500."""
    assert complaints(requests.ADMIN, "default") == []


@committed
@on_each_store
def test_wrong_command_is_refused(alias: str) -> None:
    """By its exit code, and a last line on stderr."""
    assert complaints([row for row in commands.ROWS if alias in row.stores], alias) == []


@pytest.mark.needs("lock_server")
def test_wrong_frame_is_refused(servers: dict[str, Server]) -> None:
    """The error says so."""
    assert complaints(frames.ROWS, endpoint_of(servers["lock_server"])) == []


def test_each_row_says_what_is_wrong() -> None:
    """Under a name of its own, so that a failure shows which it is; pages are for people."""
    rows = [*CALLS, *configuration.ROWS, *commands.ROWS, *frames.ROWS]
    assert [name for name, number in Counter(row.what for row in rows).items() if number > 1] == []
    assert all(row.says for row in [*rows, *requests.VIEWS])
