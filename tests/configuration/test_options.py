"""A message names the wrong option of a store, or the wrong argument of its listing methods."""

from __future__ import annotations

import math
import re
import sys
from datetime import timedelta
from typing import Any

import pytest
from django.utils.translation import gettext_lazy

from django_distlock import InvalidLockBackend, LockError, lock_backends
from django_distlock.conf import LockBackendHandler
from django_distlock.semaphores.validation import InvalidSemaphore
from tests.support.databases import committed
from tests.support.holders import acquire

LAZY: Any = gettext_lazy("default")
LONG = int("9" * 4_000) ** 2
SECRET = "x" * 40
PATHS = {
    "database": "django_distlock.backends.database.DatabaseBackend",
    "memory": "django_distlock.backends.memory.MemoryBackend",
    "redis": "django_distlock.backends.redis.RedisBackend",
    "memcached": "django_distlock.backends.memcached.MemcachedBackend",
    "server": "django_distlock.backends.server.ServerBackend",
}
NEEDED: dict[str, dict[str, Any]] = {
    "database": {},
    "memory": {},
    "redis": {"cache": "default"},
    "memcached": {"cache": "default"},
    "server": {"secret": SECRET},
}


def refusal(store: str, **options: Any) -> str:
    """Return the error about these options of DISTLOCK["one"]."""
    configured = {"BACKEND": PATHS[store], "OPTIONS": NEEDED[store] | options}
    with pytest.raises(InvalidLockBackend) as caught:
        LockBackendHandler({"one": configured})["one"]
    alias, _, message = str(caught.value).partition(": ")
    assert alias == "DISTLOCK['one']"
    assert len(message) < 300
    return message


@pytest.mark.parametrize("store", PATHS)
@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        (
            "ttl",
            [math.nan, math.inf, -math.inf, -1, 0, 10**400, LONG],
            "ttl is .*, but must be from .* seconds",
        ),
        ("ttl", ["60", True, [60], timedelta(seconds=60), LAZY], "ttl is a number of seconds"),
        (
            "store_timeout",
            [math.nan, math.inf, -1, 0, 61, 10**400, LONG],
            "store_timeout is .*, but must be from 0.01 to 60 seconds",
        ),
        (
            "store_timeout",
            ["2", None, True, [2], LAZY],
            "store_timeout is a number of seconds, not ",
        ),
    ],
)
def test_duration_of_a_store_has_bounds(
    store: str, name: str, values: list[Any], message: str
) -> None:
    """NaN compares with nothing, and a number may be too long to be shown."""
    if (store, name) == ("memory", "store_timeout"):
        return  # it has no time limit: its locks are in this process
    for value in values:
        assert re.match(message, refusal(store, **{name: value}))


@pytest.mark.parametrize("store", PATHS)
@pytest.mark.parametrize("value", ["no", 0, None, LAZY])
@pytest.mark.parametrize("option", ["guard_commits", "events"])
def test_switch_of_a_store_is_true_or_false(store: str, option: str, value: Any) -> None:
    """A text such as "False" would count as true."""
    assert re.match(f"{option} is True or False, not ", refusal(store, **{option: value}))


@pytest.mark.parametrize(
    ("store", "name", "value", "message"),
    [
        ("server", "tls", "no", "tls is True or False, not 'no'"),
        ("server", "tls", 0, "tls is True or False, not 0"),
        ("server", "release_on_disconnect", "no", "release_on_disconnect is True or False"),
        ("server", "address", 7171, "an address is a text such as"),
        ("server", "address", ["127.0.0.1:7171"], "an address is a text such as"),
        ("server", "secret", 5, "secret is a text"),
        ("server", "secret", ["x" * 40], "secret is a text"),
        ("server", "tls_ca", 5, "tls_ca is a str, a path, not int"),
        ("server", "tls_ca", True, "tls_ca is a str, a path, not bool"),
        ("database", "using", ["default"], "using is a str, an alias in DATABASES, not list"),
        ("database", "using", None, "using is a str, an alias in DATABASES, not NoneType"),
        ("database", "using", LAZY, "using is a str, .*, not a lazy text"),
        ("database", "connections", "2", "connections is a whole number, not '2'"),
        ("database", "connections", True, "connections is a whole number, not True"),
        ("database", "connections", 0, "connections is 0, but must be from 1 to"),
        ("redis", "cache", ["default"], "cache is a str, an alias in CACHES, not list"),
        ("redis", "cache", LAZY, "cache is a str, an alias in CACHES, not a lazy text"),
        ("redis", "client", ["a.b"], "client is a str, a dotted path, not list"),
        ("memcached", "cache", ["default"], "cache is a str, an alias in CACHES, not list"),
        ("memcached", "cache", None, "cache is a str, an alias in CACHES, not NoneType"),
    ],
)
def test_option_of_another_type_is_refused(store: str, name: str, value: Any, message: str) -> None:
    """The message has its name and the right type."""
    options = {"cache": None, name: value} if name == "client" else {name: value}
    assert re.match(message, refusal(store, **options))


@pytest.mark.parametrize("alias", [5, None, ("a", "b"), LAZY])
def test_alias_of_another_type_is_refused(alias: Any) -> None:
    """No call could use such an alias."""
    handler = LockBackendHandler({alias: {"BACKEND": PATHS["memory"]}})
    with pytest.raises(InvalidLockBackend, match=r"^DISTLOCK: an alias is a str, not "):
        list(handler)


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
def test_listing_refuses_invalid_arguments(alias: str) -> None:
    """The message names the argument, alike in each store."""
    store: Any = lock_backends[alias]
    for limit in ("x", 1.5, True, [1], LAZY):
        with pytest.raises(TypeError, match=r"^limit is a whole number or None, not "):
            list(store.held(limit=limit))
    for limit in (-1, -LONG, LONG):
        with pytest.raises(ValueError, match=r"^limit is .*, but must be from 0 .*None lists all"):
            list(store.held(limit=limit))
    for prefix in (5, None, b"1", LAZY):
        for listed in (store.held, store.clear_stale):
            with pytest.raises(TypeError, match=r"^prefix: A semaphore is a str, not "):
                list(listed(prefix))
    for prefix in ("\0", "a\n", "\ud800", "x" * 256):
        for listed in (store.held, store.clear_stale):
            with pytest.raises(InvalidSemaphore, match=r"^prefix: A semaphore has "):
                list(listed(prefix))


@committed
@pytest.mark.parametrize("alias", LISTING)
def test_force_release_refuses_invalid_arguments(alias: str) -> None:
    """A semaphore, and the token by which it was granted."""
    store: Any = lock_backends[alias]
    lease = acquire(alias, "1234collectPayment")
    for token in ("1", None, 1.5, True, LAZY):
        with pytest.raises(TypeError, match=r"^token is a whole number, not "):
            store.force_release("1234collectPayment", token)
    for token in (2**63, LONG, -1):
        with pytest.raises(ValueError, match=r"^token is .*, but must be from 0 to "):
            store.force_release("1234collectPayment", token)
    assert not store.force_release("1234collectPayment", 2**61)
    with pytest.raises(TypeError, match=r"^A semaphore is a str, not "):
        store.force_release(5, 1)
    with pytest.raises(InvalidSemaphore):
        store.force_release("\0", 1)
    assert lease.release()


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


@pytest.mark.parametrize(
    "alias", ["minimal", pytest.param("memcached", marks=pytest.mark.needs("memcached"))]
)
def test_store_without_listing_names_the_stores_with_it(alias: str) -> None:
    """The error has a message."""
    store = lock_backends[alias]
    kind = type(store).__name__
    for ask in (store.held, lambda: store.force_release("1234collectPayment", 1)):
        with pytest.raises(LockError, match=f"{alias}'.*{kind} .*database, Redis") as caught:
            ask()
        assert isinstance(caught.value, NotImplementedError)
