"""Leases that are released, or lost, while they are renewed."""

from typing import Any
from unittest import mock

import pytest

from django_distlock import Lease, LockBackendUnavailable, LockLost
from django_distlock.concurrency.background import Background
from django_distlock.leases.outcomes import end_lost
from django_distlock.records import Released, Renewal, RenewalOutcome
from tests.support.concurrency import until
from tests.support.holders import acquire
from tests.support.leases import internals
from tests.support.moved_clock import MovedClock
from tests.support.scripted_store import ScriptedBackend

# Releases during a renewal

pytestmark = pytest.mark.usefixtures("stopped_clock")


@pytest.fixture
def renewed(scripted: ScriptedBackend, default_background: Background) -> Lease:
    """Return a lease that the background renews when the test says so."""
    lease = acquire("default", "1234collectPayment", ttl=600)
    until(lambda: default_background.scans_at == lease.due)
    return lease


@pytest.mark.parametrize("outcome", ["gone", "not renewed"])
def test_lease_released_during_its_renewal_is_not_lost(
    scripted: ScriptedBackend,
    default_background: Background,
    renewed: Lease,
    moved_clock: MovedClock,
    outcome: str,
    lost: dict[Lease, str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The store no longer has it, or the release had locked the row."""
    renew = scripted.renew

    def after_the_release(claims: Any) -> Any:
        assert renewed.release() is True
        if outcome == "gone":
            return renew(claims)
        return {internals(renewed).owner: Renewal(RenewalOutcome.HELD, renewed.expires_at)}

    monkeypatch.setattr(scripted, "renew", after_the_release)
    moved_clock.advance(300)
    default_background.renewals.renew_due()
    assert not lost
    assert internals(renewed).released
    assert caplog.text == ""


def test_lease_whose_loss_is_being_reported_is_not_released(
    scripted: ScriptedBackend, renewed: Lease, lost: dict[Lease, str]
) -> None:
    """The thread that first claims the end of the lease decides."""
    assert internals(renewed).claim_end()
    assert not renewed.held
    assert "is being released, or lost" in repr(renewed)
    assert renewed.release() is False
    assert scripted.calls == ["acquire"]
    end_lost(internals(renewed))
    assert list(lost) == [renewed]


def test_failed_release_ends_the_renewal(
    scripted: ScriptedBackend, default_background: Background, renewed: Lease
) -> None:
    """It can be tried again until the lease expires, but may never be."""
    assert internals(renewed) in default_background.renewals
    scripted.answer("release", LockBackendUnavailable("down"))
    with pytest.raises(LockBackendUnavailable):
        renewed.release()
    assert internals(renewed) not in default_background.renewals
    assert renewed.release() is True
    assert internals(renewed) not in default_background.renewals


def test_lease_ends_by_either_release_or_loss(
    scripted: ScriptedBackend, unrenewed: Lease, lost: dict[Lease, str]
) -> None:
    """Of a releasing and a renewing thread only one reports the end of the lease."""
    release = scripted.release

    def renew_meanwhile(claim: Any, keep: float) -> Released:
        released = release(claim, keep)
        with pytest.raises(LockLost, match="is being released"):
            unrenewed.check()
        internals(unrenewed).mark_lost()
        assert unrenewed.release() is False
        return released

    with mock.patch.object(scripted, "release", renew_meanwhile):
        assert unrenewed.release() is True
    assert internals(unrenewed).released
    assert not internals(unrenewed).lost
    assert not lost


def test_renewal_that_finds_nothing_during_a_release_does_not_lose_the_lease(
    scripted: ScriptedBackend, unrenewed: Lease, lost: dict[Lease, str]
) -> None:
    """The lease is no longer held, though."""
    renew = scripted.renew

    def after_the_release(claims: Any) -> Any:
        assert unrenewed.release() is True
        return renew(claims)

    with mock.patch.object(scripted, "renew", after_the_release):
        with pytest.raises(LockLost, match="was released"):
            unrenewed.renew()
    assert not lost
