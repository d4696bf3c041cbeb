"""Queues and the life of a process: forks, idle connections, and how a lease ends."""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import as_completed
from typing import TYPE_CHECKING, Any

import pytest

from django_distlock import (
    acquire_lock,
)
from tests.support.concurrency import until
from tests.support.holders import take_away
from tests.support.processes import forked, worker_environment
from tests.support.store_queues import JOB, acquire, take

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

    from tests.support.store_queues import QueuedStore

once = pytest.mark.once


@once
def test_forked_child_listens_itself(queued: QueuedStore, threads: ThreadPoolExecutor) -> None:
    """Its parent's listener continues."""

    def wait_in_child() -> None:
        assert take(queued)

    lease = acquire(queued)
    first = threads.submit(take, queued)
    until(lambda: queued.waiting() == 1)
    with forked(wait_in_child):
        until(lambda: queued.waiting() == 2)
        last = threads.submit(take, queued)
        until(lambda: queued.waiting() == 3)
        assert lease.release()
        assert first.result(30) < last.result(30)


@once
def test_process_that_ends_closes_its_idle_connections(queued: QueuedStore) -> None:
    """So Python has no ResourceWarning to show."""
    work = f"""
import atexit
import psutil
def print_open():
    print(len(psutil.Process().net_connections()))
atexit.register(print_open)
import django
from django_distlock import acquire_lock
django.setup()
assert acquire_lock({JOB!r}, backend={queued.alias!r}).release()
print_open()
"""
    ended = subprocess.run(
        [sys.executable, "-c", work],
        env=worker_environment() | queued.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.stdout, ended.stderr) == ("1\n0\n", "")


@once
def test_waiter_that_joins_as_the_listener_ends_is_woken(
    queued: QueuedStore,
    threads: ThreadPoolExecutor,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The listener continues for it, or another one starts."""
    monkeypatch.setattr("django_distlock.backends.listening.IDLE", 0)
    for _ in range(50):
        lease = acquire(queued, timeout=30)
        wait = threads.submit(take, queued)
        until(lambda: queued.waiting() == 1)
        assert lease.release()
        assert wait.result(30)
    assert caplog.text == ""


@once
@pytest.mark.parametrize("ttl", [1, None])
def test_any_ttl_can_be_waited_with(
    woken_only: QueuedStore, threads: ThreadPoolExecutor, ttl: float | None
) -> None:
    """It counts from the grant, not from the offer."""
    terms: dict[str, Any] = {"ttl": ttl} if ttl or woken_only.knows_no_end else {}
    lease = acquire(woken_only)
    waits = [
        threads.submit(acquire, woken_only, timeout=30, renew=False, **terms) for _ in range(10)
    ]
    until(lambda: woken_only.waiting() == 10)
    assert lease.release()
    for each in as_completed(waits, timeout=60):
        each.result().release()


@once
def test_lock_is_not_handed_over_before_min_hold_has_passed(
    woken_only: QueuedStore, threads: ThreadPoolExecutor
) -> None:
    """Even if the lock was released."""
    before = time.monotonic_ns()
    lease = acquire(woken_only, min_hold=0.5)
    waits = threads.submit(take, woken_only)
    until(lambda: woken_only.waiting() == 1 or waits.done())
    assert lease.release()
    assert waits.result(30) - before >= 0.5e9


@once
def test_force_released_lock_is_handed_over(
    queued: QueuedStore, threads: ThreadPoolExecutor
) -> None:
    """At once, to the first waiter: it is never free."""
    lease = acquire(queued)
    waits = threads.submit(acquire, queued, timeout=30)
    until(lambda: queued.waiting() == 1)
    take_away(lease)
    assert acquire_lock(JOB, backend=queued.alias) is None
    assert waits.result(30).release()
    assert lease.release() is False
