"""The stores that the test kit's functions are used on."""

from __future__ import annotations

import pytest

from tests.support.databases import DATABASES

MEMCACHED = pytest.param("memcached", marks=pytest.mark.needs("memcached"))
STORES = [
    "memory",
    *DATABASES,
    pytest.param("redis", marks=pytest.mark.needs("redis")),
    pytest.param("lock_server", marks=pytest.mark.needs("lock_server")),
    MEMCACHED,
]
on_each_store = pytest.mark.parametrize("store", STORES)
