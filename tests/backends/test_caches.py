"""Which caches can keep locks, and the errors about those that can't."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.cache import caches
from django.core.cache.backends.memcached import PyMemcacheCache
from django.test import override_settings

from django_distlock import InvalidLockBackend, lock_backends
from django_distlock.backends.cache_checks import (
    describe,
    find_cache,
)
from tests.support import caches as own
from tests.support.caches import (
    DJANGO,
    DJANGO_REDIS,
    MEMCACHED_BACKEND,
    NOWHERE,
    PYMEMCACHE,
    REDIS,
    OwnMemcache,
    configured,
)


def refusal(**entry: Any) -> str:
    """Return the error about such a cache, without the alias that it must begin with."""
    with configured(locks=entry), pytest.raises(InvalidLockBackend) as caught:
        find_cache("jobs", "locks", [PYMEMCACHE])
    start = "DISTLOCK['jobs']: cache 'locks' "
    assert str(caught.value).startswith(start)
    return str(caught.value).removeprefix(start)


# Which cache a store gets


def test_cache_is_found_by_its_alias() -> None:
    """It is configured by the settings."""
    with configured(locks=NOWHERE | {"KEY_PREFIX": "site"}):
        found = find_cache("jobs", "locks", [PYMEMCACHE])
    assert type(found) is PyMemcacheCache
    assert found.key_prefix == "site"


def test_cache_is_not_shared_with_the_site() -> None:
    """Django closes a thread's caches at the end of its request."""
    with configured(locks=NOWHERE):
        assert find_cache("jobs", "locks", [PYMEMCACHE]) is not caches["locks"]


def test_subclass_counts_as_its_base() -> None:
    """A site may have subclassed it."""
    with configured(locks=NOWHERE | {"BACKEND": f"{own.__name__}.OwnMemcache"}):
        assert type(find_cache("jobs", "locks", [PYMEMCACHE])) is OwnMemcache


@pytest.mark.parametrize(
    ("cache", "message"),
    [
        ("elsewhere", "cache 'elsewhere' is no alias of CACHES, which has 'default', 'locks'."),
        (None, "cache is a str, an alias in CACHES, not NoneType."),
        (5, "cache is a str, an alias in CACHES, not int."),
    ],
)
def test_alias_that_caches_lacks_is_refused(cache: Any, message: str) -> None:
    """The message lists the existing ones."""
    with configured(locks=NOWHERE), pytest.raises(InvalidLockBackend) as caught:
        find_cache("jobs", cache, [PYMEMCACHE])
    assert str(caught.value) == f"DISTLOCK['jobs']: {message}"


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        (f"{DJANGO}.dummy.DummyCache", "would grant each lock to everybody"),
        (f"{DJANGO}.filebased.FileBasedCache", "two processes can be granted one lock"),
        (f"{own.__name__}.OwnFileCache", "two processes can be granted one lock"),
        (f"{DJANGO}.locmem.LocMemCache", "another one in each process, and culls locks"),
        (f"{DJANGO}.db.DatabaseCache", "culls locks that are held"),
    ],
)
def test_cache_that_cannot_keep_locks_is_refused(path: str, reason: str) -> None:
    """The message has the reason, and what to use instead."""
    said = refusal(BACKEND=path, LOCATION="/somewhere")
    assert said.startswith(f"is a {path.rpartition('.')[2]}, which ")
    assert reason in said
    assert "use BACKEND 'django_distlock.backends.database.DatabaseBackend', or a cache" in said


@pytest.mark.parametrize("suited", [[PYMEMCACHE], [REDIS]])
def test_cache_on_pylibmc_is_refused(suited: list[str]) -> None:
    """The message names the cache to use instead, also where pylibmc isn't installed."""
    pylibmc = {"BACKEND": f"{DJANGO}.memcached.PyLibMCCache", "LOCATION": "127.0.0.1:11211"}
    with configured(locks=pylibmc), pytest.raises(InvalidLockBackend) as caught:
        find_cache("jobs", "locks", suited)
    assert str(caught.value) == (
        "DISTLOCK['jobs']: cache 'locks' is a PyLibMCCache: locks need pymemcache, so use "
        "'django.core.cache.backends.memcached.PyMemcacheCache'."
    )


@pytest.mark.parametrize("path", [REDIS, DJANGO_REDIS])
def test_cache_of_another_kind_is_refused(path: str) -> None:
    """The message names the right store."""
    said = refusal(BACKEND=path, LOCATION="redis://127.0.0.1:1")
    assert said == "is a RedisCache: use BACKEND 'django_distlock.backends.redis.RedisBackend'."


def test_unknown_cache_is_refused() -> None:
    """The message lists the known ones."""
    said = refusal(BACKEND=f"{own.__name__}.ForeignCache")
    assert said.startswith(f"is a {own.__name__}.ForeignCache, of which it isn't known whether")
    assert all(path in said for path in (PYMEMCACHE, REDIS, DJANGO_REDIS))


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"BACKEND": "nowhere.Cache"}, "Could not find backend 'nowhere.Cache'"),
        ({"BACKEND": f"{own.__name__}.BrokenCache"}, "No module named 'client'"),
        ({}, "BACKEND"),
    ],
)
def test_cache_that_cannot_be_made_is_refused(entry: dict[str, Any], reason: str) -> None:
    """The message has its error."""
    said = refusal(**entry)
    assert said.startswith("can't be made: ")
    assert reason in said


def test_store_for_each_cache() -> None:
    """The stores that the messages name exist."""
    assert describe(OwnMemcache) == f"is a OwnMemcache: use BACKEND '{MEMCACHED_BACKEND}'."


@pytest.mark.parametrize(
    ("path", "advice"),
    [
        (PYMEMCACHE, f"is a PyMemcacheCache: use BACKEND '{MEMCACHED_BACKEND}'."),
        (f"{DJANGO}.locmem.LocMemCache", "use BACKEND 'django_distlock.backends.database."),
    ],
)
def test_cache_in_the_place_of_a_store_is_refused(path: str, advice: str) -> None:
    """A likely mistake: the message says what belongs there."""
    with override_settings(DISTLOCK={"jobs": {"BACKEND": path}}):
        with pytest.raises(InvalidLockBackend) as caught:
            lock_backends["jobs"]
    said = str(caught.value)
    assert said.startswith(f"DISTLOCK['jobs']: BACKEND '{path}' is a ")
    assert advice in said
    assert said.endswith("The cache itself goes into OPTIONS['cache'], by its alias in CACHES.")
