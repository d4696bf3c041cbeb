"""How long Memcached keeps a lock: whole seconds, by a clock that lags behind."""

from __future__ import annotations

import json
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from django_distlock import Lease, acquire_lock, clocks, distributed_lock
from tests.support.concurrency import elsewhere, until
from tests.support.holders import acquire
from tests.support.memcached_stores import (
    ask,
    key_of,
    leading_to,
    memcached_store,
    on_memcached,
)
from tests.support.processes import Workers, send_and_wait
from tests.support.scripted_memcached import ScriptedServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.servers import Server

pytestmark = pytest.mark.once
MONTH = 30 * 24 * 60 * 60

# What the server is asked for


@on_memcached
@pytest.mark.parametrize(("ttl", "expiry"), [(1, 3), (1.0, 3), (60, 62), (MONTH - 2, MONTH)])
def test_server_keeps_a_lock_for_two_seconds_more(alias: str, ttl: float, expiry: int) -> None:
    """Its clock lags behind by up to that."""
    with ScriptedServer(gets=(0, "END\r\n"), add=(0, "STORED\r\n")) as server:
        with leading_to(server.port, alias) as store:
            assert store.acquire("1234collectPayment", "owner", ttl, "")
    assert server.lines[-1].split() == ["add", key_of(), "0", str(expiry), "5"]


@on_memcached
@pytest.mark.parametrize("ttl", [60, MONTH - 2])
def test_no_ttl_is_taken_for_a_date(alias: str, ttl: float) -> None:
    """The server says how long it will keep it."""
    lease = acquire(alias, ttl=ttl, renew=False)
    [[_, left]] = [line.split("t") for line in ask(alias, f"mg {key_of()} t")]
    assert ttl - 50 <= int(left) <= ttl + 2
    assert lease.expires_at is not None
    assert (lease.expires_at - lease.acquired_at).total_seconds() == ttl
    assert lease.release()


@on_memcached
@pytest.mark.parametrize("hold", ["min_hold", "max_hold"])
def test_hold_that_memcached_cannot_keep_is_refused(alias: str, hold: str) -> None:
    """It would be taken for a date in 1970, and the lock be free at once."""
    holds: Any = {hold: MONTH}
    with pytest.raises(ValueError, match=f"{hold} is {MONTH}, but must be from .* to 2591998"):
        acquire_lock("1234collectPayment", backend=alias, **holds)


@on_memcached
@pytest.mark.parametrize("ttl", [None, MONTH, MONTH - 1, MONTH - 1.5])
def test_store_sends_no_date(alias: str, ttl: float | None) -> None:
    """Even if it is called past the validation."""
    with pytest.raises(ValueError, match="can't keep anything for"):
        memcached_store(alias).acquire("1234collectPayment", "owner", ttl, "")


@contextmanager
def granting(alias: str, **arguments: Any) -> Iterator[tuple[Lease, ScriptedServer]]:
    """Grant a lease whose ttl counts from this moment for the holder."""
    with ScriptedServer(gets=(0, "END\r\n"), add=(0, "STORED\r\n")) as server:
        with leading_to(server.port, alias):
            lease = acquire(alias, renew=False, **arguments)
            entry = f"VALUE {key_of()} 0 32 7\r\n{str.__str__(lease.owner)}\r\nEND\r\n"
            server.answers |= {"gets": (0, entry), "cas": (0, "STORED\r\n")}
            yield lease, server


@on_memcached
@pytest.mark.parametrize(("max_hold", "expiry"), [(0.5, 3), (2, 4), (2.1, 5)])
def test_fraction_left_by_max_hold_is_rounded_up(
    alias: str, max_hold: float, expiry: int, stores_clock: list[float]
) -> None:
    """Peer defect 25: add() with half a second would be granted twice."""
    with granting(alias, max_hold=max_hold) as (lease, server):
        assert lease.remaining == pytest.approx(max_hold)
    assert server.lines[-1].split() == ["add", key_of(), "0", str(expiry), "32"]


@on_memcached
def test_renewal_for_the_rest_of_max_hold_is_rounded_up(
    alias: str, stores_clock: list[float]
) -> None:
    """The last renewal is for a fraction of a second."""
    with granting(alias, ttl=3, max_hold=4) as (lease, server):
        stores_clock[0] += 2.5
        lease.renew()
        assert lease.remaining == 1.5
        stores_clock[0] += 0.77
        lease.renew()
        assert lease.remaining == pytest.approx(0.73)
    sent = [line.split() for line in server.lines if not line.startswith("gets")]
    assert sent == [
        ["add", key_of(), "0", "5", "32"],
        ["cas", key_of(), "0", "4", "32", "7"],
        ["cas", key_of(), "0", "3", "32", "7"],
    ]


@on_memcached
def test_rest_of_min_hold_is_rounded_up(alias: str, stores_clock: list[float]) -> None:
    """During that time nobody holds the lock."""
    with granting(alias, min_hold=5) as (lease, server):
        stores_clock[0] += 1.75
        assert lease.release()
    assert server.lines[-1].split() == ["cas", key_of(), "0", "6", "4", "7"]


@on_memcached
def test_wait_is_counted_by_the_clock(alias: str) -> None:
    """Peer defects 10 and 18: a fraction of a second is not none and not for ever."""
    lease = acquire(alias)
    began = clocks.monotonic()
    assert elsewhere(lambda: acquire_lock("1234collectPayment", timeout=0.2, backend=alias)) is None
    assert 0.2 <= clocks.monotonic() - began < 30
    assert lease.release()


# What the server does: time itself is the subject, and its clock counts seconds


@on_memcached
def test_lock_lives_as_long_as_its_holder_believes(alias: str) -> None:
    """Wherever in the server's second it was granted, if its clock ticks in time, more or less."""

    def is_kept(phase: int) -> bool:
        time.sleep(phase / 8)
        store, semaphore, sent = memcached_store(alias), f"phase {phase}", clocks.monotonic()
        assert store.acquire(semaphore, "owner", 1, "")
        time.sleep(max(0, sent + 0.8 - clocks.monotonic()))
        refused = not store.acquire(semaphore, "another", 1, "")
        return refused or clocks.monotonic() >= sent + 1

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(is_kept, range(8))) == [True] * 8


@on_memcached
def test_lock_lives_as_long_as_its_holder_believes_when_the_servers_clock_skips_a_second(
    alias: str, spare_memcached: Server
) -> None:
    """It shows whole seconds since it was set, each 1.001 seconds: now and then it skips one.

    Here it skips one because the server is stopped from before it would have set the clock until
    the next second has begun.
    """
    store = memcached_store(alias)

    def shown() -> str:
        [uptime] = [line for line in ask(alias, "stats") if line.startswith("STAT uptime ")]
        return uptime

    before = shown()
    until(lambda: shown() != before)
    set_at = time.monotonic()
    time.sleep(0.9)
    sent = time.monotonic()
    assert store.acquire("1234collectPayment", "owner", 1, "")
    with spare_memcached.paused():
        time.sleep(max(0, int(set_at) + 2.001 - time.monotonic()))
    until(lambda: bool(store.acquire("1234collectPayment", "another", 1, "")))
    assert time.monotonic() - sent >= 1


@on_memcached
def test_locks_of_a_fraction_of_a_second_are_free_after_it(alias: str) -> None:
    """And not before, whether it is held with a short ttl or kept by min_hold."""
    began = clocks.monotonic()
    lease = acquire(alias, "held", max_hold=0.5, renew=False)
    assert acquire(alias, "kept", min_hold=0.5).release()
    for semaphore in ("kept", "held"):
        with distributed_lock(semaphore, timeout=30, backend=alias):
            assert clocks.monotonic() - began >= 0.5
    assert lease.release() is False


@on_memcached
def test_killed_holders_lock_is_free_after_its_ttl(alias: str) -> None:
    """Soon after the ttl, without anybody's help, and not before."""
    with Workers(1, "hold", alias, "1") as workers:
        before = clocks.monotonic()
        [holder] = workers.processes
        assert json.loads(workers.read(holder)) == [None]
        granted = clocks.monotonic()
        send_and_wait(holder, signal.SIGKILL)
        until(lambda: bool(acquire_lock("held", backend=alias)))
    assert clocks.monotonic() - before >= 1
    assert clocks.monotonic() - granted < 30
