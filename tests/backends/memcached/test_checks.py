"""Which settings of a lock store in Memcached are refused."""

from __future__ import annotations

from typing import Any

import pytest

from django_distlock import InvalidLockBackend, acquire_lock
from tests.support.holders import acquire
from tests.support.memcached_stores import ask, configured, key_of, on_memcached

MONTH = 30 * 24 * 60 * 60
pytestmark = on_memcached


def invalid(alias: str, cache: dict[str, Any] | None = None, **options: Any) -> str:
    """Return the check's messages about such settings."""
    with pytest.raises(InvalidLockBackend) as caught:
        with configured(alias, cache, **options):
            pytest.fail("they are accepted")
    start = f"DISTLOCK[{alias!r}]: "
    assert str(caught.value).startswith(start)
    return str(caught.value).removeprefix(start)


@pytest.mark.parametrize(
    ("ttl", "reason"),
    [
        (None, "MemcachedBackend has no unlimited ttl; give seconds."),
        (0.5, "must be from 1 to 2591998 seconds."),
        (1.5, "ttl is 1.5, but Memcached counts whole seconds: give 2."),
        (MONTH, "must be from 1 to 2591998 seconds."),
        (MONTH * 12, "must be from 1 to 2591998 seconds."),
    ],
)
def test_ttl_that_memcached_cannot_keep_is_refused(
    alias: str, ttl: float | None, reason: str
) -> None:
    """In a call, and in the settings; the error says what to write (peer defects 17 and 25)."""
    with pytest.raises(ValueError, match=reason):
        acquire_lock("1234collectPayment", ttl=ttl, backend=alias)
    assert reason in invalid(alias, ttl=ttl)


# Prefixes of keys


def test_clients_own_prefix_counts(alias: str) -> None:
    """As it does for the site's cache entries."""
    own = {"key_prefix": b"own"}
    with configured(alias, {"OPTIONS": own}):
        assert acquire(alias)
        assert ask(alias, f"mg own{key_of()} v")[0] == "VA 32"
        assert own_prefix_is_counted(alias, own)


def own_prefix_is_counted(alias: str, options: dict[str, Any]) -> bool:
    """Return whether it makes keys too long that would fit without it."""
    return "take 251 bytes" in invalid(alias, {"KEY_PREFIX": "p" * 174, "OPTIONS": options})


@pytest.mark.parametrize(
    ("prefix", "bytes_taken"),
    [("p" * 177, 251), ("ä" * 100, 274), ("a b", 77), ("a\n", 76), ("a\x7f", 76)],
)
def test_impossible_key_prefix_is_refused(alias: str, prefix: str, bytes_taken: int) -> None:
    """Before the first acquisition."""
    said = invalid(alias, {"KEY_PREFIX": prefix})
    assert said.startswith(f"cache {alias!r} has KEY_PREFIX {prefix!r}, with which keys of locks")
    assert f"take {bytes_taken} bytes" in said


@pytest.mark.parametrize("prefix", ["p" * 176, "ä" * 88])
def test_longest_key_prefix_is_possible(alias: str, prefix: str) -> None:
    """Keys then have 250 bytes."""
    with configured(alias, {"KEY_PREFIX": prefix}):
        assert acquire(alias).release()


# Servers


@pytest.mark.parametrize("location", [["a:1", "b:1"], ("a:1", "b:1"), "a:1;b:1", "a:1,b:1", []])
def test_several_servers_are_refused(alias: str, location: Any) -> None:
    """A remap would grant held locks."""
    said = invalid(alias, {"LOCATION": location})
    assert f"cache {alias!r} has {len(location) and 2} servers in its LOCATION, but" in said


@pytest.mark.parametrize("seconds", [0, -1, 61, "2", True, None, float("nan")])
def test_impossible_store_timeout_is_refused(alias: str, seconds: Any) -> None:
    """It limits how long a hanging server holds up a call."""
    assert invalid(alias, store_timeout=seconds) in (
        f"store_timeout is {seconds!r}, but must be from 0.01 to 60 seconds.",
        f"store_timeout is a number of seconds, not {seconds!r}.",
    )


def test_server_that_no_client_understands_is_refused(alias: str) -> None:
    """At once, and not at the first acquisition."""
    said = invalid(alias, {"LOCATION": "127.0.0.1:port"})
    assert said.startswith(f"cache {alias!r} makes no client: ValueError(")
