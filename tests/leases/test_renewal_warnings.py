"""Log lines about leases that could not be renewed."""

from typing import Any

import pytest

from django_distlock import Lease, LockBackendUnavailable, clocks
from django_distlock.concurrency.renewal import REASONS
from django_distlock.fields import EPOCH
from django_distlock.records import Grant, Renewal, RenewalOutcome
from tests.support.holders import acquire
from tests.support.moved_clock import MovedClock
from tests.support.renewals import renewals_of
from tests.support.scripted_store import ScriptedBackend

# What is logged

pytestmark = pytest.mark.usefixtures("stopped_clock")


def logged_warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the warnings so far, and forget them."""
    found = [text for text in caplog.messages if "could not be renewed" in text]
    caplog.clear()
    return found


@pytest.fixture
def unanswered(scripted: ScriptedBackend, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Keep leases from being renewed, for the reasons by semaphore that the test sets."""
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


def test_each_reason_is_logged_with_its_leases(
    unanswered: dict[str, str], moved_clock: MovedClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A lease's line never has another lease's reason."""
    leases = [acquire("default", name, ttl=60, renew=False) for name in ("a", "b", "c", "d")]
    renewals = renewals_of(*leases)
    unanswered |= {"a": "its row is locked", "b": "too long", "c": "its row is locked"}
    moved_clock.advance(21)
    renewals.renew_due()
    first, second = sorted(logged_warnings(caplog), key=lambda text: text.endswith("too long"))
    assert first.endswith(
        "and 1 more could not be renewed; it will be tried again: its row is locked"
    )
    assert "'b'" in second
    assert second.endswith(" MainThread, could not be renewed; it will be tried again: too long")


def test_lease_that_is_repeatedly_not_renewed_is_logged_once_a_minute(
    unanswered: dict[str, str], moved_clock: MovedClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Once for each reason, even if reasons alternate; another lease is logged at once."""
    lease = acquire("default", "a", ttl=600, renew=False)
    renewals = renewals_of(lease)
    moved_clock.advance(201)

    def fail(reason: str) -> list[str]:
        unanswered["a"] = reason
        lease.due = clocks.monotonic()
        renewals.renew_due()
        return logged_warnings(caplog)

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
    """Such as reasons with a process or a time."""
    lease = acquire("default", "a", ttl=600, renew=False)
    renewals = renewals_of(lease)
    moved_clock.advance(201)
    for number in range(100):
        unanswered["a"] = f"process {number} has it"
        lease.due = clocks.monotonic()
        renewals.renew_due()
    assert len(logged_warnings(caplog)) == REASONS


def test_store_that_is_down_is_logged_once(
    scripted: ScriptedBackend,
    unrenewed: Lease,
    moved_clock: MovedClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """However often it is tried again."""
    renewals = renewals_of(unrenewed)
    scripted.answer("renew", *[LockBackendUnavailable("down")] * 1_000)
    for _ in range(13):
        moved_clock.advance(max(0.01, renewals.next_due() - clocks.monotonic()))
        renewals.renew_due()
    [text] = logged_warnings(caplog)
    assert text.endswith("it will be tried again: down")
