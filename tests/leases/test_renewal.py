"""Renewal in the background: when a lease is renewed, and what the store's answer means for it."""

import math
from contextlib import suppress
from typing import Any
from unittest import mock

import pytest

from django_distlock import Lease, LockBackendUnavailable, LockLost, clocks
from django_distlock.concurrency.background import Background
from django_distlock.concurrency.renewal import REASONS, Renewals
from django_distlock.fields import EPOCH
from django_distlock.leases.outcomes import end_lost
from django_distlock.records import Grant, Released, Renewal, RenewalOutcome
from tests.support.concurrency import elsewhere, until
from tests.support.holders import acquire
from tests.support.moved_clock import MovedClock
from tests.support.renewals import renewals_of
from tests.support.scripted_store import ScriptedBackend

pytestmark = pytest.mark.usefixtures("stopped_clock")


@pytest.fixture
def unrenewed(scripted: ScriptedBackend) -> Lease:
    """Return a lease of a minute, which nobody renews but the test."""
    return acquire("default", "1234collectPayment", ttl=60, renew=False)


# What is due


def test_lease_is_renewed_after_a_third_of_its_ttl(
    scripted: ScriptedBackend, unrenewed: Lease, moved_clock: MovedClock
) -> None:
    """Not before, and then it lasts its ttl from there."""
    renewals = renewals_of(unrenewed)
    moved_clock.advance(19.9)
    renewals.renew_due()
    assert scripted.calls == ["acquire"]
    moved_clock.advance(0.2)
    renewals.renew_due()
    assert scripted.calls == ["acquire", "renew"]
    assert unrenewed.remaining == pytest.approx(60)
    assert renewals.next_due() - clocks.monotonic() == pytest.approx(20)


def test_leases_of_different_times_come_to_be_renewed_together(
    scripted: ScriptedBackend, moved_clock: MovedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within two periods all are renewed by one question a period."""
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
    """Whatever failed before."""
    lease = acquire("default", "1234collectPayment", ttl=60, max_hold=70, renew=False)
    renewals = renewals_of(lease)
    moved_clock.advance(30)
    lease.renew()
    assert lease.remaining == pytest.approx(40)
    lease.retry(clocks.monotonic())
    assert renewals.next_due() == pytest.approx(clocks.monotonic() + 40)


def test_lease_that_nobody_refers_to_is_not_renewed(scripted: ScriptedBackend) -> None:
    """It is dropped at the next look, and a warning has told of it."""
    renewals = Renewals("default")

    def acquire_and_end() -> None:
        renewals.add(acquire("default", "1234collectPayment", renew=False))

    with pytest.warns(ResourceWarning, match="'1234collectPayment' was never released"):
        elsewhere(acquire_and_end)
    assert renewals.next_due() == math.inf
    assert len(renewals) == 0


# What is told


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the warnings so far, and forget them."""
    found = [text for text in caplog.messages if "could not be renewed" in text]
    caplog.clear()
    return found


@pytest.fixture
def unanswered(scripted: ScriptedBackend, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Let leases not be renewed for the reasons, by semaphore, that the test gives."""
    reasons: dict[str, str] = {}
    monkeypatch.setattr(scripted, "acquire", lambda *args: Grant(1, EPOCH, EPOCH))

    def renew(claims: Any) -> dict[str, Any]:
        return {
            claim.owner: Renewal(RenewalOutcome.HELD, None, reasons[claim.semaphore])
            if claim.semaphore in reasons
            else Renewal(RenewalOutcome.RENEWED, EPOCH)
            for claim in claims
        }

    monkeypatch.setattr(scripted, "renew", renew)
    return reasons


def test_each_reason_is_told_with_its_leases(
    unanswered: dict[str, str], moved_clock: MovedClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is made up for a lease beside another one."""
    leases = [acquire("default", name, ttl=60, renew=False) for name in ("a", "b", "c", "d")]
    renewals = renewals_of(*leases)
    unanswered |= {"a": "its row is locked", "b": "too long", "c": "its row is locked"}
    moved_clock.advance(21)
    renewals.renew_due()
    first, second = sorted(told(caplog), key=lambda text: text.endswith("too long"))
    assert first.endswith(
        "and 1 others could not be renewed; it will be tried again: its row is locked"
    )
    assert "'b'" in second
    assert second.endswith("and 0 others could not be renewed; it will be tried again: too long")


def test_lease_that_is_not_renewed_again_and_again_is_told_once_a_minute(
    unanswered: dict[str, str], moved_clock: MovedClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Of each reason, even if these take turns; another lease is told of at once."""
    lease = acquire("default", "a", ttl=600, renew=False)
    renewals = renewals_of(lease)
    moved_clock.advance(201)

    def fail(reason: str) -> list[str]:
        unanswered["a"] = reason
        lease.due = clocks.monotonic()
        renewals.renew_due()
        return told(caplog)

    assert len(fail("locked")) == len(fail("down")) == 1
    for _ in range(13):
        assert fail("locked") == fail("down") == []
        moved_clock.advance(4)
    unanswered["b"] = "down"
    other = acquire("default", "b", ttl=600, renew=False)
    renewals.add(other)
    other.due = clocks.monotonic()
    [text] = fail("down")
    assert "'b'" in text
    moved_clock.advance(9)
    assert len(fail("locked")) == 1


def test_reasons_that_are_never_the_same_do_not_fill_the_log(
    unanswered: dict[str, str], moved_clock: MovedClock, caplog: pytest.LogCaptureFixture
) -> None:
    """As those that name a process or a time."""
    lease = acquire("default", "a", ttl=600, renew=False)
    renewals = renewals_of(lease)
    moved_clock.advance(201)
    for number in range(100):
        unanswered["a"] = f"process {number} has it"
        lease.due = clocks.monotonic()
        renewals.renew_due()
    assert len(told(caplog)) == REASONS


def test_store_that_is_down_is_told_once(
    scripted: ScriptedBackend,
    unrenewed: Lease,
    moved_clock: MovedClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """However often it is tried again meanwhile."""
    renewals = renewals_of(unrenewed)
    scripted.answer("renew", *[LockBackendUnavailable("down")] * 1_000)
    for _ in range(13):
        moved_clock.advance(max(0.01, renewals.next_due() - clocks.monotonic()))
        renewals.renew_due()
    [text] = told(caplog)
    assert text.endswith("it will be tried again: down")


# What is unknown


def test_failed_renewal_is_tried_again_until_the_ttl_has_passed(
    scripted: ScriptedBackend,
    unrenewed: Lease,
    moved_clock: MovedClock,
    lost: dict[Lease, str],
) -> None:
    """Unknown is not lost; and once it is lost, it stays so, whatever the store says later."""
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
    """Unknown, then held."""
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
    """Let the store renew when the lease's ttl has passed."""
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
    """Who asked meanwhile was told that it had expired."""
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
    """Likewise."""
    answer_too_late(scripted, moved_clock, monkeypatch)
    with pytest.raises(LockLost):
        unrenewed.renew()
    assert list(lost) == [unrenewed]


# What is released meanwhile


@pytest.fixture
def renewed(scripted: ScriptedBackend, default_background: Background) -> Lease:
    """Return a lease that the background renews, but not by itself while a test lasts."""
    lease = acquire("default", "1234collectPayment", ttl=600)
    until(lambda: default_background.scans_at == lease.due)
    return lease


@pytest.mark.parametrize("outcome", ["gone", "not renewed"])
def test_lease_that_is_released_while_it_is_renewed_is_no_trouble(
    scripted: ScriptedBackend,
    default_background: Background,
    renewed: Lease,
    moved_clock: MovedClock,
    outcome: str,
    lost: dict[Lease, str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The store has it no more since it was given back; or the release had the row locked."""
    renew = scripted.renew

    def after_the_release(claims: Any) -> Any:
        assert renewed.release() is True
        if outcome == "gone":
            return renew(claims)
        return {renewed.owner: Renewal(RenewalOutcome.HELD, renewed.expires_at)}

    monkeypatch.setattr(scripted, "renew", after_the_release)
    moved_clock.advance(300)
    default_background.renewals.renew_due()
    assert not lost
    assert renewed.released
    assert caplog.text == ""


def test_lease_that_is_being_told_lost_is_not_released(
    scripted: ScriptedBackend, renewed: Lease, lost: dict[Lease, str]
) -> None:
    """The thread that claims its end first decides."""
    assert renewed.claim_end()
    assert not renewed.held
    assert "is being released, or lost" in repr(renewed)
    assert renewed.release() is False
    assert scripted.calls == ["acquire"]
    end_lost(renewed)
    assert list(lost) == [renewed]


def test_failed_release_ends_the_renewal(
    scripted: ScriptedBackend, default_background: Background, renewed: Lease
) -> None:
    """It can be tried again as long as the lease lasts, which nobody may do."""
    assert renewed in default_background.renewals
    scripted.answer("release", LockBackendUnavailable("down"))
    with pytest.raises(LockBackendUnavailable):
        renewed.release()
    assert renewed not in default_background.renewals
    assert renewed.release() is True
    assert renewed not in default_background.renewals


def test_release_and_loss_are_settled_once(
    scripted: ScriptedBackend, unrenewed: Lease, lost: dict[Lease, str]
) -> None:
    """Who releases and who renews in two threads don't both tell what became of it."""
    release = scripted.release

    def renew_meanwhile(claim: Any, keep: float) -> Released:
        released = release(claim, keep)
        with pytest.raises(LockLost, match="is being released"):
            unrenewed.check()
        unrenewed.mark_lost()
        assert unrenewed.release() is False
        return released

    with mock.patch.object(scripted, "release", renew_meanwhile):
        assert unrenewed.release() is True
    assert unrenewed.released
    assert not unrenewed.lost
    assert not lost


def test_renewal_that_finds_nothing_while_it_is_released_is_no_loss(
    scripted: ScriptedBackend, unrenewed: Lease, lost: dict[Lease, str]
) -> None:
    """But the lease is not held any more."""
    renew = scripted.renew

    def after_the_release(claims: Any) -> Any:
        assert unrenewed.release() is True
        return renew(claims)

    with mock.patch.object(scripted, "renew", after_the_release):
        with pytest.raises(LockLost, match="was released"):
            unrenewed.renew()
    assert not lost
