"""How many locks a list may be asked for. What is refused is in tests/bad_input."""

from __future__ import annotations

import sys

import pytest

from django_distlock import lock_backends
from tests.support.databases import committed
from tests.support.holders import acquire

LISTING = [
    pytest.param("default", id="sqlite"),
    "orm",
    "memory",
    *(
        pytest.param(name, marks=pytest.mark.needs(name))
        for name in ("postgresql", "mariadb", "redis", "lock_server")
    ),
]


@committed
@pytest.mark.parametrize("alias", LISTING)
def test_limit_may_be_anything_from_nothing_to_very_much(alias: str) -> None:
    """A limit above the number of locks lists all of them."""
    names = ["limit 1", "limit 2", "limit 3"]
    leases = [acquire(alias, name) for name in names]
    for limit, found in ((0, 0), (1, 1), (3, 3), (4, 3), (sys.maxsize, 3), (None, 3)):
        assert [lock.semaphore for lock in lock_backends[alias].held("limit", limit)] == names[
            :found
        ]
    for lease in leases:
        lease.release()
