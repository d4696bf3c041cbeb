"""How a wait for a lock ends."""

import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from unittest import mock

import pytest

from django_distlock import (
    LockBackendUnavailable,
    acquire_lock,
)
from django_distlock.backends.sync_driver import run_sync
from django_distlock.concurrency.process_queue import queues, recent_handovers
from django_distlock.concurrency.wakeups import Wakeup
from django_distlock.locks import waiting
from tests.support.databases import committed
from tests.support.holders import acquire
from tests.support.scripted_store import ScriptedBackend, ScriptedPlace

QUEUEING = [
    "memory",
    *(
        pytest.param(name, marks=pytest.mark.needs(name))
        for name in ("postgresql", "redis", "lock_server")
    ),
]


def test_pause_that_is_over_before_it_begins_ends() -> None:
    """Also if the thread is interrupted at that moment: Python 3.12's SimpleQueue.get() hangs."""
    waiter = waiting.WaitingThread("default")
    paused, seen = [0], [0, time.monotonic()]

    def look(*args: object) -> None:
        if paused[0] != seen[0]:
            seen[:] = paused[0], time.monotonic()
        assert time.monotonic() - seen[1] < 20

    before = signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, 1e-4, 1e-4)
    try:
        for paused[0] in range(10_000):
            run_sync(waiter.pause(1e-7))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_wakeup_ends_the_wait_under_way_or_the_next_one() -> None:
    """Once, however often it was set; without a wake-up the timeout ends the wait."""
    wakeup = Wakeup()
    wakeup.set()
    wakeup.set()
    assert wakeup.wait(60)
    assert not wakeup.wait(0.001)
    assert not wakeup.wait(-1)
    threading.Timer(0.01, wakeup.set).start()
    assert wakeup.wait(60)
    threading.Timer(0.01, wakeup.set).start()
    assert wakeup.wait(math.inf)


@pytest.mark.parametrize("alias", QUEUEING)
@committed
def test_timeout_that_is_over_at_once_is_good_for_one_try(alias: str) -> None:
    """Also right after a release that handed the lock over, when others first join the queue."""
    recent_handovers.add(alias, "1234collectPayment")
    assert acquire(alias, timeout=1e-9).release()


def test_timeout_that_is_over_at_once_is_good_for_one_try_behind_others(
    scripted: ScriptedBackend,
) -> None:
    """It overtakes this process's waiters, like a call that doesn't wait."""
    first, second = (waiting.WaitingThread("default") for _ in range(2))
    queues.join("default", "1234collectPayment", first)
    queues.join("default", "1234collectPayment", second)
    assert acquire_lock("1234collectPayment", timeout=1e-9)
    for _ in range(2):  # as after an interruption
        queues.leave("default", "1234collectPayment", first)
    elsewhere_waiting = mock.Mock(loop=object())
    queues.leave("default", "1234collectPayment", elsewhere_waiting)  # a waiter that never joined
    queues.leave("default", "1234collectPayment", second)
    assert len(queues) == 0


def test_try_that_ends_the_wait_leaves_the_queue_in_the_same_time(
    scripted: ScriptedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The queue is left once."""
    budgets, in_which = count(1), list[int]()

    @contextmanager
    def time_budget() -> Iterator[None]:
        in_which.append(next(budgets))
        yield

    def leave(place: ScriptedPlace, granted: bool) -> None:
        scripted.calls.append(f"leave {in_which[-1]}")
        raise LockBackendUnavailable("down")

    scripted.owner = "somebody else"
    monkeypatch.setattr(scripted, "time_budget", time_budget)
    monkeypatch.setattr(scripted, "join", lambda *arguments: ScriptedPlace(outlasts_failures=False))
    monkeypatch.setattr(scripted, "leave", leave)
    scripted.answer("acquire", None, LockBackendUnavailable("down"))
    with pytest.raises(LockBackendUnavailable):
        acquire_lock("1234collectPayment", timeout=60)
    assert scripted.calls == ["acquire", "acquire", "leave 3"]
