"""When the store is asked for a lease before a commit."""

import signal
from typing import Any

import pytest
from django.db import transaction
from django.http import HttpRequest, HttpResponse

from django_distlock import Lease, LockBackendUnavailable, LockLost, clocks, distributed_lock
from django_distlock.records import Renewal, RenewalOutcome
from tests.app.models import Counter
from tests.support.concurrency import until
from tests.support.databases import committed
from tests.support.holders import due_now, renewed_since, take_away
from tests.support.leases import internals
from tests.support.moved_clock import MovedClock
from tests.support.processes import send_and_wait
from tests.support.redis_stores import ALIAS, locks_at
from tests.support.scripted_store import ScriptedBackend
from tests.support.servers import Server
from tests.support.visits import visit

pytestmark = committed

DOWN = LockBackendUnavailable("no route")


@pytest.mark.parametrize("is_slow", [False, True])
def test_store_is_asked_before_a_commit_unless_it_was_a_moment_ago(
    scripted: ScriptedBackend, acquired: list[Lease], moved_clock: MovedClock, is_slow: bool
) -> None:
    """A quick view pays nothing; a slow one has its whole ttl for each commit."""
    moved_clock.stop()

    @distributed_lock("1234collectPayment", http=True)
    def charge(request: HttpRequest) -> HttpResponse:
        [lease] = acquired
        for _ in range(3):
            with transaction.atomic():
                Counter.objects.create(value=1)
                if is_slow:
                    moved_clock.outdate(lease)
            assert lease.remaining == pytest.approx(60)
        return HttpResponse("charged")

    assert visit(charge).status_code == 200
    assert scripted.calls == ["acquire", *["renew"] * 3 * is_slow, "release"]
    assert Counter.objects.count() == 3


def test_renewal_in_the_background_counts(
    scripted: ScriptedBackend, moved_clock: MovedClock
) -> None:
    """The store has confirmed the lease."""
    moved_clock.stop()
    with distributed_lock("1234collectPayment") as lease, transaction.atomic():
        moved_clock.outdate(lease)
        is_renewed = renewed_since([lease])
        due_now([lease])
        until(lambda: is_renewed() and internals(lease).is_confirmed())
    assert scripted.calls == ["acquire", "renew", "release"]


@pytest.mark.parametrize(("ttl", "is_asked"), [(0.09, True), (60, False)])
def test_short_lease_is_renewed_before_a_commit(
    scripted: ScriptedBackend, moved_clock: MovedClock, ttl: float, is_asked: bool
) -> None:
    """After a third of its ttl, the rest may be shorter than a commit."""
    moved_clock.stop()
    with distributed_lock("1234collectPayment", ttl=ttl, renew=False), transaction.atomic():
        moved_clock.advance(0.04)
    assert scripted.calls == ["acquire", *["renew"] * is_asked, "release"]


@pytest.mark.parametrize(
    "answer", [DOWN, LockBackendUnavailable("no reply", reply_lost=True)], ids=["down", "no reply"]
)
def test_store_that_is_down_before_the_commit_does_not_lose_the_lease(
    scripted: ScriptedBackend,
    moved_clock: MovedClock,
    caplog: pytest.LogCaptureFixture,
    answer: Exception,
) -> None:
    """No other owner is granted the lock of an unexpired lease: unknown is not lost."""
    scripted.answer("renew", answer)
    with distributed_lock("1234collectPayment") as lease, transaction.atomic():
        Counter.objects.create(value=1)
        moved_clock.outdate(lease)
    assert Counter.objects.count() == 1
    assert "could not be renewed before a commit; it is held for" in caplog.text


@pytest.mark.once
@pytest.mark.needs("redis")
def test_store_that_hangs_holds_up_a_commit_for_no_longer_than_its_store_timeout(
    redis_server: Server, moved_clock: MovedClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Then it commits: no other owner is granted the lock in that time."""
    process = redis_server.executor.process
    assert process is not None
    place = redis_server.settings["PORT"]
    patient, impatient = ({"store_timeout": seconds} for seconds in (30, 0.3))
    with (
        locks_at(place, store=patient),
        distributed_lock("1234collectPayment", backend=ALIAS) as lease,
    ):
        try:
            with locks_at(place, store=impatient), transaction.atomic():
                Counter.objects.create(value=1)
                moved_clock.outdate(lease)
                send_and_wait(process, signal.SIGSTOP)
                began = clocks.monotonic()
            took = clocks.monotonic() - began
        finally:
            process.send_signal(signal.SIGCONT)
    assert Counter.objects.count() == 1
    assert 0.2 < took < 20
    assert "could not be renewed before a commit; it is held for" in caplog.text


def test_store_that_cannot_renew_for_a_moment_does_not_lose_the_lease(
    scripted: ScriptedBackend, moved_clock: MovedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row is locked, say: the lease keeps its end."""
    moved_clock.stop()

    def refuse(leases: Any) -> dict[str, Renewal]:
        scripted.calls.append("renew")
        return {lease.owner: Renewal(RenewalOutcome.HELD) for lease in leases}

    monkeypatch.setattr(scripted, "renew", refuse)
    with distributed_lock("1234collectPayment") as lease, transaction.atomic():
        Counter.objects.create(value=1)
        moved_clock.outdate(lease)
        left = lease.remaining
    assert Counter.objects.count() == 1
    assert lease.remaining == left
    assert scripted.calls == ["acquire", "renew", "release"]


def test_lease_that_expires_while_its_store_is_asked_is_lost(
    scripted: ScriptedBackend, moved_clock: MovedClock
) -> None:
    """By the time of the commit another owner may hold it."""
    with pytest.raises(LockLost, match="before the commit"):
        with distributed_lock("1234collectPayment") as lease, transaction.atomic():
            Counter.objects.create(value=1)
            moved_clock.outdate(lease)

            def expire() -> None:
                moved_clock.expire(lease)
                raise DOWN

            scripted.answer("renew", expire)
    assert not Counter.objects.exists()


def test_max_hold_is_not_exceeded_by_a_commit(moved_clock: MovedClock) -> None:
    """The renewal before it asks for the remaining time."""
    moved_clock.stop()
    with distributed_lock("1234collectPayment", backend="memory", max_hold=5) as lease:
        with transaction.atomic():
            moved_clock.outdate(lease)
            left = lease.remaining
        assert internals(lease).is_confirmed()
        assert lease.remaining == left


def test_rest_of_max_hold_is_never_shorter_than_the_stores_shortest_ttl(
    moved_clock: MovedClock,
) -> None:
    """Each store has a shortest ttl; the lease still ends at max_hold."""
    moved_clock.stop()
    with distributed_lock("1234collectPayment", backend="memory", max_hold=5) as lease:
        end = clocks.monotonic() + lease.remaining
        assert internals(lease).claim(end - 0.0001).ttl == 0.001
        assert internals(lease).claim(end + 1).ttl == 0.001


def test_unlimited_lease_is_asked_for(moved_clock: MovedClock, lost: dict[Lease, str]) -> None:
    """It doesn't expire, but operators can force-release it."""
    with (
        distributed_lock("1234collectPayment", backend="memory", ttl=None) as lease,
        transaction.atomic(),
    ):
        Counter.objects.create(value=1)
        moved_clock.outdate(lease)
    with (
        pytest.raises(LockLost),
        distributed_lock("1234collectPayment", backend="memory", ttl=None) as lease,
    ):
        with transaction.atomic():
            Counter.objects.create(value=1)
            moved_clock.outdate(lease)
            take_away(lease)
    assert Counter.objects.count() == 1
    assert list(lost) == [lease]
