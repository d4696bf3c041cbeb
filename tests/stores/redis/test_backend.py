"""Locks in Redis: what is kept there, by how many commands, and by which connections."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from redis import VERSION
from redis.crc import key_slot

from django_distlock import LockBackendUnavailable, acquire_lock, clocks, distributed_lock
from django_distlock.backends.redis import listing as module
from django_distlock.backends.redis.nodes import Node
from django_distlock.leases.request import new_owner
from tests.support.concurrency import elsewhere, until
from tests.support.holders import acquire
from tests.support.redis_servers import connect, fill
from tests.support.redis_stores import (
    ALIAS,
    DJANGO,
    DJANGO_REDIS,
    commands,
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
    """Beside its last token, which is kept for a day."""
    with locks_of(redis_server, library=library), connect(redis_server) as client:
        lease = acquire(ALIAS, label="a job")
        assert set(client.keys()) == {key_of(), f"{key_of()}:token"}
        assert json.loads(client.get(key_of()) or "") == {
            "owner": lease.owner,
            "token": lease.token,
            "acquired_at": int(lease.acquired_at.timestamp() * 1_000_000),
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
def test_what_a_cache_does_with_values_matters_not(
    redis_server: Server, library: str, cache: dict[str, Any]
) -> None:
    """Or else a deployment with another version or setting would split each lock."""
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
    """Only what would change the slot is, so that people can read the rest."""
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
    """Whatever its name: those of the lock, its last token and its queue."""
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
    """Two that differ in their last character are two (peer defects 23, 24)."""
    with locks_of(redis_server):
        leases = [acquire(ALIAS, "☃" * 254 + last) for last in "ab"]
        assert [lease.release() for lease in leases] == [True, True]


@pytest.mark.parametrize("prefix", ["a*", "a?", "[ab]", "a\\", "a", "^", "a-"])
@pytest.mark.once
def test_prefix_is_no_pattern(redis_server: Server, prefix: str) -> None:
    """What stands for others in a pattern stands for itself."""
    names = ["a", "a*b", "a?b", "ab", "[ab]", "[ab]c", "a\\", "a\\b", "b", "^a", "a-z"]
    with locks_of(redis_server) as store:
        for name in names:
            acquire(ALIAS, name)
        found = [lock.semaphore for lock in store.held(prefix)]
        assert found == sorted(name for name in names if name.startswith(prefix))


@pytest.mark.once
def test_prefix_of_keys_is_no_pattern(redis_server: Server) -> None:
    """Nor are others' locks listed, whose prefix is alike."""
    with locks_of(redis_server, KEY_PREFIX="s?te*"):
        acquire(ALIAS, "theirs")
    with locks_of(redis_server, KEY_PREFIX="site"):
        acquire(ALIAS, "ours")
    with locks_of(redis_server, KEY_PREFIX="s?te*") as store:
        assert [lock.semaphore for lock in store.held()] == ["theirs"]


# Time


@pytest.mark.parametrize("ttl", [30.05, 60.5, 61.999])
@pytest.mark.once
def test_parts_of_a_second_count(redis_server: Server, ttl: float) -> None:
    """No lock is granted twice because they were cut off (peer defect 25)."""
    with locks_of(redis_server):
        lease = acquire(ALIAS, ttl=ttl, renew=False)
        assert lease.acquired_at.timestamp() + ttl == end_of_lock(redis_server)
        assert acquire_lock("1234collectPayment", backend=ALIAS) is None
        lease.renew()
        assert lease.expires_at is not None
        assert lease.expires_at.timestamp() == end_of_lock(redis_server)
        assert lease.release()


def end_of_lock(server: Server) -> Any:
    """Return when the lock ends, by the server, which counts milliseconds; to be compared."""
    with connect(server) as client:
        readings = []
        for _ in range(20):
            with client.pipeline() as both:
                before, left, after = both.time().pttl(key_of()).time().execute()
            began, ended = (
                seconds + microseconds / 1e6 for seconds, microseconds in (before, after)
            )
            readings.append((ended - began, began + left / 1000))
    _, end = min(readings)  # it stalled the least in between
    return pytest.approx(end, abs=0.002)


@pytest.mark.once
def test_least_ttl_is_rounded_up(redis_server: Server) -> None:
    """To a whole millisecond, which Redis counts in; 0 would be none."""
    with locks_of(redis_server) as store, connect(redis_server) as client:
        assert store.acquire("1234collectPayment", new_owner(), 0.001, "")
        until(lambda: not client.exists(key_of()))


@pytest.mark.once
def test_unlimited_ttl_has_no_end(redis_server: Server) -> None:
    """It is one holder's until he releases it (peer defect 17)."""
    with locks_of(redis_server) as store, connect(redis_server) as client:
        lease = acquire(ALIAS, ttl=None)
        assert client.pttl(key_of()) == -1
        assert [lock.expires_at for lock in store.held()] == [None]
        assert acquire_lock("1234collectPayment", backend=ALIAS, ttl=1) is None
        assert (
            elsewhere(lambda: acquire_lock("1234collectPayment", backend=ALIAS, ttl=None)) is None
        )
        lease.renew()
        assert client.pttl(key_of()) == -1
        assert lease.release()


@pytest.mark.once
def test_wait_for_part_of_a_second_ends(redis_server: Server) -> None:
    """It isn't cut to 0, which might mean for ever (peer defect 10)."""
    with locks_of(redis_server), distributed_lock("1234collectPayment", backend=ALIAS):
        before = clocks.monotonic()
        assert (
            elsewhere(lambda: acquire_lock("1234collectPayment", backend=ALIAS, timeout=0.3))
            is None
        )
        assert 0.3 <= clocks.monotonic() - before < 30


# Round trips


@pytest.mark.once
def test_pair_takes_two_commands(redis_server: Server) -> None:
    """One script each, by its digest."""
    with locks_of(redis_server):
        assert acquire(ALIAS).release()
        with commands(redis_server) as seen:
            assert acquire(ALIAS).release()
    assert seen["evalsha"] == 2
    assert not seen.keys() & {"eval", "script|load", "hello", "select", "ping"}


@pytest.mark.once
def test_server_that_has_forgotten_the_scripts_gets_them_again(redis_server: Server) -> None:
    """Each action of its own."""
    with locks_of(redis_server) as store, connect(redis_server) as client:
        client.script_flush()
        lease = acquire(ALIAS)
        client.script_flush()
        lease.renew()
        client.script_flush()
        with ThreadPoolExecutor(1) as thread:
            waits = thread.submit(acquire, ALIAS, timeout=60)
            until(lambda: waiting(redis_server) == 1)
            client.script_flush()
            assert lease.release()
            successor = waits.result(30)
        client.script_flush()
        assert store.force_release("1234collectPayment", successor.token or 0)
        assert successor.release() is False


# Tokens


@pytest.mark.once
def test_tokens_rise_though_the_last_one_is_lost(redis_server: Server) -> None:
    """With all of the database, or alone; they are exact."""
    with locks_of(redis_server), connect(redis_server) as client:
        tokens = []
        for forget in (client.flushdb, lambda: client.delete(f"{key_of()}:token"), client.ping):
            lease = acquire(ALIAS)
            tokens.append(lease.token)
            assert client.get(f"{key_of()}:token") == str(lease.token)
            lease.release()
            forget()
    assert all(token and token > 10**15 for token in tokens)
    assert tokens == sorted(set(tokens), key=lambda token: token or 0)


@pytest.mark.parametrize("last", [2**53 - 3, 9_007_199_254_740_001, 3_000_000_000_000_001])
@pytest.mark.once
def test_token_far_ahead_of_the_clock_rises_by_one(redis_server: Server, last: int) -> None:
    """No digit is rounded."""
    with locks_of(redis_server) as store, connect(redis_server) as client:
        client.set(f"{key_of()}:token", last)
        lease = acquire(ALIAS)
        assert lease.token == last + 1
        assert [lock.token for lock in store.held()] == [last + 1]
        assert store.acquire("1234collectPayment", lease.owner, 60, "") == mock.ANY
        assert client.get(f"{key_of()}:token") == str(last + 1)
        assert lease.release()
        assert acquire(ALIAS).token == last + 2


# Listing


@pytest.mark.once
def test_listing_locks_among_many_keys_holds_nobody_up(
    redis_server: Server, sent: list[int]
) -> None:
    """Others are served in between: no request of it is for more than a thousand keys or so."""
    value = '{"owner":"#","token":#,"acquired_at":#,"holder":"somebody"}'
    fill(redis_server, 100_000, "SET", "site:1:#", "x")
    fill(redis_server, 1_000, "SET", key_of("#"), value, "PX", "600000")
    with locks_of(redis_server) as store:
        with commands(redis_server) as seen:
            listed = [*store.held()]
        assert sorted(int(lock.semaphore) for lock in listed) == [*range(1, 1_001)]
    assert seen["scan"] > 90
    assert max(sent) < 1_000  # at once, of the locks that a look has found


@pytest.mark.once
def test_lock_that_is_scanned_twice_is_listed_once(
    redis_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As happens while the server's table of keys shrinks."""
    value = '{"owner":"#","token":#,"acquired_at":#,"holder":"somebody"}'
    fill(redis_server, 300, "SET", key_of("#"), value)
    fill(redis_server, 20_000, "SET", "#", "x")
    ask_all = Node.ask_all
    with locks_of(redis_server) as store, connect(redis_server) as client:

        def scan_and_shrink(node: Node, requests: Any, *arguments: Any) -> list[Any]:
            answers = ask_all(node, requests, *arguments)
            if requests[0][:2] == ("SCAN", 0):
                client.eval(SHRINK, 0)
            return answers

        monkeypatch.setattr(Node, "ask_all", scan_and_shrink)
        monkeypatch.setattr(module, "SCANNED", 9_000)
        names = [lock.semaphore for lock in store.held()]
    assert sorted(names, key=int) == [str(number) for number in range(1, 301)]


SHRINK = "for number = 1, 20000 do redis.call('DEL', string.format('%d', number)) end"


@pytest.mark.parametrize("command", ["LPUSH", "SET"])
@pytest.mark.once
def test_foreign_key_in_the_place_of_a_lock_is_told(redis_server: Server, command: str) -> None:
    """It can't be listed, and a list can't be a lock."""
    with locks_of(redis_server) as store, connect(redis_server) as client:
        client.execute_command(command, key_of(), "not a lock")
        with pytest.raises(LockBackendUnavailable, match=r"distlock:\{1234collectPayment\}"):
            [*store.held()]
        if command == "LPUSH":
            with pytest.raises(LockBackendUnavailable, match="WRONGTYPE"):
                acquire_lock("1234collectPayment", backend=ALIAS)
            assert client.lrange(key_of(), 0, -1) == ["not a lock"]
