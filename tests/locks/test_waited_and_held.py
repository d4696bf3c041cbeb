"""How long a lease was waited for, and how long it was held: on the lease, and in the signals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from django.db import transaction

from django_distlock import (
    LockBackendUnavailable,
    aacquire_lock,
    acquire_lock,
    arelease_lock,
    distributed_lock,
    release_lock,
)
from django_distlock.fields import EPOCH
from django_distlock.records import Refusal
from tests.support.concurrency import run
from tests.support.databases import committed, on_each_server
from tests.support.holders import acquire

if TYPE_CHECKING:
    from tests.support.moved_clock import MovedClock
    from tests.support.scripted_store import ScriptedBackend
    from tests.support.signals import SentSignals

pytestmark = pytest.mark.usefixtures("stopped_clock")


def sent(signals_sent: SentSignals, name: str) -> dict[str, Any]:
    """Return the arguments of the one signal of this name."""
    [arguments] = [arguments for each, arguments in signals_sent.all if each == name]
    return arguments


def test_grant_tells_how_long_it_was_waited_for(
    scripted: ScriptedBackend, moved_clock: MovedClock, signals_sent: SentSignals
) -> None:
    """From the call until the store's answer."""
    scripted.answer("acquire", lambda: moved_clock.advance(3))
    lease = acquire("default")
    moved_clock.advance(5)
    assert sent(signals_sent, "acquired")["waited"] == lease.waited == pytest.approx(3)


def test_attempts_before_the_grant_count_as_waiting(
    scripted: ScriptedBackend, moved_clock: MovedClock
) -> None:
    """The wait did not begin with the attempt that was granted."""
    scripted.owner = "somebody else"

    def free_it() -> None:
        moved_clock.advance(2)
        scripted.owner = ""

    scripted.answer("acquire", None, free_it)
    assert acquire("default", timeout=60).waited >= 2


def test_release_tells_how_long_it_was_held(
    scripted: ScriptedBackend, moved_clock: MovedClock, signals_sent: SentSignals
) -> None:
    """From the grant until the store released it; it doesn't go on after that."""
    lease = acquire("default")
    moved_clock.advance(4)
    assert lease.held_for == pytest.approx(4)
    lease.release()
    moved_clock.advance(7)
    assert sent(signals_sent, "released")["held_for"] == lease.held_for == pytest.approx(4)


def test_lease_is_held_until_its_ttl_has_passed(
    scripted: ScriptedBackend, moved_clock: MovedClock, signals_sent: SentSignals
) -> None:
    """However late the loss is noticed."""
    lease = acquire("default", ttl=10, renew=False)
    moved_clock.advance(60)
    assert lease.held_for == pytest.approx(10)
    lease.mark_lost()
    assert sent(signals_sent, "lost")["held_for"] == lease.held_for == pytest.approx(10)


def test_lease_that_is_taken_away_was_held_until_then(
    scripted: ScriptedBackend, moved_clock: MovedClock, signals_sent: SentSignals
) -> None:
    """Its ttl would have lasted longer."""
    lease = acquire("default", ttl=60, renew=False)
    moved_clock.advance(6)
    scripted.owner = "somebody else"
    assert lease.release() is False
    moved_clock.advance(6)
    assert sent(signals_sent, "lost")["held_for"] == lease.held_for == pytest.approx(6)


@committed
@on_each_server
def test_deferred_release_holds_until_the_transaction_ends(
    alias: str, moved_clock: MovedClock, signals_sent: SentSignals
) -> None:
    """Two blocks in one transaction are one time of holding."""
    with transaction.atomic(using=alias):
        with distributed_lock("1234collectPayment", backend=alias):
            moved_clock.advance(1)
        with distributed_lock("1234collectPayment", backend=alias) as again:
            moved_clock.advance(2)
        moved_clock.advance(3)
    assert sent(signals_sent, "released")["held_for"] == again.held_for == pytest.approx(6)


def test_refusal_tells_the_wait_and_what_the_store_told(
    scripted: ScriptedBackend, moved_clock: MovedClock, signals_sent: SentSignals
) -> None:
    """Its last refusal counts."""
    scripted.owner = "somebody else"
    scripted.refusal = Refusal("export (web-1 pid 7 MainThread)", EPOCH, EPOCH, EPOCH)
    scripted.answer("acquire", lambda: moved_clock.advance(2))
    assert acquire_lock("1234collectPayment") is None
    refused = sent(signals_sent, "contended")
    assert refused["waited"] == pytest.approx(2)
    assert refused["holder"] == "export (web-1 pid 7 MainThread)"
    assert refused["reason"] == ""


def test_pause_is_told_as_the_reason(scripted: ScriptedBackend, signals_sent: SentSignals) -> None:
    """Then there is no holder."""
    scripted.owner, scripted.refusal = "nobody", Refusal(reason="paused: deploy")
    assert acquire_lock("1234collectPayment") is None
    refused = sent(signals_sent, "contended")
    assert (refused["holder"], refused["reason"]) == (None, "paused: deploy")


def test_async_code_is_told_the_same(
    scripted: ScriptedBackend, moved_clock: MovedClock, signals_sent: SentSignals
) -> None:
    """In the signals, and on the lease."""

    async def take_turns() -> None:
        lease = await aacquire_lock("1234collectPayment")
        assert lease
        moved_clock.advance(3)
        assert await aacquire_lock("1234collectPayment") is None
        await arelease_lock(lease)
        assert lease.held_for == pytest.approx(3)

    run(take_turns())
    assert sent(signals_sent, "contended")["waited"] == 0
    assert sent(signals_sent, "released")["held_for"] == pytest.approx(3)


def test_reentry_changes_neither_time(scripted: ScriptedBackend, moved_clock: MovedClock) -> None:
    """It is one lease."""
    lease = acquire("default")
    moved_clock.advance(3)
    assert acquire("default", reentrant=True) is lease
    assert lease.waited == 0
    assert lease.held_for == pytest.approx(3)
    release_lock("1234collectPayment")


def test_failed_release_goes_on_holding(scripted: ScriptedBackend, moved_clock: MovedClock) -> None:
    """Until a later release, or the end of the ttl."""
    lease = acquire("default")
    scripted.answer("release", LockBackendUnavailable("down"))
    moved_clock.advance(3)
    with pytest.raises(LockBackendUnavailable):
        lease.release()
    moved_clock.advance(3)
    assert lease.held_for == pytest.approx(6)
    lease.release()
