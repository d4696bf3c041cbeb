"""acquire_lock and release_lock: waiting, ownership, and answers that got lost."""

import asyncio
import contextvars
import gc
import inspect
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest import mock

import pytest

from django_distlock import (
    LockNotHeld,
    acquire_lock,
    release_lock,
)
from django_distlock.backends.sync_driver import run_sync
from django_distlock.concurrency.process_queue import queues
from django_distlock.locks import waiting
from django_distlock.locks.acquisition import Acquisition
from tests.support.concurrency import elsewhere
from tests.support.holders import acquire
from tests.support.scripted_store import ScriptedBackend


def test_held_semaphore_is_contended_and_free_after_release(scripted: ScriptedBackend) -> None:
    """None for a second acquisition, a lease for one after the release."""
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
    """Names are per thread, even in a copied context; the lease itself works anywhere."""
    lease = acquire("default")
    context = contextvars.copy_context()
    with pytest.raises(LockNotHeld):
        elsewhere(lambda: release_lock("1234collectPayment"))
    with pytest.raises(LockNotHeld):
        elsewhere(lambda: context.run(release_lock, "1234collectPayment"))
    assert elsewhere(lease.release) is True
    with pytest.raises(LockNotHeld):
        release_lock("1234collectPayment")


def test_failed_reacquisition_keeps_the_held_lease(scripted: ScriptedBackend) -> None:
    """A second try by the holder is refused; the holder can still release (peer defect 19)."""
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
    """Only the first waiter of a process polls; the ones behind it still time out."""
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

    def note_and_refuse(*args: Any) -> Any:
        grant = refuse(*args)
        if not grant:
            refused.set()
        return grant

    monkeypatch.setattr(scripted, "acquire", note_and_refuse)

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
    """ttl=None is not the default."""
    lease = acquire("default")
    assert lease.ttl == 60
    lease.release()
    assert acquire("default", ttl=None).ttl is None
    assert "<the backend's>" in str(inspect.signature(acquire_lock))


def test_coroutine_for_sync_code_may_not_suspend() -> None:
    """Nothing would resume it."""
    with pytest.raises(RuntimeError, match="awaited something"):
        run_sync(asyncio.sleep(0))


def test_interrupted_reentry_counts_for_nothing(scripted: ScriptedBackend) -> None:
    """One release is enough, as before."""
    lease = acquire("default")
    with mock.patch.object(Acquisition, "retain", side_effect=KeyboardInterrupt):
        with pytest.raises(KeyboardInterrupt):
            acquire_lock("1234collectPayment", reentrant=True)
    assert lease.held
    assert release_lock("1234collectPayment")
    assert scripted.owner == ""
