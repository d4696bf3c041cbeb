"""Locks in Redis: what is kept there, by how many commands, and by which connections."""

from __future__ import annotations

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from django.core.cache import caches
from redis import RedisCluster

from django_distlock import (
    LockBackendUnavailable,
    acquire_lock,
    clocks,
    distributed_lock,
    lock_backends,
)
from django_distlock.acquisitions import new_owner
from django_distlock.backends.redis import backend as module
from tests.support.concurrency import elsewhere, until
from tests.support.holders import acquire
from tests.support.processes import forked
from tests.support.redis_servers import connect, fill, place
from tests.support.redis_stores import (
    ALIAS,
    DJANGO,
    DJANGO_REDIS,
    commands,
    key_of,
    locks_of,
    waiting,
)

if TYPE_CHECKING:
    from tests.support.redis_servers import Cluster
    from tests.support.servers import Server

pytestmark = pytest.mark.needs("redis", "redis_cluster")
DAY = 86_400
JSON_AND_ZLIB = {
    "SERIALIZER": "django_redis.serializers.json.JSONSerializer",
    "COMPRESSOR": "django_redis.compressors.zlib.ZlibCompressor",
}

# Keys and values


@pytest.mark.parametrize("library", [DJANGO_REDIS, DJANGO])
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
        (DJANGO, {"options": {"protocol": 3}}),
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
            assert acquire_lock("a", backend=ALIAS) is None
            assert [lock.token for lock in store.held()] == [lease.token]
            with ThreadPoolExecutor(1) as thread:
                with distributed_lock("b", backend=ALIAS):
                    waits = thread.submit(acquire, ALIAS, "b", timeout=10)
                    until(lambda: waiting(redis_server, "b") == 1)
                assert waits.result(30).release()
        assert lease.release()


def test_cache_without_prefix_gives_none(redis_server: Server) -> None:
    """The key begins with the package's name."""
    with locks_of(redis_server, KEY_PREFIX="") as store, connect(redis_server) as client:
        acquire(ALIAS)
        assert client.exists("distlock:{a}")
        assert [lock.semaphore for lock in store.held()] == ["a"]


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


def test_keys_of_a_lock_are_in_one_slot(redis_cluster: Cluster) -> None:
    """Whatever its name."""
    with RedisCluster(*place(redis_cluster.nodes[0])) as client:
        store: Any = lock_backends["redis_cluster"]
        for semaphore in [*ODD, "a"]:
            assert len({client.keyslot(key) for key in store._keys(semaphore)}) == 1


def test_long_semaphores_are_not_cut(redis_server: Server) -> None:
    """Two that differ in their last character are two (peer defects 23, 24)."""
    with locks_of(redis_server):
        leases = [acquire(ALIAS, "☃" * 254 + last) for last in "ab"]
        assert [lease.release() for lease in leases] == [True, True]


@pytest.mark.parametrize("prefix", ["a*", "a?", "[ab]", "a\\", "a", "^", "a-"])
def test_prefix_is_no_pattern(redis_server: Server, prefix: str) -> None:
    """What stands for others in a pattern stands for itself."""
    names = ["a", "a*b", "a?b", "ab", "[ab]", "[ab]c", "a\\", "a\\b", "b", "^a", "a-z"]
    with locks_of(redis_server) as store:
        for name in names:
            acquire(ALIAS, name)
        found = [lock.semaphore for lock in store.held(prefix)]
        assert found == sorted(name for name in names if name.startswith(prefix))


def test_prefix_of_keys_is_no_pattern(redis_server: Server) -> None:
    """Nor are others' locks listed, whose prefix is alike."""
    with locks_of(redis_server, KEY_PREFIX="s?te*"):
        acquire(ALIAS, "theirs")
    with locks_of(redis_server, KEY_PREFIX="site"):
        acquire(ALIAS, "ours")
    with locks_of(redis_server, KEY_PREFIX="s?te*") as store:
        assert [lock.semaphore for lock in store.held()] == ["theirs"]


# Time


@pytest.mark.parametrize("ttl", [0.05, 0.5, 1.5])
def test_parts_of_a_second_count(redis_server: Server, ttl: float) -> None:
    """No lock is granted twice because they were cut off (peer defect 25)."""
    with locks_of(redis_server), connect(redis_server) as client:
        lease = acquire(ALIAS, ttl=ttl, renew=False)
        assert 0 < client.pttl(key_of()) <= ttl * 1000
        if ttl > 0.1:
            assert client.pttl(key_of()) > ttl * 1000 - 400
            assert acquire_lock("a", backend=ALIAS) is None
            lease.renew()
            assert ttl * 1000 - 400 < client.pttl(key_of()) <= ttl * 1000
            assert lease.release()


def test_least_ttl_is_rounded_up(redis_server: Server) -> None:
    """To a whole millisecond, which Redis counts in; 0 would be none."""
    with locks_of(redis_server) as store, connect(redis_server) as client:
        assert store.acquire("a", new_owner(), 0.001, "")
        until(lambda: not client.exists(key_of()))


def test_unlimited_ttl_has_no_end(redis_server: Server) -> None:
    """It is one holder's until he releases it (peer defect 17)."""
    with locks_of(redis_server) as store, connect(redis_server) as client:
        lease = acquire(ALIAS, ttl=None)
        assert client.pttl(key_of()) == -1
        assert [lock.expires_at for lock in store.held()] == [None]
        assert acquire_lock("a", backend=ALIAS, ttl=1) is None
        assert elsewhere(lambda: acquire_lock("a", backend=ALIAS, ttl=None)) is None
        lease.renew()
        assert client.pttl(key_of()) == -1
        assert lease.release()


def test_wait_for_part_of_a_second_ends(redis_server: Server) -> None:
    """It isn't cut to 0, which might mean for ever (peer defect 10)."""
    with locks_of(redis_server), distributed_lock("a", backend=ALIAS):
        before = clocks.monotonic()
        assert elsewhere(lambda: acquire_lock("a", backend=ALIAS, timeout=0.3)) is None
        assert 0.3 <= clocks.monotonic() - before < 2


# Round trips


def test_pair_takes_two_commands(redis_server: Server) -> None:
    """One script each, by its digest."""
    with locks_of(redis_server):
        assert acquire(ALIAS).release()
        with commands(redis_server) as seen:
            assert acquire(ALIAS).release()
    assert seen["evalsha"] == 2
    assert not seen.keys() & {"eval", "script|load", "hello", "select", "ping"}


def test_server_that_has_forgotten_the_scripts_gets_them_again(redis_server: Server) -> None:
    """Each action of its own."""
    with locks_of(redis_server) as store, connect(redis_server) as client:
        client.script_flush()
        lease = acquire(ALIAS)
        client.script_flush()
        lease.renew()
        client.script_flush()
        with ThreadPoolExecutor(1) as thread:
            waits = thread.submit(acquire, ALIAS, timeout=10)
            until(lambda: waiting(redis_server) == 1)
            client.script_flush()
            assert lease.release()
            successor = waits.result(30)
        client.script_flush()
        assert store.force_release("a", successor.token or 0)
        assert successor.release() is False


# Tokens


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
def test_token_far_ahead_of_the_clock_rises_by_one(redis_server: Server, last: int) -> None:
    """No digit is rounded."""
    with locks_of(redis_server) as store, connect(redis_server) as client:
        client.set(f"{key_of()}:token", last)
        lease = acquire(ALIAS)
        assert lease.token == last + 1
        assert [lock.token for lock in store.held()] == [last + 1]
        assert store.acquire("a", lease.owner, 60, "") == mock.ANY
        assert client.get(f"{key_of()}:token") == str(last + 1)
        assert lease.release()
        assert acquire(ALIAS).token == last + 2


# Listing


def test_listing_locks_among_a_million_keys_holds_nobody_up(redis_server: Server) -> None:
    """No command of it takes long, and others are served in between."""
    value = '{"owner":"#","token":#,"acquired_at":#,"holder":"somebody"}'
    fill(redis_server, 1_000_000, "SET", "site:1:#", "x")
    fill(redis_server, 10_000, "SET", key_of("#"), value, "PX", "600000")
    slowest = 0.0
    with (
        locks_of(redis_server) as store,
        connect(redis_server) as client,
        ThreadPoolExecutor(1) as thread,
    ):
        before = time.monotonic()
        with commands(redis_server) as seen:
            listing = thread.submit(lambda: [*store.held()])
            while not listing.done():
                asked = time.monotonic()
                client.ping()
                slowest = max(slowest, time.monotonic() - asked)
        assert time.monotonic() - before < 10
        assert sorted(int(lock.semaphore) for lock in listing.result()) == [*range(1, 10_001)]
    assert seen["scan"] > 900  # each looks at a thousand keys or so
    assert slowest < 0.5


def test_lock_that_is_scanned_twice_is_listed_once(redis_server: Server) -> None:
    """As happens while the server's table of keys shrinks."""
    value = '{"owner":"#","token":#,"acquired_at":#,"holder":"somebody"}'
    fill(redis_server, 300, "SET", key_of("#"), value)
    fill(redis_server, 20_000, "SET", "#", "x")
    with locks_of(redis_server) as store, connect(redis_server) as client:
        [node] = store._servers.all()
        ask = node.ask_all

        def scan_and_shrink(commands: Any, deadline: float) -> Any:
            answer = ask(commands, deadline)
            if commands[0][:2] == ("SCAN", 0):
                client.eval(SHRINK, 0)
            return answer

        with (
            mock.patch.object(node, "ask_all", scan_and_shrink),
            mock.patch.object(module, "SCANNED", 9_000),
        ):
            names = [lock.semaphore for lock in store.held()]
    assert sorted(names, key=int) == [str(number) for number in range(1, 301)]


SHRINK = "for number = 1, 20000 do redis.call('DEL', string.format('%d', number)) end"


@pytest.mark.parametrize("command", ["LPUSH", "SET"])
def test_foreign_key_in_the_place_of_a_lock_is_told(redis_server: Server, command: str) -> None:
    """It can't be listed, and a list can't be a lock."""
    with locks_of(redis_server) as store, connect(redis_server) as client:
        client.execute_command(command, key_of(), "not a lock")
        with pytest.raises(LockBackendUnavailable, match=r"distlock:\{a\}"):
            [*store.held()]
        if command == "LPUSH":
            with pytest.raises(LockBackendUnavailable, match="WRONGTYPE"):
                acquire_lock("a", backend=ALIAS)
            assert client.lrange(key_of(), 0, -1) == ["not a lock"]


# Connections


def connections(server: Server) -> int:
    """Return how many clients the server has, but for this one."""
    with connect(server) as client:
        return len(client.client_list()) - 1


def test_threads_have_a_connection_each_at_most(redis_server: Server) -> None:
    """And none is left after close()."""

    def work(number: int) -> int:
        for _ in range(20):
            with distributed_lock(str(number), backend=ALIAS, renew=False):
                pass
        return number

    with locks_of(redis_server) as store:
        with ThreadPoolExecutor(50) as threads:
            assert sum(threads.map(work, range(50))) == sum(range(50))
        assert 1 <= connections(redis_server) <= 50
        store.close()
        until(lambda: connections(redis_server) == 0)


def test_idle_process_has_no_connection(
    redis_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither for locks nor to listen."""
    monkeypatch.setattr("django_distlock.background.IDLE", 0.1)
    monkeypatch.setattr("django_distlock.background.backgrounds", {})
    monkeypatch.setattr("django_distlock.backends.redis.listening.IDLE", 0.1)
    with locks_of(redis_server):
        lease = acquire(ALIAS, ttl=1)
        assert elsewhere(lambda: acquire_lock("a", backend=ALIAS, timeout=0.05)) is None
        assert lease.release()
        until(lambda: connections(redis_server) == 0)


@pytest.mark.parametrize(
    ("library", "options"),
    [
        (DJANGO, {"max_connections": 2}),
        (DJANGO_REDIS, {"CONNECTION_POOL_KWARGS": {"max_connections": 2}}),
        (
            DJANGO_REDIS,
            {
                "CONNECTION_POOL_CLASS": "redis.BlockingConnectionPool",
                "CONNECTION_POOL_KWARGS": {"max_connections": 2, "timeout": 0.1},
            },
        ),
    ],
)
def test_connections_of_locks_are_none_of_the_caches(
    redis_server: Server, library: str, options: dict[str, Any]
) -> None:
    """However many have come and gone, or are there: the cache's pool has its own limit."""
    with locks_of(redis_server, library=library, options=options) as store:
        for _ in range(5):
            assert acquire(ALIAS).release()
            store.close()
        caches[ALIAS].set("a", 1)
        assert caches[ALIAS].get("a") == 1
        pool: Any = store._servers.all()[0].pool
        assert len(getattr(pool, "_connections", [])) <= 2


def test_connections_that_the_server_has_closed_are_not_used(redis_server: Server) -> None:
    """As it may close idle ones: no action fails by that."""
    with locks_of(redis_server) as store, connect(redis_server) as client:
        lease = acquire(ALIAS)
        for action in (
            lease.renew,
            lambda: [*store.held()],
            lambda: acquire_lock("a", backend=ALIAS),
            lambda: store.force_release("a", 1),
            lease.release,
        ):
            client.client_kill_filter(_type="normal", skipme=True)
            action()


@pytest.mark.parametrize("library", [DJANGO_REDIS, DJANGO])
def test_end_of_a_request_closes_no_locks_connection(
    redis_server: Server, library: str, settings: Any
) -> None:
    """Though the caches may be closed then."""
    settings.DJANGO_REDIS_CLOSE_CONNECTION = True
    with locks_of(redis_server, library=library):
        lease = acquire(ALIAS)
        caches[ALIAS].set("a", 1)
        with ThreadPoolExecutor(1) as thread:
            waits = thread.submit(acquire, ALIAS, timeout=10)
            until(lambda: waiting(redis_server) == 1)
            caches.close_all()  # as Django does then
            with commands(redis_server) as seen:
                assert lease.release()
                assert waits.result(30).release()
    assert not seen["subscribe"]
    assert seen["hello"] <= 1  # if both are at it at the same time


# Threads and forks


def test_forked_child_has_connections_of_its_own(redis_server: Server) -> None:
    """Both sides ask at the same time, each many times, and each gets its own answers."""

    def work() -> None:
        for number in range(300):
            with distributed_lock(f"{os.getpid()} {number}", backend=ALIAS, renew=False) as lease:
                assert lease.semaphore == f"{os.getpid()} {number}"
                assert acquire_lock("a", backend=ALIAS) is None

    def work_elsewhere() -> None:
        assert client_id(store) != parent
        work()

    with locks_of(redis_server) as store:
        lease = acquire(ALIAS)
        assert acquire_lock("a", backend=ALIAS) is None
        parent = client_id(store)
        with forked(work_elsewhere):
            work()
        assert lease.release()


def client_id(store: Any) -> int:
    """Return by which number the server knows the connection that is used next."""
    [node] = store._servers.all()
    [number] = node.ask_all([("CLIENT", "ID")], clocks.monotonic() + node.timeout)
    return int(number)
