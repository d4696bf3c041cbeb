"""Acquisitions and releases that get no answer, or are interrupted."""

import time
from contextlib import nullcontext
from typing import Any

import pytest

from django_distlock import (
    LockBackendUnavailable,
    LockLost,
    acquire_lock,
    distributed_lock,
    release_lock,
)
from django_distlock.locks import waiting
from django_distlock.signals import lock_acquired
from tests.support.holders import acquire
from tests.support.leases import internals
from tests.support.scripted_store import NO_REPLY, ScriptedBackend, ScriptedPlace

DOWN = LockBackendUnavailable("down")
REPLY_LOST = LockBackendUnavailable("no reply", reply_lost=True)


def test_lost_reply_finds_its_own_grant(scripted: ScriptedBackend) -> None:
    """The retry asks as the same owner (peer defect 15)."""
    scripted.answer("acquire", NO_REPLY)
    lease = acquire("default")
    assert scripted.owner == lease.owner
    assert scripted.calls == ["acquire", "acquire"]


def test_lock_is_released_after_a_second_lost_reply(scripted: ScriptedBackend) -> None:
    """The error is "unavailable", and no lock stays."""
    scripted.answer("acquire", NO_REPLY, NO_REPLY)
    with pytest.raises(LockBackendUnavailable, match="the reply was lost"):
        acquire_lock("1234collectPayment")
    assert scripted.calls == ["acquire", "acquire", "release"]
    assert scripted.owner == ""


def test_store_that_goes_down_between_two_tries_is_asked_to_release(
    scripted: ScriptedBackend,
) -> None:
    """The first try may have been granted, whatever the outcome of the second."""
    scripted.answer("acquire", NO_REPLY, DOWN)
    with pytest.raises(LockBackendUnavailable, match="down"):
        acquire_lock("1234collectPayment")
    assert scripted.calls == ["acquire", "acquire", "release"]


def test_grant_that_arrives_after_its_ttl_is_refused(
    scripted: ScriptedBackend, pauses: list[float]
) -> None:
    """Another owner may hold the lock by then; the grant is released in any case."""
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


def test_interrupted_acquisition_releases_the_lock(scripted: ScriptedBackend) -> None:
    """A worker that is stopped during a request leaves no lock, and stops."""
    scripted.answer("acquire", SystemExit(1))
    scripted.answer("release", DOWN)
    with pytest.raises(SystemExit):
        acquire_lock("1234collectPayment")
    assert scripted.calls == ["acquire", "release"]


def test_receiver_that_ends_the_process_leaves_no_grant_behind(scripted: ScriptedBackend) -> None:
    """It interrupts acquire_lock() after the grant."""

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
    """The first request succeeded, so the second finds nothing: released, not lost."""
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
    """Another owner may hold the lock by now. The release can still be repeated."""
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


def test_block_whose_release_got_no_answer_does_not_raise_lost(
    scripted: ScriptedBackend, caplog: pytest.LogCaptureFixture
) -> None:
    """The block's work was done under the lock."""
    with distributed_lock("1234collectPayment") as lease:
        scripted.answer("release", REPLY_LOST, DOWN)
    assert not internals(lease).lost
    assert "could not be released; it ends by itself" in caplog.text


@pytest.fixture
def queued(scripted: ScriptedBackend, monkeypatch: pytest.MonkeyPatch) -> ScriptedBackend:
    """Return a store with a queue; another owner has the lock."""
    scripted.owner = "another owner"
    monkeypatch.setattr(scripted, "join", lambda *arguments: ScriptedPlace(outlasts_failures=True))
    monkeypatch.setattr(scripted, "leave", lambda *arguments: scripted.calls.append("leave"))
    return scripted


def free(store: ScriptedBackend) -> object:
    """Free the lock, and lose the reply to the attempt that gets it."""
    store.owner = ""
    return NO_REPLY


def test_attempt_is_not_undone_while_the_wait_goes_on(queued: ScriptedBackend) -> None:
    """A release that arrives late would end what the same owner is granted next."""
    queued.answer("acquire", None, lambda: free(queued), REPLY_LOST, REPLY_LOST)
    lease = acquire("default", timeout=60)
    assert queued.owner == lease.owner
    assert queued.calls == [*["acquire"] * 5, "leave"]


@pytest.mark.parametrize("is_interrupted", [True, False])
def test_attempt_is_undone_when_the_wait_ends(
    queued: ScriptedBackend, monkeypatch: pytest.MonkeyPatch, is_interrupted: bool
) -> None:
    """By its timeout, or by an interruption between two attempts."""

    def check(self: ScriptedPlace) -> None:
        if is_interrupted and len(queued.calls) > 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(ScriptedPlace, "check", check)
    monkeypatch.setattr(waiting, "waits", lambda *arguments: [0.0] * (1 + is_interrupted))
    queued.answer("acquire", None, lambda: free(queued), REPLY_LOST)
    with pytest.raises(KeyboardInterrupt) if is_interrupted else nullcontext():
        assert acquire_lock("1234collectPayment", timeout=60) is None
    assert queued.calls == [*["acquire"] * 3, "leave", "release"]
    assert queued.owner == ""
