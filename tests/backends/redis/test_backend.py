"""Times, round trips, tokens and listings of the Redis backend."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest

from django_distlock import LockBackendUnavailable, acquire_lock, clocks, distributed_lock
from django_distlock.backends.redis import listing as module
from django_distlock.backends.redis.nodes import Node
from django_distlock.leases.request import new_owner
from tests.support.concurrency import elsewhere, until
from tests.support.holders import acquire
from tests.support.redis_servers import connect, fill
from tests.support.redis_stores import (
    ALIAS,
    commands,
    key_of,
    locks_of,
    waiting,
)

if TYPE_CHECKING:
    from tests.support.servers import Server


pytestmark = pytest.mark.needs("redis")


# Time


@pytest.mark.parametrize("ttl", [30.05, 60.5, 61.999])
@pytest.mark.once
def test_parts_of_a_second_count(redis_server: Server, ttl: float) -> None:
    """Cutting them off would grant a lock twice (peer defect 25)."""
    with locks_of(redis_server):
        lease = acquire(ALIAS, ttl=ttl, renew=False)
        assert lease.acquired_at.timestamp() + ttl == end_of_lock(redis_server)
        assert acquire_lock("1234collectPayment", backend=ALIAS) is None
        lease.renew()
        assert lease.expires_at is not None
        assert lease.expires_at.timestamp() == end_of_lock(redis_server)
        assert lease.release()


def end_of_lock(server: Server) -> Any:
    """Return when the lock expires, in the server's milliseconds, for comparison."""
    with connect(server) as client:
        readings = []
        for _ in range(20):
            with client.pipeline() as both:
                before, left, after = both.time().pttl(key_of()).time().execute()
            began, ended = (
                seconds + microseconds / 1e6 for seconds, microseconds in (before, after)
            )
            readings.append((ended - began, began + left / 1000))
    _, end = min(readings)  # the attempt that stalled the least
    return pytest.approx(end, abs=0.002)


@pytest.mark.once
def test_least_ttl_is_rounded_up(redis_server: Server) -> None:
    """To a whole millisecond, which Redis counts in; 0 would be none."""
    with locks_of(redis_server) as store, connect(redis_server) as client:
        assert store.acquire("1234collectPayment", new_owner(), 0.001, "")
        until(lambda: not client.exists(key_of()))


@pytest.mark.once
def test_unlimited_ttl_has_no_end(redis_server: Server) -> None:
    """The lock is held until its holder releases it (peer defect 17)."""
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
    """Each action sends its own script."""
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
    """Whether all of the database or only the token is lost; tokens are exact."""
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
def test_listing_locks_among_many_keys_does_not_block_others(
    redis_server: Server, sent: list[int]
) -> None:
    """Others are served in between: none of its requests is about more than some thousand keys."""
    value = '{"owner":"#","token":#,"acquired_at":#,"holder":"somebody"}'
    fill(redis_server, 100_000, "SET", "site:1:#", "x")
    fill(redis_server, 1_000, "SET", key_of("#"), value, "PX", "600000")
    with locks_of(redis_server) as store:
        with commands(redis_server) as seen:
            listed = [*store.held()]
        assert sorted(int(lock.semaphore) for lock in listed) == [*range(1, 1_001)]
    assert seen["scan"] > 45
    assert max(sent) < 1_000  # at once, for the locks that one scan has found


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
def test_foreign_key_in_the_place_of_a_lock_is_reported(redis_server: Server, command: str) -> None:
    """It can't be listed, and a list can't be a lock."""
    with locks_of(redis_server) as store, connect(redis_server) as client:
        client.execute_command(command, key_of(), "not a lock")
        with pytest.raises(LockBackendUnavailable, match=r"distlock:\{1234collectPayment\}"):
            [*store.held()]
        if command == "LPUSH":
            with pytest.raises(LockBackendUnavailable, match="WRONGTYPE"):
                acquire_lock("1234collectPayment", backend=ALIAS)
            assert client.lrange(key_of(), 0, -1) == ["not a lock"]
