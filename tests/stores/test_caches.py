"""Which caches can keep locks, and what is said about those that can't, or shouldn't."""

from __future__ import annotations

from typing import Any

import pytest
from django.core import checks
from django.core.cache import caches
from django.core.cache.backends.base import BaseCache
from django.core.cache.backends.filebased import FileBasedCache
from django.core.cache.backends.memcached import PyMemcacheCache
from django.test import override_settings

from django_distlock import InvalidLockBackend, lock_backends
from django_distlock.backends.cache_checks import (
    check_ignored_exceptions,
    check_own_cache,
    describe,
    find_cache,
    places,
    shares_place,
)
from django_distlock.backends.memcached import MemcachedBackend
from django_distlock.checks import check_lock_backends

DJANGO = "django.core.cache.backends"
PYMEMCACHE = f"{DJANGO}.memcached.PyMemcacheCache"
REDIS = f"{DJANGO}.redis.RedisCache"
DJANGO_REDIS = "django_redis.cache.RedisCache"
MEMCACHED_BACKEND = "django_distlock.backends.memcached.MemcachedBackend"
NOWHERE = {"BACKEND": PYMEMCACHE, "LOCATION": "127.0.0.1:1"}


class OwnFileCache(FileBasedCache):
    """What a site may have made of Django's."""


class OwnMemcache(PyMemcacheCache):
    """Likewise."""


class ForeignCache(BaseCache):
    """A third party's."""

    def __init__(self, location: Any, params: dict[str, Any]) -> None:
        super().__init__(params)


class BrokenCache(BaseCache):
    """One whose client library isn't installed."""

    def __init__(self, location: Any, params: dict[str, Any]) -> None:
        raise ImportError("No module named 'client'")


def configured(**entries: dict[str, Any]) -> Any:
    """Let CACHES be these, beside the default one that Django wants."""
    default = {"BACKEND": f"{DJANGO}.locmem.LocMemCache"}
    return override_settings(CACHES={"default": default, **entries})


def refusal(**entry: Any) -> str:
    """Return what is said about such a cache, after the alias that has to be in front."""
    with configured(locks=entry), pytest.raises(InvalidLockBackend) as caught:
        find_cache("jobs", "locks", [PYMEMCACHE])
    start = "DISTLOCK['jobs']: cache 'locks' "
    assert str(caught.value).startswith(start)
    return str(caught.value).removeprefix(start)


# Which cache a store gets


def test_cache_is_found_by_its_alias() -> None:
    """It has what the settings say."""
    with configured(locks=NOWHERE | {"KEY_PREFIX": "site"}):
        found = find_cache("jobs", "locks", [PYMEMCACHE])
    assert type(found) is PyMemcacheCache
    assert found.key_prefix == "site"


def test_cache_is_nobody_elses() -> None:
    """Django closes a thread's caches at the end of its request."""
    with configured(locks=NOWHERE):
        assert find_cache("jobs", "locks", [PYMEMCACHE]) is not caches["locks"]


def test_subclass_counts_as_what_it_is_made_of() -> None:
    """A site may have changed something."""
    with configured(locks=NOWHERE | {"BACKEND": f"{__name__}.OwnMemcache"}):
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
    """With those that there are."""
    with configured(locks=NOWHERE), pytest.raises(InvalidLockBackend) as caught:
        find_cache("jobs", cache, [PYMEMCACHE])
    assert str(caught.value) == f"DISTLOCK['jobs']: {message}"


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        (f"{DJANGO}.dummy.DummyCache", "would grant each lock to everybody"),
        (f"{DJANGO}.filebased.FileBasedCache", "two processes can be granted one lock"),
        (f"{__name__}.OwnFileCache", "two processes can be granted one lock"),
        (f"{DJANGO}.locmem.LocMemCache", "another one in each process, and culls locks"),
        (f"{DJANGO}.db.DatabaseCache", "culls locks that are held"),
    ],
)
def test_cache_that_cannot_keep_locks_is_refused(path: str, reason: str) -> None:
    """With the reason, and what to use."""
    said = refusal(BACKEND=path, LOCATION="/somewhere")
    assert said.startswith(f"is a {path.rpartition('.')[2]}, which ")
    assert reason in said
    assert "use BACKEND 'django_distlock.backends.database.DatabaseBackend', or a cache" in said


@pytest.mark.parametrize("suited", [[PYMEMCACHE], [REDIS]])
def test_cache_on_pylibmc_is_refused(suited: list[str]) -> None:
    """It names the cache to use instead, also where pylibmc isn't installed."""
    pylibmc = {"BACKEND": f"{DJANGO}.memcached.PyLibMCCache", "LOCATION": HERE}
    with configured(locks=pylibmc), pytest.raises(InvalidLockBackend) as caught:
        find_cache("jobs", "locks", suited)
    assert str(caught.value) == (
        "DISTLOCK['jobs']: cache 'locks' is a PyLibMCCache: locks need pymemcache, so use "
        "'django.core.cache.backends.memcached.PyMemcacheCache'."
    )


@pytest.mark.parametrize("path", [REDIS, DJANGO_REDIS])
def test_cache_of_another_kind_is_refused(path: str) -> None:
    """With the store that is the right one."""
    said = refusal(BACKEND=path, LOCATION="redis://127.0.0.1:1")
    assert said == "is a RedisCache: use BACKEND 'django_distlock.backends.redis.RedisBackend'."


def test_unknown_cache_is_refused() -> None:
    """With those that are known."""
    said = refusal(BACKEND=f"{__name__}.ForeignCache")
    assert said.startswith(f"is a {__name__}.ForeignCache, of which it isn't known whether")
    assert all(path in said for path in (PYMEMCACHE, REDIS, DJANGO_REDIS))


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"BACKEND": "nowhere.Cache"}, "Could not find backend 'nowhere.Cache'"),
        ({"BACKEND": f"{__name__}.BrokenCache"}, "No module named 'client'"),
        ({}, "BACKEND"),
    ],
)
def test_cache_that_cannot_be_made_is_refused(entry: dict[str, Any], reason: str) -> None:
    """Its error is told."""
    said = refusal(**entry)
    assert said.startswith("can't be made: ")
    assert reason in said


def test_store_for_each_cache() -> None:
    """What the messages name."""
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


# System checks


def messages(**entries: dict[str, Any]) -> list[checks.CheckMessage]:
    """Return what is said about locks in the cache "locks"."""
    options = {"cache": "locks"}
    distlock = {"jobs": {"BACKEND": MEMCACHED_BACKEND, "OPTIONS": options}}
    with configured(**entries), override_settings(DISTLOCK=distlock):
        return [*check_lock_backends()]


def test_cache_that_cannot_be_used_is_an_error() -> None:
    """`manage.py check` says so."""
    (message,) = messages(locks={"BACKEND": f"{DJANGO}.dummy.DummyCache"})
    assert (message.id, message.level) == ("distlock.E001", checks.ERROR)
    assert message.msg.startswith("DISTLOCK['jobs']: cache 'locks' is a DummyCache, which ")


def test_cache_of_its_own_has_no_messages() -> None:
    """Others are on other servers."""
    assert messages(locks=NOWHERE, others=NOWHERE | {"LOCATION": "127.0.0.1:2"}) == []


def test_default_cache_is_warned_of() -> None:
    """Whatever the site caches is there, and cleared some day."""
    (message,) = messages_of_default()
    assert (message.id, message.level) == ("distlock.W002", checks.WARNING)
    assert message.msg.startswith(
        "DISTLOCK['jobs']: cache 'default' is what the site caches in: a clear() there releases"
    )
    assert message.hint is not None
    assert "an alias of CACHES to themselves" in message.hint


def messages_of_default(**entries: dict[str, Any]) -> list[checks.CheckMessage]:
    with override_settings(CACHES={"default": NOWHERE, **entries}):
        return MemcachedBackend("jobs", cache="default").check()


def test_other_alias_of_the_same_server_is_warned_of() -> None:
    """Another KEY_PREFIX is no help: a clear() flushes the server."""
    (message,) = messages(
        locks=NOWHERE, pages=NOWHERE | {"KEY_PREFIX": "p"}, others=NOWHERE | {"LOCATION": "b:1"}
    )
    assert message.id == "distlock.W002"
    assert "cache 'locks' is in the same place as 'pages': a clear() there" in message.msg


def test_both_are_one_warning() -> None:
    """It is one thing to be done about them."""
    (message,) = messages_of_default(pages=NOWHERE, sessions=NOWHERE)
    assert "what the site caches in and is in the same place as 'pages', 'sessions':" in message.msg


LOCMEM = f"{DJANGO}.locmem.LocMemCache"
HERE = "127.0.0.1:11211"


def memcached(location: Any, path: str = PYMEMCACHE) -> dict[str, Any]:
    return {"BACKEND": path, "LOCATION": location}


def redis(location: Any, path: str = REDIS, **options: Any) -> dict[str, Any]:
    return {"BACKEND": path, "LOCATION": location, "OPTIONS": options}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (memcached(HERE), memcached([HERE])),
        (memcached(HERE), memcached("127.0.0.1")),
        (memcached(HERE), memcached("localhost:11211")),
        (memcached(HERE), memcached("LOCALHOST")),
        (memcached(HERE), memcached([("127.0.0.1", 11211)])),
        (memcached(HERE), memcached("other:1;127.0.0.1:11211")),
        (memcached(HERE), memcached("other:1, 127.0.0.1:11211")),
        (memcached(HERE), memcached("127.0.0.1:11211:5", f"{DJANGO}.memcached.PyLibMCCache")),
        (memcached(HERE), memcached(HERE, f"{__name__}.ForeignCache")),
        (memcached("[::1]:1"), memcached("[::1]:1")),
        (memcached("[fe80::1]"), memcached("[FE80::1]:11211")),
        (memcached("unix:/run/m.sock"), memcached("/run/m.sock")),
        (redis("redis://127.0.0.1"), redis("redis://localhost:6379/0")),
        (redis("redis://127.0.0.1"), redis("redis://user:secret@127.0.0.1/")),
        (redis("redis://127.0.0.1"), redis("rediss://127.0.0.1:6379")),
        (redis("redis://cache/1"), redis("redis://cache?db=1")),
        (redis("redis://cache/1"), redis("redis://cache", db=1)),
        (redis("redis://cache/1"), redis("redis://cache", db="1")),
        (redis("redis://cache/1"), redis("redis://cache/1", db=2)),
        (redis("redis://cache/1"), redis("redis://cache/2?db=1")),
        (redis("redis://cache/x"), redis("redis://cache/0")),
        (redis("redis://cache"), redis("redis://cache", DJANGO_REDIS, db=1)),
        (
            redis("redis://cache/1"),
            redis("redis://cache", DJANGO_REDIS, CONNECTION_POOL_KWARGS={"db": 1}),
        ),
        (redis(["redis://a", "redis://b"]), redis("redis://b")),
        (redis("redis://a;redis://b"), redis("redis://b,redis://c")),
        (redis("unix:///run/r.sock?db=1"), redis("unix:///run/r.sock", db=1)),
    ],
)
def test_places_that_are_the_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    """However they are written."""
    with configured(one=one, other=other):
        assert shares_place("one", "other")
        assert shares_place("other", "one")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (memcached(HERE), memcached("127.0.0.1:11212")),
        (memcached(HERE), memcached("other")),
        (memcached(HERE), memcached("/127.0.0.1")),
        (memcached("127.0.0.1:6379"), redis("redis://127.0.0.1:6379")),
        (memcached(HERE), memcached(HERE, LOCMEM)),
        (memcached(HERE, LOCMEM), memcached(HERE, LOCMEM)),
        (memcached(HERE), {"BACKEND": f"{__name__}.ForeignCache"}),
        (redis("redis://cache"), redis("redis://cache/1")),
        (redis("redis://cache"), redis("redis://cache", db=1)),
        (redis("redis://cache"), redis("redis://cache:6380")),
        (redis("redis://cache"), redis("redis://other")),
        (redis("unix:///run/r.sock"), redis("unix:///run/r.sock?db=1")),
    ],
)
def test_places_that_are_not_the_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    """A database number of its own is enough, and so is a port."""
    with configured(one=one, other=other):
        assert not shares_place("one", "other")
        assert not shares_place("other", "one")


@pytest.mark.parametrize(
    "entry",
    [
        memcached([{"host": "a"}], f"{__name__}.ForeignCache"),
        memcached(5, f"{__name__}.ForeignCache"),
        redis("redis://cache:port"),
    ],
)
def test_location_that_is_not_understood_is_nowhere(entry: dict[str, Any]) -> None:
    """It is another's, or that one's mistake."""
    with configured(one=entry):
        assert places("one") == set()


def test_odd_server_is_itself() -> None:
    """Whoever connects to it tells what is wrong."""
    with configured(one=memcached("::1:2:3:4")):
        assert places("one") == {("memcached", "::1:2:3:4", 11211)}


@pytest.mark.parametrize("entry", [{}, {"BACKEND": "nowhere.Cache", "LOCATION": "cache"}])
def test_cache_that_cannot_be_made_does_not_hinder_the_check(entry: dict[str, Any]) -> None:
    """It may be no part of what locks need."""
    with configured(locks=NOWHERE, broken=entry):
        assert check_own_cache("jobs", "locks") == []


# django-redis, when it hides errors


@pytest.mark.parametrize(
    ("option", "setting", "warns"),
    [
        (None, None, False),
        (None, True, True),
        (None, False, False),
        (True, None, True),
        (True, False, True),
        (False, True, False),
    ],
)
def test_hidden_errors_are_warned_of(
    settings: Any, option: bool | None, setting: bool | None, warns: bool
) -> None:
    """Peer defect 16: cache calls can't tell a dead server from a key that is taken."""
    options = {} if option is None else {"IGNORE_EXCEPTIONS": option}
    if setting is not None:
        settings.DJANGO_REDIS_IGNORE_EXCEPTIONS = setting
    with configured(locks=redis("redis://cache", DJANGO_REDIS, **options)):
        found = check_ignored_exceptions("jobs", "locks")
    assert [message.id for message in found] == ["distlock.W003"] * warns
    for message in found:
        assert message.msg.startswith("DISTLOCK['jobs']: cache 'locks' has IGNORE_EXCEPTIONS: ")
        assert "Lock calls can" in message.msg


def test_other_caches_hide_no_errors(settings: Any) -> None:
    """The setting is django-redis's."""
    settings.DJANGO_REDIS_IGNORE_EXCEPTIONS = True
    with configured(locks=redis("redis://cache"), memory={"BACKEND": LOCMEM}):
        assert check_ignored_exceptions("jobs", "locks") == []
        assert check_ignored_exceptions("jobs", "memory") == []
