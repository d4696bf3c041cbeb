"""Pauses in Redis: what they cost, when waiters get the lock, and where they can't be kept.

tests/contract has the tests for all stores.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from redis import Redis

from django_distlock import LockBackendUnavailable, acquire_lock
from django_distlock.backends.redis import scripts
from django_distlock.exceptions import LockNotSupported
from django_distlock.leases.request import new_owner
from django_distlock.records import Grant, Refusal
from tests.support.concurrency import run, until
from tests.support.holders import acquire
from tests.support.redis_in_clusters import acquire_async
from tests.support.redis_servers import cluster_node, connect, place
from tests.support.redis_stores import ALIAS, key_of, locks_at, locks_by, locks_of, waiting
from tests.support.redis_waiters import claim, join, user

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

    from django_distlock.backends.redis import RedisBackend
    from tests.support.servers import Server

pytestmark = [pytest.mark.needs("redis"), pytest.mark.once]

SEMAPHORE = "1234collectPayment"
PAUSES = "site:distlock:pauses"


def test_refusal_takes_one_round_trip_and_says_why(
    redis_store: RedisBackend, asked: list[Any]
) -> None:
    """It is the same script, in sync and async code."""
    pause = redis_store.pause("1234", 60, reason="deploy", by="ann")
    redis_store.acquire(SEMAPHORE, new_owner(), 60, "")  # the server gets the script
    asked.clear()
    refusal = redis_store.acquire(SEMAPHORE, new_owner(), 60, "")
    assert asked == [scripts.ACQUIRE.digest]
    assert isinstance(refusal, Refusal)
    assert (refusal.reason, refusal.expires_at) == ("paused: deploy", pause.until)
    assert refusal.holder == ""
    assert refusal.seen_at is not None
    assert pause.since < refusal.seen_at
    assert run(acquire_async(redis_store, SEMAPHORE)).reason == "paused: deploy"
    assert run(acquire_async(redis_store, "234collectPayment"))


@pytest.mark.parametrize("prefix", ["", "{a}%:", "☃", "a*", "a[b]"])
def test_prefix_is_taken_literally(redis_store: RedisBackend, prefix: str) -> None:
    """Though braces and percent signs are encoded in keys."""
    redis_store.pause(prefix)
    assert [pause.prefix for pause in redis_store.pauses()] == [prefix]
    for semaphore in ("{a}%:1", "{a}:1", "☃ 1", "a*", "ab", "a[b]", "%7Ba%7D%25:1"):
        refused = not redis_store.acquire(semaphore, "owner", 60, "")
        assert refused == semaphore.startswith(prefix)
    assert redis_store.resume(prefix)


def test_of_several_pauses_the_last_to_end_is_told(redis_store: RedisBackend) -> None:
    """One that lasts until it is resumed is later than all others."""
    for prefix, seconds in (("1", 300), ("12", 900), ("123", 600), ("2", 9_000)):
        redis_store.pause(prefix, seconds, reason=prefix)
    assert reason(redis_store) == "paused: 12"
    redis_store.pause("", None, reason="all")
    assert reason(redis_store) == "paused: all"
    assert redis_store.resume("")
    assert redis_store.resume("12")
    assert reason(redis_store) == "paused: 123"
    assert not redis_store.resume("12")


def test_pauses_of_another_site_concern_nobody_here(
    redis_server: Server, redis_store: RedisBackend
) -> None:
    """The key begins with the cache's prefix, as those of locks do."""
    redis_store.pause("")
    with locks_of(redis_server, KEY_PREFIX="other"):
        assert acquire(ALIAS).release()


def test_key_of_the_pauses_expires_with_the_last(
    redis_server: Server, redis_store: RedisBackend
) -> None:
    """So that grants don't look at pauses that have ended; by the server's clock."""
    with connect(redis_server) as client:
        redis_store.pause("a", 600)
        redis_store.pause("b", 0.001)
        assert 599_000 < client.pttl(PAUSES) <= 600_000
        until(lambda: [pause.prefix for pause in redis_store.pauses()] == ["a"])
        assert client.hlen(PAUSES) == 1
        redis_store.pause("c")
        assert client.pttl(PAUSES) == -1
        assert redis_store.resume("c")
        assert 0 < client.pttl(PAUSES) <= 600_000
        assert redis_store.resume("a")
        assert not client.exists(PAUSES)
        redis_store.pause("a", 0.001)
        until(lambda: not client.exists(PAUSES))
        assert not redis_store.resume("a")


def test_release_while_paused_frees_the_lock_and_keeps_the_queue(
    redis_server: Server, redis_store: RedisBackend, threads: ThreadPoolExecutor
) -> None:
    """The waiter, who polls only every five seconds, gets the lock soon after the pause."""
    lease = acquire(ALIAS)
    wait = threads.submit(acquire, ALIAS, timeout=60)
    until(lambda: waiting(redis_server) == 1)
    redis_store.pause("1234", 600)
    lease.renew()
    assert lease.release()
    assert redis_store.find(SEMAPHORE) is None
    assert [waiter.holder for waiter in redis_store.waiters(SEMAPHORE) or []]
    assert acquire_lock(SEMAPHORE, backend=ALIAS) is None
    redis_store.pause("1234", 0.2)
    successor = wait.result(4)
    assert redis_store.pauses() == []
    assert successor.release()


def test_paused_lock_can_be_force_released(redis_store: RedisBackend) -> None:
    """It is offered to nobody."""
    lease = acquire(ALIAS, renew=False)
    waiter = join(redis_store, SEMAPHORE, "waiter")
    redis_store.pause("")
    assert redis_store.force_release(SEMAPHORE, lease.token or 0, by="ann")
    assert redis_store.find(SEMAPHORE) is None
    assert not lease.release()
    waiter.leave(granted=False)
    assert redis_store.find(SEMAPHORE) is None


def test_offer_from_before_the_pause_is_withdrawn(redis_store: RedisBackend) -> None:
    """The waiter would begin its work in the pause; who had the lock already goes on."""
    assert redis_store.acquire(SEMAPHORE, "owner", 60, "")
    waiter = join(redis_store, SEMAPHORE, "waiter")
    assert redis_store.release(claim(SEMAPHORE, "owner"))
    assert redis_store.acquire("1234other", "owner", 60, "")
    redis_store.pause("1234")
    assert reason(redis_store, owner="waiter") == "paused"
    assert redis_store.find(SEMAPHORE) is None
    assert isinstance(redis_store.acquire("1234other", "owner", 60, ""), Grant)
    assert redis_store.resume("1234")
    assert redis_store.acquire(SEMAPHORE, "waiter", 60, "")
    waiter.leave(granted=True)


def test_unpaused_store_has_no_key_of_pauses(
    redis_server: Server, redis_store: RedisBackend
) -> None:
    """So nothing but its existence is looked at."""
    assert redis_store.pauses() == []
    assert not redis_store.resume("")
    with connect(redis_server) as client:
        assert not client.exists(PAUSES)


def test_text_of_a_pause_is_kept_as_it_is(redis_server: Server, redis_store: RedisBackend) -> None:
    """Whatever it contains; times are exact."""
    pause = redis_store.pause("<b>", 86_400, reason='"},{☃"until":1', by='<script>"')
    assert redis_store.pauses() == [pause]
    with connect(redis_server) as client:
        [value] = client.hvals(PAUSES)
    assert json.loads(value)["since"] == round(pause.since.timestamp() * 1_000_000)


@pytest.mark.needs("redis_cluster")
def test_cluster_says_that_it_cannot_pause(cluster_store: RedisBackend) -> None:
    """The pauses would be at one node, and locks at others."""
    assert not cluster_store.supports_pausing
    assert cluster_store.pauses() == []
    for call in (cluster_store.pause, cluster_store.resume):
        with pytest.raises(LockNotSupported, match="a Redis Cluster can't pause locks"):
            call("1234")


CLIENTS: list[tuple[str, int]] = []


def plain_client() -> Redis:
    """Return a client that knows nothing of clusters."""
    return Redis(*CLIENTS[-1])


def test_cluster_behind_one_address_says_so_too() -> None:
    """Whether it has been asked for a lock before, or not; locks and their queues work."""
    with cluster_node().begin() as node, connect(node) as client:
        client.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16_383)
        until(lambda: client.execute_command("CLUSTER INFO")["cluster_state"] == "ok")
        CLIENTS.append(place(node))
        with locks_by(client=f"{__name__}.plain_client", store_timeout=5) as store:
            with pytest.raises(LockNotSupported, match="a Redis Cluster"):
                store.pause("1234")
            assert not client.exists("distlock:pauses")
            assert not store.supports_pausing
        with locks_by(client=f"{__name__}.plain_client", store_timeout=6) as store:
            supported = [store.supports_pausing]  # as far as it knows
            assert store.acquire(SEMAPHORE, "owner", 60, "")
            assert [*supported, store.supports_pausing] == [True, False]
            waiter = join(store, SEMAPHORE, "waiter")
            assert store.release(claim(SEMAPHORE, "owner"))
            assert store.acquire(SEMAPHORE, "waiter", 60, "")
            waiter.leave(granted=True)
            assert [lock.semaphore for lock in store.held()] == [SEMAPHORE]


def test_user_without_the_right_to_the_pauses_gets_no_lock(redis_server: Server) -> None:
    """A pause would not keep it out. The error names the right that is missing."""
    with user(redis_server, "narrow", "resetkeys", "~site:distlock:{*") as location:
        with locks_at("", location=location):
            with pytest.raises(LockBackendUnavailable, match="NOPERM"):
                acquire_lock(SEMAPHORE, backend=ALIAS)


def test_keys_of_locks_are_not_those_of_pauses(redis_store: RedisBackend) -> None:
    """Whatever a semaphore is called."""
    redis_store.pause("x")
    assert redis_store.acquire("pauses", "owner", 60, "")
    assert key_of("pauses") != PAUSES
    assert [lock.semaphore for lock in redis_store.held()] == ["pauses"]


def reason(store: RedisBackend, owner: str = "another", semaphore: str = SEMAPHORE) -> str:
    """Return why the lock isn't granted."""
    refusal = store.acquire(semaphore, owner, 60, "")
    assert isinstance(refusal, Refusal)
    return refusal.reason
