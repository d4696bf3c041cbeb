"""acquire_lock and release_lock: waiting, ownership, and answers that got lost."""

import asyncio
import contextvars
import gc
import inspect
import math
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from typing import Any
from unittest import mock

import pytest

from django_distlock import (
    LockBackendUnavailable,
    LockLost,
    LockNotHeld,
    acquire_lock,
    clocks,
    distributed_lock,
    release_lock,
)
from django_distlock.concurrency.process_queue import queues, recent_handovers
from django_distlock.concurrency.store_calls import run_sync
from django_distlock.concurrency.wakeups import Wakeup
from django_distlock.locks import waiting
from django_distlock.locks.acquisition import Acquisition
from django_distlock.signals import lock_acquired
from tests.support.concurrency import elsewhere
from tests.support.databases import committed
from tests.support.holders import acquire
from tests.support.scripted_store import NO_REPLY, ScriptedBackend

DOWN = LockBackendUnavailable("down")
QUEUEING = [
    "memory",
    *(
        pytest.param(name, marks=pytest.mark.needs(name))
        for name in ("postgresql", "redis", "lock_server")
    ),
]
REPLY_LOST = LockBackendUnavailable("no reply", reply_lost=True)


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Let time pass only where somebody sleeps; return the pauses between two tries."""
    now, paused = [1000.0], list[float]()

    async def pause(waiter: waiting.WaitingThread, seconds: float) -> None:
        paused.append(seconds)
        now[0] += seconds

    def sleep(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setattr(clocks, "monotonic", lambda: now[0])
    monkeypatch.setattr(waiting.WaitingThread, "pause", pause)
    return paused


def test_held_semaphore_is_contended_and_free_after_release(scripted: ScriptedBackend) -> None:
    """None for who comes second, a lease for who comes after the release."""
    assert acquire_lock("1234collectPayment")
    assert acquire_lock("1234collectPayment") is None
    assert release_lock("1234collectPayment") is True
    assert acquire_lock("1234collectPayment")


def test_lease_can_be_released_by_itself(scripted: ScriptedBackend) -> None:
    """release_lock takes the lease too."""
    lease = acquire("default")
    assert release_lock(lease) is True
    with pytest.raises(LockNotHeld, match="holds no lease on '1234collectPayment'"):
        release_lock("1234collectPayment")


def test_first_example_needs_no_reference_to_its_lease(scripted: ScriptedBackend) -> None:
    """The name is enough: the thread's context keeps the lease."""
    assert acquire_lock("1234collectPayment")
    gc.collect()
    assert release_lock("1234collectPayment") is True


def test_unknown_name_is_not_held() -> None:
    """Nothing was acquired by that name here."""
    with pytest.raises(LockNotHeld, match="DISTLOCK\\['default'\\]"):
        release_lock("never acquired")


def test_thread_does_not_release_anothers_by_name(scripted: ScriptedBackend) -> None:
    """A thread's name space is its own, even in a copy of the context; the lease works anywhere."""
    lease = acquire("default")
    context = contextvars.copy_context()
    with pytest.raises(LockNotHeld):
        elsewhere(lambda: release_lock("1234collectPayment"))
    with pytest.raises(LockNotHeld):
        elsewhere(lambda: context.run(release_lock, "1234collectPayment"))
    assert elsewhere(lease.release) is True
    with pytest.raises(LockNotHeld):
        release_lock("1234collectPayment")


def test_failed_reacquisition_leaves_the_held_lease_alone(scripted: ScriptedBackend) -> None:
    """Who holds a lock and tries again is refused, and can still release (peer defect 19)."""
    lease = acquire("default")
    assert acquire_lock("1234collectPayment") is None
    assert lease.held
    assert release_lock("1234collectPayment") is True


@pytest.mark.parametrize("timeout", [0.5, 3, 0.001])
def test_wait_lasts_its_timeout_and_no_longer(
    scripted: ScriptedBackend, pauses: list[float], timeout: float
) -> None:
    """By the clock, fractions included (peer defects 10 and 18); the last try is at the end."""
    scripted.owner = "somebody else"
    assert acquire_lock("1234collectPayment", timeout=timeout) is None
    assert sum(pauses) == pytest.approx(timeout)
    assert scripted.calls.count("acquire") == 1 + len(pauses)


def test_time_of_slow_tries_is_part_of_the_wait(
    scripted: ScriptedBackend, pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that takes 0.4 s to refuse is asked three times in a second, not a thousand."""
    scripted.owner = "somebody else"
    refuse = scripted.acquire

    def slowly(*args: Any) -> Any:
        time.sleep(0.4)
        return refuse(*args)

    monkeypatch.setattr(scripted, "acquire", slowly)
    assert acquire_lock("1234collectPayment", timeout=1) is None
    assert scripted.calls.count("acquire") <= 5


def test_pauses_grow_from_a_millisecond_with_jitter(
    scripted: ScriptedBackend, pauses: list[float]
) -> None:
    """Exponential back-off, bounded at both ends."""
    scripted.owner = "somebody else"
    acquire_lock("1234collectPayment", timeout=5)
    assert 0.0005 <= pauses[0] <= waiting.FIRST_PAUSE
    assert max(pauses) <= waiting.LONGEST_PAUSE
    assert pauses[6] > pauses[0] * 4
    assert len(set(pauses)) == len(pauses)


def test_second_in_line_asks_nothing_and_waits_no_longer_than_its_timeout(
    scripted: ScriptedBackend, pauses: list[float]
) -> None:
    """Only the first one of a process asks; who is behind it gives up in time all the same."""
    scripted.owner = "somebody else"
    first = waiting.WaitingThread("default")
    queues.join("default", "1234collectPayment", first)
    assert acquire_lock("1234collectPayment", timeout=3) is None
    queues.leave("default", "1234collectPayment", first)
    assert sum(pauses) == pytest.approx(3)
    assert scripted.calls.count("acquire") <= 1


def test_no_timeout_means_one_try(scripted: ScriptedBackend, pauses: list[float]) -> None:
    """The default doesn't wait."""
    scripted.owner = "somebody else"
    acquire_lock("1234collectPayment")
    assert pauses == []


def test_timeout_none_waits_until_the_lock_is_free(
    scripted: ScriptedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as it takes: here, until another thread releases."""
    scripted.owner = "somebody else"
    refused = threading.Event()
    refuse = scripted.acquire

    def tell(*args: Any) -> Any:
        grant = refuse(*args)
        if grant is None:
            refused.set()
        return grant

    monkeypatch.setattr(scripted, "acquire", tell)

    def release_once_refused() -> None:
        assert refused.wait(60)
        scripted.owner = ""

    with ThreadPoolExecutor(1) as threads:
        releasing = threads.submit(release_once_refused)
        assert acquire_lock("1234collectPayment", timeout=None)
        releasing.result()


@pytest.mark.parametrize(
    ("argument", "error", "message"),
    [
        ({"timeout": -1}, ValueError, "from 0 to .* None waits as long as it takes"),
        ({"timeout": float("nan")}, ValueError, "from 0 to"),
        ({"timeout": "1"}, TypeError, "number of seconds"),
        ({"timeout": True}, TypeError, "number of seconds"),
        ({"ttl": 0}, ValueError, "None means until released"),
        ({"ttl": float("inf")}, ValueError, "None means until released"),
        ({"ttl": "60"}, TypeError, "number of seconds"),
        ({"ttl": True}, TypeError, "number of seconds"),
        ({"backend": "nowhere"}, Exception, "DISTLOCK\\['nowhere'\\]"),
    ],
)
def test_bad_arguments_say_what_to_do(
    scripted: ScriptedBackend, argument: dict[str, Any], error: type[Exception], message: str
) -> None:
    """Before the store is asked."""
    with pytest.raises(error, match=message):
        acquire_lock("1234collectPayment", **argument)
    assert scripted.calls == []


@pytest.mark.parametrize("semaphore", ["", "a" * 256, "a\0", "a\n", "\ud800"])
def test_bad_semaphores_are_refused(scripted: ScriptedBackend, semaphore: str) -> None:
    """Never cut, never changed (peer defect 24)."""
    with pytest.raises(ValueError, match="semaphore"):
        acquire_lock(semaphore)
    with pytest.raises(ValueError, match="semaphore"):
        release_lock(semaphore)
    assert scripted.calls == []


def test_default_ttl_is_the_backends(scripted: ScriptedBackend) -> None:
    """And None is not "none given"."""
    lease = acquire("default")
    assert lease.ttl == 60
    lease.release()
    assert acquire("default", ttl=None).ttl is None
    assert "<the backend's>" in str(inspect.signature(acquire_lock))


def test_lost_reply_finds_its_own_grant(scripted: ScriptedBackend) -> None:
    """The retry asks as the same owner (peer defect 15)."""
    scripted.answer("acquire", NO_REPLY)
    lease = acquire("default")
    assert scripted.owner == lease.owner
    assert scripted.calls == ["acquire", "acquire"]


def test_second_lost_reply_gives_the_lock_back(scripted: ScriptedBackend) -> None:
    """Unavailable, and nothing stays behind."""
    scripted.answer("acquire", NO_REPLY, NO_REPLY)
    with pytest.raises(LockBackendUnavailable, match="the reply was lost"):
        acquire_lock("1234collectPayment")
    assert scripted.calls == ["acquire", "acquire", "release"]
    assert scripted.owner == ""


def test_store_that_goes_down_meanwhile_is_asked_to_take_the_grant_back(
    scripted: ScriptedBackend,
) -> None:
    """The first try may have been granted, whatever became of the second."""
    scripted.answer("acquire", NO_REPLY, DOWN)
    with pytest.raises(LockBackendUnavailable, match="down"):
        acquire_lock("1234collectPayment")
    assert scripted.calls == ["acquire", "acquire", "release"]


def test_grant_that_comes_after_its_ttl_is_none(
    scripted: ScriptedBackend, pauses: list[float]
) -> None:
    """Somebody else may have the lock by then; it is given back in any case."""
    scripted.answer("acquire", lambda: time.sleep(2))
    with pytest.raises(LockBackendUnavailable, match="too late"):
        acquire_lock("1234collectPayment", ttl=2)
    scripted.answer("acquire", lambda: time.sleep(2))
    scripted.answer("release", DOWN)
    with pytest.raises(LockBackendUnavailable, match="too late"):
        acquire_lock("1234collectPayment", ttl=2)
    assert scripted.calls == ["acquire", "release"] * 2


def test_store_that_was_never_reached_is_not_asked_again(scripted: ScriptedBackend) -> None:
    """A refused connection is an answer: unavailable, not contended (peer defects 3 and 20)."""
    scripted.answer("acquire", DOWN)
    with pytest.raises(LockBackendUnavailable, match="down"):
        acquire_lock("1234collectPayment", timeout=None)
    assert scripted.calls == ["acquire"]


def test_interrupted_acquisition_gives_the_lock_back(scripted: ScriptedBackend) -> None:
    """A worker that is told to stop in mid-request leaves nothing behind, and stops."""
    scripted.answer("acquire", SystemExit(1))
    scripted.answer("release", DOWN)
    with pytest.raises(SystemExit):
        acquire_lock("1234collectPayment")
    assert scripted.calls == ["acquire", "release"]


def test_receiver_that_ends_the_process_leaves_no_grant_behind(scripted: ScriptedBackend) -> None:
    """It interrupts the acquisition, though this is over."""

    def end(**kwargs: Any) -> None:
        raise SystemExit(1)

    lock_acquired.connect(end)
    try:
        with pytest.raises(SystemExit):
            acquire_lock("1234collectPayment")
    finally:
        lock_acquired.disconnect(end)
    assert scripted.calls == ["acquire", "release"]


def test_release_with_a_lost_reply_is_tried_again(scripted: ScriptedBackend) -> None:
    """The first was carried out, so the second finds nothing: it is released, not lost."""
    lease = acquire("default")
    scripted.answer("release", NO_REPLY)
    assert lease.release() is True
    assert scripted.calls == ["acquire", "release", "release"]


def test_failed_release_can_be_repeated(scripted: ScriptedBackend) -> None:
    """The owner isn't forgotten before the store has answered (peer defect 13)."""
    lease = acquire("default")
    scripted.answer("release", DOWN)
    with pytest.raises(LockBackendUnavailable):
        release_lock("1234collectPayment")
    assert lease.held
    assert release_lock("1234collectPayment") is True


@pytest.mark.parametrize("first", [NO_REPLY, REPLY_LOST])
def test_release_that_may_have_been_carried_out_ends_the_lease(
    scripted: ScriptedBackend, first: object
) -> None:
    """Somebody else may have the lock by now; it can be repeated all the same."""
    lease = acquire("default")
    scripted.answer("release", first, DOWN)
    with pytest.raises(LockBackendUnavailable):
        release_lock("1234collectPayment")
    assert not lease.held
    with pytest.raises(LockLost, match="may have been released"):
        lease.check()
    assert release_lock("1234collectPayment") is True
    assert lease.released
    assert not lease.lost


def test_block_whose_release_got_no_answer_is_no_loss(
    scripted: ScriptedBackend, caplog: pytest.LogCaptureFixture
) -> None:
    """What was done in it was done under the lock."""
    with distributed_lock("1234collectPayment") as lease:
        scripted.answer("release", REPLY_LOST, DOWN)
    assert not lease.lost
    assert "could not be released; it ends by itself" in caplog.text


def test_pause_that_is_over_before_it_begins_ends() -> None:
    """Also if the thread is interrupted right then: SimpleQueue.get() of Python 3.12 hangs."""
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
    """Once, however often it was set; and without one the time ends it."""
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
    """Also right after a release that handed the lock over, when it would rather join the queue."""
    recent_handovers.add(alias, "1234collectPayment")
    acquire(alias, timeout=1e-9).release()


def test_timeout_that_is_over_at_once_is_good_for_one_try_behind_others(
    scripted: ScriptedBackend,
) -> None:
    """Who waits in this process is overtaken by it, as by a call that doesn't wait."""
    first, second = (waiting.WaitingThread("default") for _ in range(2))
    queues.join("default", "1234collectPayment", first)
    queues.join("default", "1234collectPayment", second)
    assert acquire_lock("1234collectPayment", timeout=1e-9)
    for _ in range(2):  # as after an interruption
        queues.leave("default", "1234collectPayment", first)
    elsewhere_waiting = mock.Mock(loop=object())
    queues.leave("default", "1234collectPayment", elsewhere_waiting)  # who never joined
    queues.leave("default", "1234collectPayment", second)
    assert len(queues) == 0


class BrokenPlace:
    """A place in a queue of a store that can't be asked any more."""

    patience = 0.0
    outlasts_failures = False

    def check(self) -> None:
        """Find nothing."""


def test_try_that_ends_the_wait_leaves_the_queue_in_the_same_time(
    scripted: ScriptedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the queue is left once."""
    budgets, in_which = count(1), list[int]()

    @contextmanager
    def time_budget() -> Iterator[None]:
        in_which.append(next(budgets))
        yield

    def leave(place: BrokenPlace, granted: bool) -> None:
        scripted.calls.append(f"leave {in_which[-1]}")
        raise LockBackendUnavailable("down")

    scripted.owner = "somebody else"
    monkeypatch.setattr(scripted, "time_budget", time_budget)
    monkeypatch.setattr(scripted, "join", lambda *arguments: BrokenPlace())
    monkeypatch.setattr(scripted, "leave", leave)
    scripted.answer("acquire", None, LockBackendUnavailable("down"))
    with pytest.raises(LockBackendUnavailable):
        acquire_lock("1234collectPayment", timeout=60)
    assert scripted.calls == ["acquire", "acquire", "leave 3"]


def test_coroutine_for_sync_code_may_not_suspend() -> None:
    """Nobody would go on with it."""
    with pytest.raises(RuntimeError, match="awaited something"):
        run_sync(asyncio.sleep(0))


def test_interrupted_reentry_counts_for_nothing(scripted: ScriptedBackend) -> None:
    """One release is enough as before."""
    lease = acquire("default")
    with mock.patch.object(Acquisition, "retain", side_effect=KeyboardInterrupt):
        with pytest.raises(KeyboardInterrupt):
            acquire_lock("1234collectPayment", reentrant=True)
    assert lease.held
    assert release_lock("1234collectPayment")
    assert scripted.owner == ""
