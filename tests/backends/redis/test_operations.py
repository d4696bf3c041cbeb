"""What Redis tells operators of its locks, and what that costs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from django_distlock.backends.redis import operations, scripts
from django_distlock.backends.redis.keys import KeySpace
from django_distlock.leases.request import new_owner
from django_distlock.records import (
    KEPT,
    LeaseClaim,
    LockQuery,
    LockState,
    Refusal,
    SearchScope,
)
from tests.support.concurrency import until
from tests.support.holders import acquire
from tests.support.redis_servers import connect, fill
from tests.support.redis_stores import ALIAS, key_of
from tests.support.redis_waiters import claim, join

if TYPE_CHECKING:
    from datetime import datetime

    from django_distlock.backends.redis import RedisBackend
    from django_distlock.records import LockInfo
    from tests.support.servers import Server

pytestmark = [pytest.mark.needs("redis"), pytest.mark.once]

SEMAPHORE = "1234collectPayment"
HELD = '{"owner":"#","token":#,"acquired_at":#,"ttl":600000,"holder":"web-# pid 1 MainThread"}'


# Refusals


def test_refusal_tells_of_the_holder_in_the_same_round_trip(
    redis_store: RedisBackend, asked: list[Any]
) -> None:
    """But never the owner."""
    lease = acquire(ALIAS, label="collect", renew=False)
    redis_store.acquire(SEMAPHORE, new_owner(), 60, "")  # the server gets the script
    asked.clear()
    refusal = redis_store.acquire(SEMAPHORE, new_owner(), 60, "")
    assert asked == [scripts.ACQUIRE.digest]
    assert isinstance(refusal, Refusal)
    assert (refusal.holder, refusal.acquired_at) == (lease.holder, lease.acquired_at)
    assert refusal.seen_at is not None
    assert lease.acquired_at < refusal.seen_at
    assert is_near(refusal.expires_at, lease.expires_at)
    assert lease.owner not in repr(refusal)


def test_refusal_by_a_lock_without_end_has_none(redis_store: RedisBackend) -> None:
    """Only its holder ends it."""
    acquire(ALIAS, ttl=None, min_hold=0)
    refusal = redis_store.acquire(SEMAPHORE, new_owner(), 60, "")
    assert isinstance(refusal, Refusal)
    assert (refusal.expires_at, refusal.reason) == (None, "")


def test_refusal_says_that_a_released_lock_is_kept(redis_store: RedisBackend) -> None:
    """And who had it, until when."""
    redis_store.acquire(SEMAPHORE, "owner", 60, "holder")
    redis_store.release(claim(SEMAPHORE, "owner"), keep=30)
    refusal = redis_store.acquire(SEMAPHORE, new_owner(), 60, "")
    assert isinstance(refusal, Refusal)
    assert refusal.seen_at is not None
    assert refusal.expires_at is not None
    assert (refusal.reason, refusal.holder) == (KEPT, "holder")
    assert 29 < (refusal.expires_at - refusal.seen_at).total_seconds() <= 30


def test_refusal_by_an_offer_tells_of_the_waiter(redis_store: RedisBackend) -> None:
    """It is about to take the lock."""
    redis_store.acquire(SEMAPHORE, "owner", 60, "holder")
    place = join(redis_store, SEMAPHORE, "waiter")
    assert redis_store.release(claim(SEMAPHORE, "owner"))
    refusal = redis_store.acquire(SEMAPHORE, new_owner(), 60, "")
    assert isinstance(refusal, Refusal)
    assert refusal.holder == "waiter's holder"
    place.leave(granted=False)


def test_server_tells_no_client_the_owner(redis_store: RedisBackend, redis_server: Server) -> None:
    """An answer may be read on its way, or be in a log: a reader of the owner can release."""
    lease = acquire(ALIAS, label="collect")
    place = join(redis_store, SEMAPHORE, "secret")
    keys = KeySpace("site:").all(SEMAPHORE)
    with connect(redis_server) as client:
        for script, arguments in (
            (scripts.ACQUIRE, (new_owner(), 60_000, '""')),
            (scripts.DESCRIBE, ()),
            (scripts.WAITERS, ()),
        ):
            answer = str(client.eval(script.source, len(keys), *keys, *arguments))
            assert "collect" in answer or "s holder" in answer
            assert lease.owner not in answer
            assert "secret" not in answer
    redis_store.leave(place, granted=False)


# What is listed of a lock


def test_lock_tells_of_its_last_renewal(redis_store: RedisBackend) -> None:
    """With the same ttl, with another one, and none after it was acquired again."""
    granted = redis_store.acquire(SEMAPHORE, "owner", 60, "holder")
    assert granted
    assert found(redis_store).renewed_at is None
    for ttl in (60, 30, 90.5, 60):
        wait_a_moment(redis_store)
        redis_store.renew([LeaseClaim(SEMAPHORE, "owner", ttl)])
        lock = found(redis_store)
        assert is_near(lock.renewed_at, lock.seen_at)
        assert lock.expires_at is not None
        assert abs((lock.expires_at - lock.seen_at).total_seconds() - ttl) < 1
        assert (lock.acquired_at, lock.holder) == (granted.acquired_at, "holder")
        assert lock.renewed_at is not None
        assert lock.renewed_at > granted.acquired_at
    assert redis_store.acquire(SEMAPHORE, "owner", 20, "holder")
    assert found(redis_store).renewed_at is None


def test_renewal_without_end_is_not_known(redis_store: RedisBackend) -> None:
    """A lock without end isn't renewed; one that gets an end is."""
    redis_store.acquire(SEMAPHORE, "owner", 60, "holder")
    wait_a_moment(redis_store)
    redis_store.renew([LeaseClaim(SEMAPHORE, "owner", None)])
    assert found(redis_store).renewed_at is None
    redis_store.acquire(SEMAPHORE, "owner", None, "holder")
    wait_a_moment(redis_store)
    redis_store.renew([LeaseClaim(SEMAPHORE, "owner", 60)])
    lock = found(redis_store)
    assert is_near(lock.renewed_at, lock.seen_at)


def test_lock_that_was_written_without_a_ttl_is_renewed(
    redis_store: RedisBackend, redis_server: Server
) -> None:
    """Its value has one from then on; its holder may say anything."""
    holder = 'the "ttl":60000,"holder":"x" job'
    value = {"owner": "owner", "token": 2**53 - 1, "acquired_at": 1, "holder": holder}
    with connect(redis_server) as client:
        client.set(key_of(), json.dumps(value, separators=(",", ":")), px=60_000)
        assert found(redis_store).renewed_at is None
        assert redis_store.renew([claim(SEMAPHORE, "owner")])["owner"].renewed
        assert json.loads(client.get(key_of()) or "") == value | {"ttl": 60_000}
    lock = found(redis_store)
    assert is_near(lock.renewed_at, lock.seen_at)
    assert (lock.token, lock.holder) == (2**53 - 1, holder)


def test_lock_is_found_in_one_round_trip(redis_store: RedisBackend, asked: list[Any]) -> None:
    """With the number of those who wait, without the one that is offered the lock."""
    assert redis_store.find(SEMAPHORE) is None
    redis_store.acquire(SEMAPHORE, "owner", 60, "holder")
    places = [join(redis_store, SEMAPHORE, f"waiter{number}") for number in range(3)]
    redis_store.find(SEMAPHORE)  # the server gets the script
    asked.clear()
    lock = redis_store.find(SEMAPHORE)
    assert asked == [scripts.DESCRIBE.digest]
    assert lock is not None
    assert (lock.semaphore, lock.state, lock.waiting) == (SEMAPHORE, LockState.HELD, 3)
    assert [(each.token, each.waiting) for each in redis_store.held()] == [(lock.token, 3)]
    waiters = redis_store.waiters(SEMAPHORE)
    assert waiters is not None
    assert [waiter.holder for waiter in waiters] == ["waiter's holder"] * 3
    times = [waiter.since for waiter in waiters]
    assert times == sorted(times, key=str)
    assert is_near(times[0], lock.seen_at)
    redis_store.release(claim(SEMAPHORE, "owner"))
    assert found(redis_store).waiting == 2
    assert len(redis_store.waiters(SEMAPHORE) or []) == 2
    for place in places:
        place.leave(granted=False)


def test_kept_lock_is_listed_as_such(redis_store: RedisBackend) -> None:
    """It is held, but was released."""
    redis_store.acquire(SEMAPHORE, "owner", 60, "holder")
    assert not found(redis_store).kept
    redis_store.release(claim(SEMAPHORE, "owner"), keep=90)
    lock = found(redis_store)
    assert (lock.kept, lock.state, lock.renewed_at) == (True, LockState.HELD, None)


# Pages


def test_page_reads_only_the_locks_that_it_shows(
    redis_server: Server, redis_store: RedisBackend, asked: list[Any], sent: list[int]
) -> None:
    """All at once, whatever else the database has."""
    fill(redis_server, 2_000, "SET", key_of("#"), HELD, "PX", "600000")
    fill(redis_server, 2_000, "SET", key_of("#") + ":token", "#")
    redis_store.page(LockQuery())  # the server gets the scripts
    asked.clear()
    sent.clear()
    page = redis_store.page(LockQuery(page=2, limit=50))
    assert [lock.semaphore for lock in page.locks] == sorted(map(str, range(1, 2_001)))[50:100]
    assert (page.found, page.is_capped) == (2_000, False)
    assert page.counts == {LockState.HELD: 2_000, LockState.STALE: 0}
    assert asked.count(scripts.DESCRIBE.digest) == 50
    assert sent.count(50) == 1
    assert redis_store.page(LockQuery(state=LockState.STALE)).found == 0
    assert redis_store.page(LockQuery(state=LockState.HELD)).found == 2_000
    assert redis_store.page(LockQuery(page=999)).locks == []


def test_search_finds_any_part_of_few_locks(
    redis_server: Server, redis_store: RedisBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of semaphore and holder; of more locks, of the semaphore; of too many, its beginning."""
    fill(redis_server, 300, "SET", key_of("job:#:Ä%25"), HELD, "PX", "600000")

    def search(text: str, prefix: str = "") -> tuple[int, SearchScope, bool]:
        page = redis_store.page(LockQuery(search=text, prefix=prefix))
        assert len(page.locks) == min(page.found, 100)
        return page.found, page.scope, page.is_capped

    assert search("WEB-299") == (1, SearchScope.SEMAPHORE_AND_HOLDER, False)
    assert search(":29:ä") == (1, SearchScope.SEMAPHORE_AND_HOLDER, False)
    monkeypatch.setattr(operations, "FEW", 10)
    assert search("web-299") == (0, SearchScope.SEMAPHORE, False)
    assert search(":29:ä%") == (1, SearchScope.SEMAPHORE, False)
    assert search("B:29", prefix="jo") == (11, SearchScope.SEMAPHORE, False)
    monkeypatch.setattr(type(redis_store), "window", 100)
    assert search("b:29") == (0, SearchScope.PREFIX, False)
    assert search("29", prefix="job:") == (11, SearchScope.PREFIX, False)
    assert search("", prefix="job:") == (100, SearchScope.SEMAPHORE, True)


def test_page_ends_in_time(redis_server: Server, redis_store: RedisBackend) -> None:
    """A large database isn't scanned to its end: the page says that there may be more."""
    fill(redis_server, 50_000, "SET", "other:#", "x")
    acquire(ALIAS)
    redis_store.store_timeout = 0.001
    assert redis_store.page(LockQuery()).is_capped


@pytest.mark.needs("redis_cluster")
def test_page_of_a_cluster_has_the_locks_of_all_nodes(
    cluster_store: RedisBackend, asked: list[Any]
) -> None:
    """In one order; each node is asked once for its part."""
    leases = [acquire(ALIAS, f"page/{number}") for number in range(9)]
    page = cluster_store.page(LockQuery(prefix="page/", limit=5))
    assert [lock.semaphore for lock in page.locks] == [f"page/{number}" for number in range(5)]
    assert page.found == 9
    assert cluster_store.find("page/8") is not None
    assert cluster_store.waiters("page/8") == []
    assert all(lease.release() for lease in leases)


def found(store: RedisBackend) -> LockInfo:
    """Return the lock, which must be held."""
    lock = store.find(SEMAPHORE)
    assert lock is not None
    return lock


def wait_a_moment(store: RedisBackend) -> None:
    """Let the server's clock go on, so that a renewal is later than the grant."""
    since = found(store).seen_at
    until(lambda: (found(store).seen_at - since).total_seconds() > 0.12)


def is_near(time: datetime | None, other: datetime | None) -> bool:
    """Return whether the two are the same but for a moment."""
    assert time is not None
    assert other is not None
    return abs((time - other).total_seconds()) < 2
