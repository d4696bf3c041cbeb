"""The system checks on the caches of lock stores: whether others use the same server."""

from __future__ import annotations

from typing import Any

import pytest
from django.core import checks
from django.test import override_settings

from django_distlock.backends.cache_checks import (
    check_ignored_exceptions,
    check_own_cache,
    locations,
    share_server,
)
from django_distlock.backends.memcached import MemcachedBackend
from django_distlock.checks import check_lock_backends
from tests.support import caches as own
from tests.support.caches import (
    DJANGO,
    DJANGO_REDIS,
    MEMCACHED_BACKEND,
    NOWHERE,
    PYMEMCACHE,
    REDIS,
    configured,
)


def messages(**entries: dict[str, Any]) -> list[checks.CheckMessage]:
    """Return the check's messages about locks in the cache "locks"."""
    options = {"cache": "locks"}
    distlock = {"jobs": {"BACKEND": MEMCACHED_BACKEND, "OPTIONS": options}}
    with configured(**entries), override_settings(DISTLOCK=distlock):
        return [*check_lock_backends()]


def test_cache_that_cannot_be_used_is_an_error() -> None:
    """`manage.py check` says so."""
    (message,) = messages(locks={"BACKEND": f"{DJANGO}.dummy.DummyCache"})
    assert (message.id, message.level) == ("distlock.E001", checks.ERROR)
    assert message.msg.startswith("DISTLOCK['jobs']: cache 'locks' is a DummyCache, which ")


def test_separate_cache_has_no_messages() -> None:
    """The other caches are on other servers."""
    assert messages(locks=NOWHERE, others=NOWHERE | {"LOCATION": "127.0.0.1:2"}) == []


def test_default_cache_is_warned_of() -> None:
    """The site's cache entries are there, and some day the cache is cleared."""
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
    """Another KEY_PREFIX doesn't help: clear() flushes the server."""
    (message,) = messages(
        locks=NOWHERE, pages=NOWHERE | {"KEY_PREFIX": "p"}, others=NOWHERE | {"LOCATION": "b:1"}
    )
    assert message.id == "distlock.W002"
    assert "cache 'locks' is in the same place as 'pages': a clear() there" in message.msg


def test_both_are_one_warning() -> None:
    """Both have the same remedy."""
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
        (memcached(HERE), memcached(HERE, f"{own.__name__}.ForeignCache")),
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
    """In any notation."""
    with configured(one=one, other=other):
        assert share_server("one", "other")
        assert share_server("other", "one")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (memcached(HERE), memcached("127.0.0.1:11212")),
        (memcached(HERE), memcached("other")),
        (memcached(HERE), memcached("/127.0.0.1")),
        (memcached("127.0.0.1:6379"), redis("redis://127.0.0.1:6379")),
        (memcached(HERE), memcached(HERE, LOCMEM)),
        (memcached(HERE, LOCMEM), memcached(HERE, LOCMEM)),
        (memcached(HERE), {"BACKEND": f"{own.__name__}.ForeignCache"}),
        (redis("redis://cache"), redis("redis://cache/1")),
        (redis("redis://cache"), redis("redis://cache", db=1)),
        (redis("redis://cache"), redis("redis://cache:6380")),
        (redis("redis://cache"), redis("redis://other")),
        (redis("unix:///run/r.sock"), redis("unix:///run/r.sock?db=1")),
    ],
)
def test_places_that_are_not_the_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    """A separate database number or port is enough."""
    with configured(one=one, other=other):
        assert not share_server("one", "other")
        assert not share_server("other", "one")


@pytest.mark.parametrize(
    "entry",
    [
        memcached([{"host": "a"}], f"{own.__name__}.ForeignCache"),
        memcached(5, f"{own.__name__}.ForeignCache"),
        redis("redis://cache:port"),
    ],
)
def test_location_that_is_not_understood_is_nowhere(entry: dict[str, Any]) -> None:
    """It may be of another backend, or a mistake in that cache's settings."""
    with configured(one=entry):
        assert locations("one") == set()


def test_odd_server_is_itself() -> None:
    """Its client reports the mistake when it connects."""
    with configured(one=memcached("::1:2:3:4")):
        assert locations("one") == {("memcached", "::1:2:3:4", 11211)}


@pytest.mark.parametrize("entry", [{}, {"BACKEND": "nowhere.Cache", "LOCATION": "cache"}])
def test_cache_that_cannot_be_made_does_not_hinder_the_check(entry: dict[str, Any]) -> None:
    """Locks may not use that cache."""
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
