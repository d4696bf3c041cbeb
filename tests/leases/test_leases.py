"""The lease: its state, its repr, and what it refuses."""

import copy
import math
import os
import pickle
import socket
import threading

import pytest

from django_distlock import (
    Lease,
    LockBackendUnavailable,
    LockLost,
    LockNotHeld,
    acquire_lock,
    distributed_lock,
    release_lock,
)
from django_distlock.leases.request import describe_holder, new_owner
from tests.support.leases import internals
from tests.support.moved_clock import MovedClock
from tests.support.scripted_store import ScriptedBackend

pytestmark = pytest.mark.usefixtures("stopped_clock")


@pytest.fixture
def lease(scripted: ScriptedBackend) -> Lease:
    """Hold a lease of a minute in a scripted store."""
    lease = acquire_lock("1234collectPayment")
    assert lease is not None
    return lease


def test_lease_is_true_and_held(lease: Lease) -> None:
    """About its whole ttl remains."""
    assert bool(lease) is True
    assert lease.held
    assert lease.remaining == pytest.approx(60)
    lease.check()


def test_unlimited_lease_has_no_end(scripted: ScriptedBackend) -> None:
    """Infinite seconds remain."""
    lease = acquire_lock("report", ttl=None)
    assert lease is not None
    lease.renew()
    assert lease.remaining == math.inf


def test_expired_lease_knows_it_by_the_local_clock(lease: Lease, moved_clock: MovedClock) -> None:
    """Without a round trip, and whatever the wall clock says."""
    moved_clock.expire(lease)
    assert not lease.held
    assert lease.remaining == 0
    assert "expired: its ttl of 60 seconds has passed" in repr(lease)
    with pytest.raises(LockLost, match="was lost: its ttl of 60 seconds") as caught:
        lease.check()
    assert caught.value.lease is lease
    assert "was lost: its ttl" in repr(lease)


def test_remaining_counts_from_before_the_request(
    scripted: ScriptedBackend, moved_clock: MovedClock
) -> None:
    """A slow reply doesn't make the lease longer than the store's."""
    scripted.answer("acquire", lambda: moved_clock.advance(7))
    lease = acquire_lock("report")
    assert lease is not None
    assert lease.remaining == pytest.approx(53)


def test_released_lease_is_not_held(lease: Lease) -> None:
    """A second release does nothing."""
    assert lease.release() is True
    assert not lease.held
    assert lease.release() is False
    with pytest.raises(LockLost, match="was released"):
        lease.check()
    with pytest.raises(LockLost, match="was released"):
        lease.renew()


def test_renewal_moves_the_end(lease: Lease, moved_clock: MovedClock) -> None:
    """It ends one ttl from now."""
    moved_clock.advance(50)
    assert lease.remaining == pytest.approx(10)
    lease.renew()
    assert lease.remaining == pytest.approx(60)


def test_lease_is_not_held_while_it_is_released(lease: Lease, scripted: ScriptedBackend) -> None:
    """It isn't lost, either: only the store's answer decides that."""
    seen = []

    def look() -> None:
        with pytest.raises(LockLost, match="is being released, or lost"):
            lease.check()
        seen.append((lease.held, internals(lease).lost))

    scripted.answer("release", look)
    assert lease.release()
    assert seen == [(False, False)]


def test_lease_granted_to_another_owner_is_lost(lease: Lease, scripted: ScriptedBackend) -> None:
    """The loss is found at a renewal or a release."""
    scripted.owner = "somebody else"
    with pytest.raises(LockLost, match="was lost"):
        lease.renew()
    assert release_lock("1234collectPayment") is False
    with pytest.raises(LockNotHeld):
        release_lock("1234collectPayment")
    assert lease.release() is False
    assert scripted.owner == "somebody else"


def test_renewal_that_failed_changes_nothing(
    lease: Lease, scripted: ScriptedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unknown is not lost: it can be tried again until the ttl has passed."""
    scripted.answer("renew", LockBackendUnavailable("down"))
    with pytest.raises(LockBackendUnavailable, match="down") as failed:
        lease.renew()
    with monkeypatch.context() as patched:
        patched.setattr(scripted, "renew", lambda leases: {})
        with pytest.raises(LockBackendUnavailable, match="could not be renewed") as unanswered:
            lease.renew()
    assert failed.value.lease is unanswered.value.lease is lease
    assert lease.held
    lease.renew()


def test_no_text_of_a_lease_has_the_owner(lease: Lease) -> None:
    """Anybody with the owner can release the lock."""
    owner = internals(lease).owner
    assert str(owner) not in f"{lease!r} {lease} {owner!r} {[owner]}"
    assert "1234collectPayment" in repr(lease)
    assert str(lease.token) in repr(lease)


@pytest.mark.parametrize("action", [pickle.dumps, copy.copy, copy.deepcopy])
def test_lease_cannot_be_pickled_or_copied(lease: Lease, action: object) -> None:
    """It belongs to one process."""
    assert callable(action)
    with pytest.raises(TypeError, match="send its token"):
        action(lease)


def test_owners_are_never_the_same() -> None:
    """One per acquisition, not per host or process (peer defect 21)."""
    owners = {str(new_owner()) for _ in range(1000)}
    assert len(owners) == 1000
    assert {len(owner) for owner in owners} == {32}


def test_holder_says_who_it_is() -> None:
    """Label, host, process and thread, in characters that every store can keep."""
    name = threading.current_thread().name
    assert describe_holder() == f"{socket.gethostname()} pid {os.getpid()} {name}"
    assert describe_holder("nightly").startswith("nightly (")
    assert describe_holder("a\0b\ud800").startswith(r"a\x00b\ud800 (")


def test_leaving_a_block_that_was_not_entered_raises() -> None:
    """The error says so."""
    with pytest.raises(RuntimeError, match="more often than it was entered"):
        distributed_lock("report").__exit__(None, None, None)
