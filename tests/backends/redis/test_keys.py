"""The keys and values of locks in Redis."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from redis import VERSION
from redis.crc import key_slot

from django_distlock import acquire_lock, distributed_lock
from tests.support.concurrency import until
from tests.support.holders import acquire
from tests.support.redis_servers import connect
from tests.support.redis_stores import (
    ALIAS,
    DJANGO,
    DJANGO_REDIS,
    key_of,
    locks_of,
    on_each_library,
    waiting,
)

if TYPE_CHECKING:
    from redis import RedisCluster

    from django_distlock.backends.redis import RedisBackend
    from tests.support.servers import Server


pytestmark = pytest.mark.needs("redis")


DAY = 86_400


JSON_AND_ZLIB = {
    "SERIALIZER": "django_redis.serializers.json.JSONSerializer",
    "COMPRESSOR": "django_redis.compressors.zlib.ZlibCompressor",
}


# Keys and values


@on_each_library
def test_lock_is_json_at_a_key_of_its_name(redis_server: Server, library: str) -> None:
    """Its last token has another key, which is kept for a day."""
    with locks_of(redis_server, library=library), connect(redis_server) as client:
        lease = acquire(ALIAS, label="a job")
        assert set(client.keys()) == {key_of(), f"{key_of()}:token"}
        assert json.loads(client.get(key_of()) or "") == {
            "owner": lease.owner,
            "token": lease.token,
            "acquired_at": int(lease.acquired_at.timestamp() * 1_000_000),
            "ttl": 60_000,
            "holder": lease.holder,
        }
        assert client.get(f"{key_of()}:token") == str(lease.token)
        assert lease.release()
        assert client.keys() == [f"{key_of()}:token"]
        assert DAY - 60 < client.ttl(f"{key_of()}:token") <= DAY


@pytest.mark.parametrize(
    ("library", "cache"),
    [
        (DJANGO_REDIS, {"VERSION": 7}),
        (DJANGO_REDIS, {"KEY_FUNCTION": "tests.support.redis_stores.key_of"}),
        (DJANGO_REDIS, {"options": JSON_AND_ZLIB}),
        (DJANGO_REDIS, {"options": {"IGNORE_EXCEPTIONS": True}}),
        (DJANGO, {"VERSION": 7}),
        (DJANGO, {"options": {"serializer": "django.core.cache.backends.redis.RedisSerializer"}}),
        (DJANGO, {"options": {"decode_responses": True}}),
        pytest.param(
            *(DJANGO, {"options": {"protocol": 3}}),
            marks=pytest.mark.skipif(VERSION < (5,), reason="redis-py speaks it from 5.0 on"),
        ),
        (DJANGO, {"options": {"health_check_interval": 1}}),
    ],
)
def test_cache_settings_for_values_do_not_matter(
    redis_server: Server, library: str, cache: dict[str, Any]
) -> None:
    """Otherwise a deployment with another version or setting would split each lock."""
    with locks_of(redis_server):
        lease = acquire(ALIAS)
        with locks_of(redis_server, library=library, **cache) as store:
            assert acquire_lock("1234collectPayment", backend=ALIAS) is None
            assert [lock.token for lock in store.held()] == [lease.token]
            with ThreadPoolExecutor(1) as thread:
                with distributed_lock("5678collectPayment", backend=ALIAS):
                    waits = thread.submit(acquire, ALIAS, "5678collectPayment", timeout=60)
                    until(lambda: waiting(redis_server, "5678collectPayment") == 1)
                assert waits.result(30).release()
        assert lease.release()


def test_cache_without_prefix_gives_none(redis_server: Server) -> None:
    """The key begins with the package's name."""
    with locks_of(redis_server, KEY_PREFIX="") as store, connect(redis_server) as client:
        acquire(ALIAS)
        assert client.exists("distlock:{1234collectPayment}")
        assert [lock.semaphore for lock in store.held()] == ["1234collectPayment"]


ODD = {
    "{": "%7B",
    "}x": "%7Dx",
    "a{b}c": "a%7Bb%7Dc",
    "%7D": "%257D",
    "%": "%25",
    "*?[a-z]^\\": "*?[a-z]^\\",
    "äöü ☃ 1:2/3|4": "äöü ☃ 1:2/3|4",
    '"owner":"x"': '"owner":"x"',
}


@pytest.mark.once
def test_odd_semaphores_are_encoded_and_listed_as_they_are(redis_server: Server) -> None:
    """Only the characters that would change the slot are; the rest stays readable."""
    with locks_of(redis_server) as store, connect(redis_server) as client:
        leases = [acquire(ALIAS, semaphore, label=semaphore) for semaphore in ODD]
        keys = {key_of(encoded) for encoded in ODD.values()}
        assert {key for key in client.scan_iter() if not key.endswith(":token")} == keys
        assert {lock.semaphore: lock.holder for lock in store.held()} == {
            lease.semaphore: lease.holder for lease in leases
        }
        for semaphore in ODD:
            assert [lock.semaphore for lock in store.held(semaphore)] == [semaphore] + [
                other for other in sorted(ODD) if other != semaphore and other.startswith(semaphore)
            ]
        assert [lease.release() for lease in leases] == [True] * len(ODD)


@pytest.mark.once
@pytest.mark.needs("redis_cluster")
@pytest.mark.parametrize("semaphore", [*ODD, "a"])
def test_keys_of_a_lock_are_in_one_slot(
    cluster_client: RedisCluster, cluster_store: RedisBackend, semaphore: str
) -> None:
    """For any semaphore: the lock's key, its last token's and its queue's."""
    key = key_of(ODD.get(semaphore, semaphore), prefix="")
    with distributed_lock(semaphore, backend=ALIAS):
        place = cluster_store.join(semaphore, "owner", "holder", print)
        assert place is not None
        keys = [key, f"{key}:token", f"{key}:queue"]
        assert [cluster_client.exists(each) for each in keys] == [1, 1, 1]
        assert len({key_slot(each.encode()) for each in keys}) == 1
        cluster_store.leave(place, False)


@pytest.mark.once
def test_long_semaphores_are_not_cut(redis_server: Server) -> None:
    """Two that differ in the last character are two locks (peer defects 23, 24)."""
    with locks_of(redis_server):
        leases = [acquire(ALIAS, "☃" * 254 + last) for last in "ab"]
        assert [lease.release() for lease in leases] == [True, True]


@pytest.mark.parametrize("prefix", ["a*", "a?", "[ab]", "a\\", "a", "^", "a-"])
@pytest.mark.once
def test_prefix_is_not_a_pattern(redis_server: Server, prefix: str) -> None:
    """The wildcards of patterns are taken literally."""
    names = ["a", "a*b", "a?b", "ab", "[ab]", "[ab]c", "a\\", "a\\b", "b", "^a", "a-z"]
    with locks_of(redis_server) as store:
        for name in names:
            acquire(ALIAS, name)
        found = [lock.semaphore for lock in store.held(prefix)]
        assert found == sorted(name for name in names if name.startswith(prefix))


@pytest.mark.once
def test_prefix_of_keys_is_not_a_pattern(redis_server: Server) -> None:
    """Locks with a similar prefix are not listed."""
    with locks_of(redis_server, KEY_PREFIX="s?te*"):
        acquire(ALIAS, "theirs")
    with locks_of(redis_server, KEY_PREFIX="site"):
        acquire(ALIAS, "ours")
    with locks_of(redis_server, KEY_PREFIX="s?te*") as store:
        assert [lock.semaphore for lock in store.held()] == ["theirs"]
