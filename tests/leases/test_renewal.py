"""Renewal in the background: when a lease is renewed, and what the store's answer means for it."""

import math
from contextlib import suppress
from typing import Any

import pytest

from django_distlock import Lease, LockBackendUnavailable, LockLost, clocks
from django_distlock.concurrency.renewal import Renewals
from django_distlock.fields import EPOCH
from django_distlock.records import Grant, Renewal, RenewalOutcome
from tests.support.concurrency import elsewhere
from tests.support.holders import acquire
from tests.support.moved_clock import MovedClock
from tests.support.renewals import renewals_of
from tests.support.scripted_store import ScriptedBackend

pytestmark = pytest.mark.usefixtures("stopped_clock")


# What is due


def test_lease_is_renewed_after_a_third_of_its_ttl(
    scripted: ScriptedBackend, unrenewed: Lease, moved_clock: MovedClock
) -> None:
    """Not before; then it lasts a whole ttl again."""
    renewals = renewals_of(unrenewed)
    moved_clock.advance(19.9)
    renewals.renew_due()
    assert scripted.calls == ["acquire"]
    moved_clock.advance(0.2)
    renewals.renew_due()
    assert scripted.calls == ["acquire", "renew"]
    assert unrenewed.remaining == pytest.approx(60)
    assert renewals.next_due() - clocks.monotonic() == pytest.approx(20)


def test_leases_of_different_times_are_soon_renewed_together(
    scripted: ScriptedBackend, moved_clock: MovedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within two periods, one request per period renews all."""
    began = moved_clock.read()
    monkeypatch.setattr(scripted, "acquire", lambda *args: Grant(1, EPOCH, EPOCH))
    leases = []
    for second in range(20):
        leases += [acquire("default", f"acquired at {second}", renew=False)]
        moved_clock.advance(1)
    renewals = renewals_of(*leases)
    asked: list[tuple[float, int]] = []

    def renew(claims: Any) -> dict[str, Any]:
        asked.append((moved_clock.read() - began, len(claims)))
        return {claim.owner: Renewal(RenewalOutcome.RENEWED, EPOCH) for claim in claims}

    monkeypatch.setattr(scripted, "renew", renew)
    while moved_clock.read() - began < 120:
        moved_clock.advance(max(0.01, renewals.next_due() - moved_clock.read()))
        renewals.renew_due()
    assert all(lease.held for lease in leases)
    assert [number for when, number in asked if 60 < when < 120] == [20, 20, 20]


def test_lease_that_can_last_no_longer_is_looked_at_when_it_ends(
    scripted: ScriptedBackend, moved_clock: MovedClock
) -> None:
    """Even if its renewals failed before."""
    lease = acquire("default", "1234collectPayment", ttl=60, max_hold=70, renew=False)
    renewals = renewals_of(lease)
    moved_clock.advance(30)
    lease.renew()
    assert lease.remaining == pytest.approx(40)
    lease.retry(clocks.monotonic())
    assert renewals.next_due() == pytest.approx(clocks.monotonic() + 40)


def test_unreferenced_lease_is_not_renewed(scripted: ScriptedBackend) -> None:
    """It is dropped at the next look, after a warning."""
    renewals = Renewals("default")

    def acquire_and_end() -> None:
        renewals.add(acquire("default", "1234collectPayment", renew=False))

    with pytest.warns(ResourceWarning, match="'1234collectPayment' was never released"):
        elsewhere(acquire_and_end)
    assert renewals.next_due() == math.inf
    assert len(renewals) == 0


# What is unknown


def test_failed_renewal_is_tried_again_until_the_ttl_has_passed(
    scripted: ScriptedBackend,
    unrenewed: Lease,
    moved_clock: MovedClock,
    lost: dict[Lease, str],
) -> None:
    """Unknown is not lost; once lost, it stays lost, whatever the store answers later."""
    renewals = renewals_of(unrenewed)
    scripted.answer("renew", *[LockBackendUnavailable("down")] * 1_000)
    while unrenewed.remaining > 1:
        assert unrenewed.held
        assert not lost
        moved_clock.advance(renewals.next_due() - moved_clock.read() + 0.001)
        renewals.renew_due()
    assert 10 <= scripted.calls.count("renew") <= 20
    moved_clock.expire(unrenewed)
    assert not unrenewed.held
    scripted.answers.clear()
    renewals.renew_due()
    assert lost == {unrenewed: "its ttl of 60 seconds has passed"}
    assert not unrenewed.held
    renewals.renew_due()
    with pytest.raises(LockLost, match="60 seconds has passed"):
        unrenewed.renew()
    assert unrenewed.release() is False
    assert len(lost) == 1


def test_renewal_after_an_outage_holds_on(
    scripted: ScriptedBackend,
    unrenewed: Lease,
    moved_clock: MovedClock,
    lost: dict[Lease, str],
) -> None:
    """The lease is unknown, then held."""
    renewals = renewals_of(unrenewed)
    scripted.answer("renew", ValueError("not even an error of ours"))
    moved_clock.advance(21)
    renewals.renew_due()
    assert unrenewed.remaining == pytest.approx(39)
    moved_clock.advance(4)
    renewals.renew_due()
    assert unrenewed.remaining == pytest.approx(60)
    assert not lost


@pytest.mark.parametrize("trouble", [SystemExit(1), ["no", "dict"]])
def test_store_that_misbehaves_is_not_asked_all_the_time(
    scripted: ScriptedBackend,
    unrenewed: Lease,
    moved_clock: MovedClock,
    monkeypatch: pytest.MonkeyPatch,
    trouble: Any,
) -> None:
    """It is tried again after a while, as after any failure."""
    renewals = renewals_of(unrenewed)

    def misbehave(claims: Any) -> Any:
        if isinstance(trouble, BaseException):
            raise trouble
        return trouble

    monkeypatch.setattr(scripted, "renew", misbehave)
    moved_clock.advance(30)
    with suppress(SystemExit, AttributeError):
        renewals.renew_due()
    assert renewals.next_due() > clocks.monotonic() + 1


# What comes too late


def answer_too_late(
    scripted: ScriptedBackend, moved_clock: MovedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Make the store renew after the lease's ttl has passed."""
    renew = scripted.renew

    def slowly(claims: Any) -> Any:
        moved_clock.advance(61)
        return renew(claims)

    monkeypatch.setattr(scripted, "renew", slowly)


def test_answer_that_comes_too_late_does_not_revive(
    scripted: ScriptedBackend,
    unrenewed: Lease,
    moved_clock: MovedClock,
    lost: dict[Lease, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In the meantime the lease was reported as expired."""
    renewals = renewals_of(unrenewed)
    answer_too_late(scripted, moved_clock, monkeypatch)
    moved_clock.advance(30)
    renewals.renew_due()
    assert not unrenewed.held
    renewals.renew_due()
    assert list(lost) == [unrenewed]


def test_explicit_renewal_whose_answer_comes_too_late_is_a_loss(
    scripted: ScriptedBackend,
    unrenewed: Lease,
    moved_clock: MovedClock,
    lost: dict[Lease, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """lease.renew() raises, and the lease is lost."""
    answer_too_late(scripted, moved_clock, monkeypatch)
    with pytest.raises(LockLost):
        unrenewed.renew()
    assert list(lost) == [unrenewed]
