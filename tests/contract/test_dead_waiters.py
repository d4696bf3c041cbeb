"""Waiters and holders that die: when the others in the queue get the lock."""

from __future__ import annotations

import json
import signal
import time
from typing import TYPE_CHECKING

import pytest

from tests.support.concurrency import until
from tests.support.processes import send_and_wait
from tests.support.store_queues import JOB, acquire, take

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

    from tests.support.store_queues import QueuedStore

once = pytest.mark.once


@once
@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP])
def test_dead_process_costs_little_however_many_wait_in_it(
    short_offers: QueuedStore, threads: ThreadPoolExecutor, fault: signal.Signals
) -> None:
    """The first waiter that is alive is offered the lock next."""
    lease = acquire(short_offers)  # before any waiter joins
    with short_offers.workers("wait_in_queue", short_offers.alias, "50", JOB) as dead:
        until(lambda: short_offers.waiting() == 50)
        waits = threads.submit(take, short_offers)
        until(lambda: short_offers.waiting() == 51)
        [process] = dead.processes
        send_and_wait(process, fault)
        released = time.monotonic_ns()
        assert lease.release()
        # About a second, where one for each would be fifty.
        assert waits.result(60) - released < 20e9
        if fault == signal.SIGSTOP:  # and when it continues, it is served
            process.send_signal(signal.SIGCONT)
            [tokens] = dead.results()
            assert len(tokens) == 50


@once
def test_killed_process_is_passed_over_at_once(
    queued: QueuedStore, threads: ThreadPoolExecutor
) -> None:
    """A process that no longer listens gets no offer, which would never expire here."""
    lease = acquire(queued)
    with queued.workers("wait_in_queue", queued.alias, "5", JOB) as dead:
        until(lambda: queued.waiting() == 5)
        waits = threads.submit(take, queued)
        until(lambda: queued.waiting() == 6)
        [process] = dead.processes
        send_and_wait(process, signal.SIGKILL)
        until(lambda: queued.processes() == 1)
        assert lease.release()
        assert waits.result(30)


@once
def test_dead_holders_lock_is_handed_over_when_its_ttl_ends(
    woken_only: QueuedStore, threads: ThreadPoolExecutor
) -> None:
    """Not earlier, by the store's clock, which the tokens show."""
    with woken_only.workers("hold", woken_only.alias, "1.5") as holders:
        [holder] = holders.processes
        [token] = json.loads(holders.read(holder))
        waits = threads.submit(acquire, woken_only, "held", timeout=120)
        until(lambda: woken_only.waiting() == 1 or waits.done())
        send_and_wait(holder, signal.SIGKILL)
        lease = waits.result(60)
    assert lease.token - token > 1_400_000
    assert lease.release()
