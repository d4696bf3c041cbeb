"""max_hold: how long a lease may last at most; and valid values of both holds."""

from __future__ import annotations

import math
import threading
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest

from django_distlock import (
    Lease,
    LockBackendUnavailable,
    LockLost,
    acquire_lock,
    clocks,
    distributed_lock,
    lock_backends,
    release_lock,
)
from django_distlock.concurrency.background import background
from django_distlock.concurrency.renewal import Renewals
from tests.support.concurrency import elsewhere, until
from tests.support.databases import committed, on_each_database
from tests.support.holders import acquire, brief, finish_background_work, free_for_others, kept
from tests.support.leases import internals

if TYPE_CHECKING:
    from tests.support.moved_clock import MovedClock
    from tests.support.scripted_store import ScriptedBackend

pytestmark = committed


# At most


@on_each_database
def test_lease_is_lost_at_max_hold(alias: str) -> None:
    """However often it is renewed until then; others get the lock."""
    begun = clocks.monotonic()
    lease = brief(alias, ttl=0.2, max_hold=0.4, renew=False)
    last = clocks.monotonic() + 0.4
    while lease.held:
        with suppress(LockLost, LockBackendUnavailable):
            lease.renew()
        left = last - clocks.monotonic()
        assert lease.remaining <= max(left, 0)
    assert clocks.monotonic() - begun >= 0.2
    with pytest.raises(LockLost):
        lease.check()
    successor = elsewhere(lambda: acquire(alias, timeout=60))
    assert lease.release() is False
    assert elsewhere(successor.release)


@on_each_database
def test_last_renewal_ends_at_max_hold(
    alias: str, moved_clock: MovedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It asks the store for the remaining time, and not for a whole ttl."""
    moved_clock.stop()
    lease = acquire(alias, ttl=600, max_hold=900, renew=False)
    for passed, left in ((500, 400), (399.9, 0.1)):
        moved_clock.advance(passed)
        lease.renew()
        assert lease.remaining == pytest.approx(left)
    monkeypatch.undo()  # the store's clock counts from here
    successor = elsewhere(lambda: acquire(alias, timeout=60))
    assert successor.release()


@on_each_database
def test_ttl_is_cut_to_max_hold(alias: str) -> None:
    """The default and an unlimited one, too."""
    for ttl in ({}, {"ttl": 3600}, {"ttl": None}):
        lease = acquire(alias, max_hold=30, **ttl)
        assert lease.ttl == 30
        assert lease.remaining <= 30
        assert lease.expires_at
        lasts = (lease.expires_at - lease.acquired_at).total_seconds()
        assert lasts == pytest.approx(30, abs=0.01)  # a step of the clock more
        lease.release()


@on_each_database
def test_shorter_ttl_does_not_change(alias: str) -> None:
    """A release before that is an ordinary one."""
    lease = acquire(alias, ttl=10, max_hold=30)
    assert lease.ttl == 10
    assert lease.remaining <= 10
    lease.renew()
    assert lease.release() is True
    assert free_for_others(alias)


def test_renewals_approach_max_hold_and_end_there(
    scripted: ScriptedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last asks for the rest only; after it, only the end is due."""
    now = [1000.0]
    monkeypatch.setattr(clocks, "monotonic", lambda: now[0])
    lease = acquire("default", ttl=30, max_hold=45, renew=False)
    ends = []
    while lease.due < 1045:
        now[0] = lease.due
        assert lease.is_nearly_due(now[0])
        ends.append(lease.claim(now[0]).ttl)
        lease.renew()
    assert ends == [30, pytest.approx(25)]
    assert lease.due == now[0] + lease.remaining == 1045
    assert not lease.is_nearly_due(1044)
    now[0] = 1045
    assert not lease.held
    with pytest.raises(LockLost):
        lease.renew()


@pytest.mark.parametrize("ttl", [60, 0.3])
def test_lease_that_cannot_be_renewed_is_not_checked_until_its_end(
    ttl: float, lost: dict[Lease, str]
) -> None:
    """The thread sleeps until then."""
    looks = []
    renew_due = Renewals.renew_due

    def look(renewals: Renewals) -> None:
        looks.append(renewals)
        renew_due(renewals)

    with mock.patch.object(Renewals, "renew_due", look):
        begun = clocks.monotonic()
        lease = brief("default", ttl=ttl, max_hold=0.3)
        assert begun + 0.3 <= lease.due <= clocks.monotonic() + 0.3
        until(lambda: lease in lost)
        finish_background_work()
    assert 1 <= looks.count(background("default").renewals) < 10  # other stores have theirs


@on_each_database
def test_lease_that_is_over_here_is_not_prolonged_in_the_store(
    alias: str, moved_clock: MovedClock
) -> None:
    """It would keep others out, though nobody holds it."""
    lease = acquire(alias, ttl=60, renew=False)
    renewals = Renewals(alias)
    renewals.add(lease)
    moved_clock.expire(lease)
    with mock.patch.object(type(lock_backends[alias]), "renew") as renew:
        renewals.renew_due()
    assert not renew.called
    assert lease.lost


@on_each_database
def test_min_and_max_hold_may_be_the_same(alias: str) -> None:
    """Then a lock is held for exactly that long, if it is released in time."""
    lease = acquire(alias, min_hold=60, max_hold=60)
    assert lease.release() is True
    assert kept(alias)


@on_each_database
def test_lease_can_be_renewed_as_soon_as_it_is_acquired(alias: str) -> None:
    """Even if a store's clock stands still for a millisecond."""
    for _ in range(20):
        lease = acquire(alias)
        lease.renew()
        assert lease.release()


@on_each_database
@pytest.mark.parametrize("how", ["block", "name"])
def test_lease_whose_release_failed_ends_by_itself(
    alias: str, how: str, moved_clock: MovedClock
) -> None:
    """It is no longer renewed; release_lock() can try again to release it."""
    down = LockBackendUnavailable("down")
    refused = threading.Event()

    def refuse(*args: Any) -> bool:
        refused.set()
        raise down

    with mock.patch.object(type(lock_backends[alias]), "release", refuse):
        if how == "block":
            with distributed_lock("1234collectPayment", backend=alias, ttl=60) as lease:
                pass
        else:
            lease = acquire(alias)
            with pytest.raises(LockBackendUnavailable):
                release_lock("1234collectPayment", backend=alias)
    assert refused.is_set()
    assert internals(lease) not in background(alias).renewals
    if how == "name":
        assert release_lock("1234collectPayment", backend=alias)
    else:
        assert lock_backends[alias].release(internals(lease))
        moved_clock.expire(lease)
        assert not lease.held
    assert free_for_others(alias)


# Arguments


@pytest.mark.parametrize("name", ["min_hold", "max_hold"])
@pytest.mark.parametrize("value", ["1", True, False, timedelta(seconds=1), [], object()])
def test_hold_is_a_number_of_seconds(scripted: ScriptedBackend, name: str, value: object) -> None:
    """Nothing else, and no boolean."""
    arguments: dict[str, Any] = {name: value}
    with pytest.raises(TypeError, match=rf"{name} is a number of seconds or None"):
        acquire_lock("1234collectPayment", **arguments)
    assert scripted.calls == []


@pytest.mark.parametrize("name", ["min_hold", "max_hold"])
@pytest.mark.parametrize("value", [-1, -0.001, math.nan, math.inf, -math.inf, 10**400, 315360001])
def test_hold_has_bounds(scripted: ScriptedBackend, name: str, value: float) -> None:
    """Those of a ttl."""
    arguments: dict[str, Any] = {name: value}
    with pytest.raises(ValueError, match=rf"{name} is .*from 0(.001)? to 315360000 seconds"):
        acquire_lock("1234collectPayment", **arguments)
    assert scripted.calls == []


def test_min_hold_cannot_be_more_than_max_hold(scripted: ScriptedBackend) -> None:
    """There would be no time to release it in."""
    with pytest.raises(ValueError, match="can't be more than max_hold"):
        acquire_lock("1234collectPayment", min_hold=2, max_hold=1.5)
    assert scripted.calls == []


@pytest.mark.parametrize("value", [0, 0.0001])
def test_max_hold_is_at_least_the_shortest_ttl(scripted: ScriptedBackend, value: float) -> None:
    """Nothing could be done in less."""
    with pytest.raises(ValueError, match=r"must be from 0\.001"):
        acquire_lock("1234collectPayment", max_hold=value)
    assert scripted.calls == []
