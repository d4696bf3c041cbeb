"""What docs/how-to/use-memcached.md shows works."""

from __future__ import annotations

import re
from typing import Any

from django.test import override_settings

from django_distlock import acquire_lock, distributed_lock
from django_distlock.backends.cache_checks import UNSUITED
from django_distlock.backends.memcached import MemcachedBackend
from tests.support.documentation import DOCUMENTS, example, section
from tests.support.holders import acquire
from tests.support.memcached_stores import address, memcached_store, on_memcached

DOCUMENT = (DOCUMENTS / "how-to/use-memcached.md").read_text(encoding="utf-8")


@on_memcached
def test_documented_settings_work(alias: str, settings: Any) -> None:
    """Without a warning: `default` is on another server."""
    shown = example("how-to/use-memcached.md", "Configure the store")
    host, port = address(alias)
    here = {"BACKEND": settings.CACHES[alias]["BACKEND"], "LOCATION": f"{host}:{port}"}
    assert here["BACKEND"].rpartition(".")[2] in DOCUMENT
    assert shown.CACHES["locks"].keys() == here.keys()
    caches_here = shown.CACHES | {"locks": here}
    with override_settings(CACHES=caches_here, DISTLOCK=shown.DISTLOCK):
        assert memcached_store("default").check() == []
        with distributed_lock("1234collectPayment") as lease:
            assert acquire_lock("1234collectPayment") is None
            lease.renew()
        assert acquire("default").release()


def test_documented_limits_are_the_stores() -> None:
    """Of the ttl, and of features that Memcached lacks."""
    shortest, longest = MemcachedBackend.shortest_ttl, MemcachedBackend.longest_ttl
    assert f"A ttl is from {shortest} to {longest} whole seconds" in DOCUMENT
    assert not MemcachedBackend.supports_fencing
    assert not MemcachedBackend.supports_listing
    assert not MemcachedBackend.supports_unlimited_ttl


def test_documented_caches_are_those_that_are_refused() -> None:
    """All of Django's but Memcached's and Redis's."""
    refused = section("explanation/stores.md", "Refused")
    rows = re.findall(r"^\| `(\w+)` \|", refused, re.MULTILINE)
    assert sorted(rows) == sorted(path.rpartition(".")[2] for path in UNSUITED)
