"""What is particular to waiters in Redis, and what they cost.

tests/contract has the tests for all stores.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from redis import RedisCluster

from django_distlock import clocks, distributed_lock
from django_distlock.backends.redis import scripts
from django_distlock.backends.redis.nodes import Node
from django_distlock.backends.redis.protocol import RedisConnection
from tests.support.concurrency import until
from tests.support.holders import acquire
from tests.support.redis_servers import connect, node_of, place
from tests.support.redis_stores import (
    ALIAS,
    commands,
    key_of,
    lasting_offers,
    locks_at,
    name_of,
    waiting,
)
from tests.support.redis_waiters import claim, join, take, user

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

    from django_distlock.backends.redis.backend import RedisBackend
    from tests.support.redis_servers import Cluster
    from tests.support.servers import Server

pytestmark = [pytest.mark.needs("redis"), pytest.mark.once]


@pytest.mark.needs("redis_cluster")
@pytest.mark.usefixtures("only_when_notified")
def test_nodes_of_a_cluster_have_queues_of_their_own(
    redis_cluster: Cluster, threads: ThreadPoolExecutor
) -> None:
    """A process waits at each of them."""
    alias, names = "redis_cluster", [f"lock {number}" for number in range(12)]
    with RedisCluster(*place(redis_cluster.nodes[0])) as client:

        def is_waited_for(name: str) -> bool:
            return bool(client.zcard(f"{key_of(name, prefix='')}:queue"))

        assert len({node_of(client, key_of(name, prefix="")) for name in names}) == 3
        leases = [acquire(alias, name) for name in names]
        waits = [threads.submit(acquire, alias, name, timeout=60) for name in names]
        until(lambda: all(is_waited_for(name) for name in names))
        assert all(lease.release() for lease in leases)
        assert all(each.result(30).release() for each in waits)


# Waiters that leave


@lasting_offers()
def test_released_offer_goes_to_the_next_waiter(
    redis_store: RedisBackend,
) -> None:
    """As a waiter does whose try was answered too late."""
    lease = acquire(ALIAS)
    offered = [threading.Event() for _ in range(2)]
    places = [
        join(redis_store, "1234collectPayment", f"owner{number}", event.set)
        for number, event in enumerate(offered)
    ]
    assert lease.release()
    assert offered[0].wait(30)
    assert redis_store.release(claim("1234collectPayment", "owner0"))
    assert offered[1].wait(30)
    for each in places:
        each.leave(granted=False)


@lasting_offers()
@pytest.mark.parametrize("gives_back", ["leave", "release", "force_release"])
def test_queue_forgets_the_last_offer(redis_store: RedisBackend, gives_back: str) -> None:
    """The next waiter of the same process doesn't count as one that missed the offer."""
    lease = acquire(ALIAS)
    offered = [threading.Event() for _ in range(2)]
    first = join(redis_store, "1234collectPayment", "owner0", offered[0].set)
    assert lease.release()
    assert offered[0].wait(30)
    if gives_back == "leave":
        first.leave(granted=False)
    elif gives_back == "release":
        assert redis_store.release(claim("1234collectPayment", "owner0"))
    else:
        [lock] = redis_store.held()
        assert redis_store.force_release("1234collectPayment", lock.token or 0)
    second = join(redis_store, "1234collectPayment", "owner1", offered[1].set)
    assert offered[1].wait(30)
    for each in (first, second):
        each.leave(granted=False)


def test_waiter_that_left_during_a_rejoin_is_not_in_the_queue(
    redis_server: Server,
    redis_store: RedisBackend,
    asked: list[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It was granted the lock while its process rejoined the queue."""
    assert redis_store.acquire("1234collectPayment", "holder", 60, "")
    waiter = join(redis_store, "1234collectPayment", "owner")
    ask_all, joins_again = Node.ask_all, threading.Lock()

    def leave_and_ask(node: Node, requests: Any, *arguments: Any) -> list[Any]:
        joins = name_of(requests[0]) == scripts.JOIN.digest
        if joins and joins_again.acquire(blocking=False):
            assert redis_store.release(claim("1234collectPayment", "holder"))
            assert redis_store.acquire("1234collectPayment", "owner", 60, "")
            waiter.leave(granted=True)
            assert redis_store.release(claim("1234collectPayment", "owner"))
            assert redis_store.acquire("1234collectPayment", "another", 60, "")
        return ask_all(node, requests, *arguments)

    monkeypatch.setattr(Node, "ask_all", leave_and_ask)
    with connect(redis_server) as client:
        client.client_kill_filter(_type="pubsub")
    until(lambda: "ZREM" in asked)
    assert asked.count(scripts.JOIN.digest) == 2
    assert waiting(redis_server) == 0
    assert redis_store.release(claim("1234collectPayment", "another"))


def test_waiter_that_missed_an_offer_for_good_rejoins(
    redis_server: Server, redis_store: RedisBackend, threads: ThreadPoolExecutor
) -> None:
    """Its process counted as silent then, but no longer does."""
    lease = acquire(ALIAS)
    waits = [threads.submit(take) for _ in range(3)]
    until(lambda: waiting(redis_server) == 3)
    with connect(redis_server) as client:
        [first, *_] = client.zrange(f"{key_of()}:queue", 0, 0)
        channel = first.split()[0]
        client.zadd(f"{key_of()}:queue", {channel: 0})  # as if the waiter had been offered the lock
    assert lease.release()
    assert [each.result(30) for each in waits]
    until(lambda: waiting(redis_server) == 0)


@lasting_offers()
@pytest.mark.usefixtures("redis_store", "only_when_notified")
def test_missed_offer_is_found_at_the_next_look(
    redis_server: Server, threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Long before the offer expires."""
    receive, lost = RedisConnection.receive, list[Any]()

    def receive_and_lose(connection: RedisConnection, *arguments: Any) -> Any:
        answer = receive(connection, *arguments)
        if not connection.takes_pushes or answer[0] != b"message" or lost:
            return answer
        lost.append(answer)
        return [*answer[:2], b"-1"]  # a number that no waiter has

    lease = acquire(ALIAS)
    wait = threads.submit(take)
    until(lambda: waiting(redis_server) == 1)
    monkeypatch.setattr(RedisConnection, "receive", receive_and_lose)
    assert lease.release()
    assert wait.result(30)
    assert len(lost) == 1


@lasting_offers()
@pytest.mark.usefixtures("only_when_notified")
def test_user_without_the_right_to_publish_can_release(
    redis_server: Server, redis_store: RedisBackend, threads: ThreadPoolExecutor
) -> None:
    """A waiter of another user finds the free lock at its next look."""
    with user(redis_server, "mute", "resetchannels") as location:
        lease = acquire(ALIAS)
        wait = threads.submit(take)
        until(lambda: waiting(redis_server) == 1)
        with locks_at("", location=location) as mute:
            assert mute is not redis_store
            assert mute.release(claim("1234collectPayment", str(lease.owner)))
            assert wait.result(30)
            assert lease.release() is False


# Cost


@pytest.mark.parametrize(("left", "most"), [(60_000, 2), (600, 10)])
@pytest.mark.usefixtures("redis_store")
def test_waiting_costs_few_commands(
    redis_server: Server,
    threads: ThreadPoolExecutor,
    monkeypatch: pytest.MonkeyPatch,
    left: int,
    most: int,
) -> None:
    """Per second and waiter, while a lock is held for long, even if it is about to expire."""
    ask_all = Node.ask_all

    def ask_and_say(node: Node, requests: Any, *arguments: Any) -> list[Any]:
        answers = ask_all(node, requests, *arguments)
        if name_of(requests[0]) != scripts.LOOK.digest:
            return answers
        # Otherwise an unknown script would count, too.
        return [[left, each[1]] if isinstance(each, list) else each for each in answers]

    monkeypatch.setattr(Node, "ask_all", ask_and_say)
    with distributed_lock("1234collectPayment", backend=ALIAS):
        waits = [threads.submit(take) for _ in range(32)]
        until(lambda: waiting(redis_server) == 32)
        with commands(redis_server) as seen:
            began = clocks.monotonic()
            time.sleep(1)  # what is counted is counted per second
            seconds = clocks.monotonic() - began
    assert all(each.result(30) for each in waits)
    assert seen.total() / 32 / seconds < most
