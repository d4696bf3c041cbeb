"""LockNotAcquired tells who holds the lock, since when and until when, as far as the store did."""

from __future__ import annotations

import copy
import pickle
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from django.utils.timezone import now

from django_distlock import (
    LockLost,
    LockNotAcquired,
    acquire_lock,
    distributed_lock,
    lock_backends,
)
from django_distlock.concurrency.process_queue import Queue
from django_distlock.fields import EPOCH
from django_distlock.leases.request import describe_holder, new_owner
from django_distlock.locks.waiting import WaitingThread
from django_distlock.records import KEPT, REFUSED, LeaseClaim, Refusal
from tests.support.concurrency import elsewhere, run

if TYPE_CHECKING:
    from tests.support.moved_clock import MovedClock
    from tests.support.scripted_store import ScriptedBackend

HOLDER = "nightly export (web-1 pid 7 MainThread)"
MINUTE = timedelta(minutes=1)
TOLD = Refusal(HOLDER, EPOCH, EPOCH + MINUTE, EPOCH + MINUTE / 2)


@pytest.fixture
def refuse(scripted: ScriptedBackend) -> Any:
    """Return a function that sets what the store answers from now on."""

    def answer(refusal: Refusal) -> None:
        scripted.owner, scripted.refusal = "somebody else", refusal

    return answer


def refused(**arguments: Any) -> LockNotAcquired:
    """Return the error of a refused block."""
    with (
        pytest.raises(LockNotAcquired) as caught,
        distributed_lock("1234collectPayment", **arguments),
    ):
        pytest.fail("it is held")
    return caught.value


TEXTS = [
    (REFUSED, "Somebody else holds '1234collectPayment'."),
    (
        TOLD,
        (
            f"Somebody else holds '1234collectPayment': {HOLDER}, since 1970-01-01 00:00:00+00:00, "
            "until 1970-01-01 00:01:00+00:00 unless it is renewed."
        ),
    ),
    (
        Refusal(HOLDER, EPOCH, None, EPOCH),
        (
            f"Somebody else holds '1234collectPayment': {HOLDER}, since 1970-01-01 00:00:00+00:00, "
            "until it is released."
        ),
    ),
    (Refusal(HOLDER), f"Somebody else holds '1234collectPayment': {HOLDER}."),
    (Refusal(reason="paused: deploy"), "'1234collectPayment' is paused: deploy."),
    (
        Refusal(reason="paused", expires_at=EPOCH, seen_at=EPOCH),
        "'1234collectPayment' is paused, until 1970-01-01 00:00:00+00:00.",
    ),
    (
        Refusal(HOLDER, EPOCH, EPOCH + MINUTE, EPOCH, KEPT),
        (
            "'1234collectPayment' is released, but kept from others for a while (min_hold), until "
            f"1970-01-01 00:01:00+00:00; the last holder was {HOLDER}."
        ),
    ),
    (
        Refusal("\u202eevil\x1b[2J\x00 <b>", EPOCH, None, None, "paused:\n\x1b]0;x"),
        (
            "'1234collectPayment' is paused:\\n\\x1b]0;x; the last holder was "
            "\\u202eevil\\x1b[2J\\x00 <b>."
        ),
    ),
]


@pytest.mark.parametrize(("refusal", "text"), TEXTS)
def test_text_names_what_the_store_told(refuse: Any, refusal: Refusal, text: str) -> None:
    """No more than that; what can't be printed is escaped, since the text is for logs."""
    refuse(refusal)
    assert str(refused()) == text


@pytest.mark.parametrize("refusal", [refusal for refusal, _ in TEXTS])
def test_attributes_have_what_the_store_told(refuse: Any, refusal: Refusal) -> None:
    """For code that decides by them."""
    refuse(refusal)
    error = refused()
    assert (error.semaphore, error.backend) == ("1234collectPayment", "default")
    assert error.holder == (refusal.holder or None)
    assert error.held_since == refusal.acquired_at
    assert (error.expires_at, error.seen_at) == (refusal.expires_at, refusal.seen_at)
    assert error.reason == refusal.reason


@pytest.mark.parametrize("copied", [pickle.loads, copy.copy, copy.deepcopy])
def test_copy_has_text_and_attributes(refuse: Any, copied: Any) -> None:
    """A task queue may send the error to another process."""
    refuse(Refusal(HOLDER, EPOCH, EPOCH + MINUTE, EPOCH, "paused"))
    error = refused()
    again = copied(pickle.dumps(error) if copied is pickle.loads else error)
    assert type(again) is LockNotAcquired
    assert (str(again), vars(again)) == (str(error), vars(error))
    assert again.holder == HOLDER


@pytest.mark.parametrize("how", ["block", "function", "async block", "async function"])
def test_every_way_to_be_refused_tells_the_same(refuse: Any, how: str) -> None:
    """Blocks and decorated functions, in sync and in async code."""
    refuse(TOLD)
    lock = distributed_lock("1234collectPayment")

    async def enter() -> None:
        async with lock:
            pytest.fail("it is held")

    @lock
    def function() -> None:
        pytest.fail("it is held")

    @lock
    async def afunction() -> None:
        pytest.fail("it is held")

    async def call() -> None:
        await {"async block": enter, "async function": afunction}[how]()

    with pytest.raises(LockNotAcquired) as caught:
        if how == "block":
            with lock:
                pytest.fail("it is held")
        elif how == "function":
            function()
        else:
            run(call())
    assert caught.value.holder == HOLDER
    assert HOLDER in str(caught.value)


def test_wait_that_times_out_tells_the_last_refusal(scripted: ScriptedBackend) -> None:
    """The holder may have changed meanwhile."""
    scripted.owner, scripted.refusal = "somebody else", Refusal("the first holder")

    def change() -> None:
        scripted.refusal = TOLD

    scripted.answer("acquire", None, change)
    assert refused(timeout=0.05).holder == HOLDER


@pytest.mark.usefixtures("stopped_clock")
def test_old_refusal_says_how_old_it_is(
    refuse: Any, scripted: ScriptedBackend, moved_clock: MovedClock
) -> None:
    """A waiter that stands behind others of its process was refused when it began to wait."""
    refuse(TOLD)

    def wait_for_nothing(*_: Any) -> None:
        moved_clock.advance(9)

    scripted.answer("acquire", None)
    with (
        mock.patch.object(Queue, "is_first", return_value=False),
        mock.patch.object(WaitingThread, "pause", side_effect=wait_for_nothing),
    ):
        error = refused(timeout=9)
    assert scripted.calls == ["acquire"]
    assert str(error).endswith("unless it is renewed. The store said so 9 s ago.")


def test_other_thread_of_this_process_is_named_so() -> None:
    """It may be the caller's own, as in a deadlock of a thread pool."""
    lease = acquire_lock("1234collectPayment", backend="memory", label="export")
    assert lease
    error = elsewhere(lambda: refused(backend="memory"))
    assert str(error).startswith(
        "Another thread or task of this process holds '1234collectPayment': export ("
    )
    assert error.holder == lease.holder
    assert error.held_since == lease.acquired_at
    assert error.expires_at
    assert lease.expires_at
    assert abs(error.expires_at - lease.expires_at) < timedelta(seconds=1)
    lease.release()


def test_own_lock_is_not_called_somebody_elses() -> None:
    """Neither another thread's."""
    with distributed_lock("1234collectPayment", backend="memory"):
        error = refused(backend="memory")
    assert str(error).startswith("This thread or task holds '1234collectPayment' itself")
    assert error.holder == describe_holder()


def test_lock_that_was_taken_away_is_not_called_ones_own() -> None:
    """Though the lease is held as far as its process knows: the store names the next holder."""
    store = lock_backends["memory"]
    lease = acquire_lock("1234collectPayment", backend="memory", label="export", renew=False)
    assert lease
    assert lease.token
    assert store.force_release("1234collectPayment", lease.token)
    other = new_owner()
    assert store.acquire("1234collectPayment", other, 60, HOLDER)
    assert lease.held
    assert str(refused(backend="memory")).startswith(
        f"Somebody else holds '1234collectPayment': {HOLDER}"
    )
    store.release(LeaseClaim("1234collectPayment", other, 60))
    with pytest.raises(LockLost):
        lease.renew()


def test_pause_is_told_with_its_reason_and_end() -> None:
    """By a real store, which nobody holds a lock in."""
    store = lock_backends["memory"]
    store.pause("1234", 60, reason="deploy 7")
    try:
        error = refused(backend="memory")
    finally:
        store.resume("1234")
    assert str(error).startswith("'1234collectPayment' is paused: deploy 7, until 20")
    assert (error.holder, error.held_since, error.reason) == (None, None, "paused: deploy 7")
    assert isinstance(error.expires_at, datetime)
    assert error.expires_at > now()


def test_acquire_lock_returns_none(refuse: Any) -> None:
    """As ever; the signal tells the rest."""
    refuse(TOLD)
    assert acquire_lock("1234collectPayment") is None
