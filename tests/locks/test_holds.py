"""How long a lock is held: at least `min_hold`, at most `max_hold`."""

from __future__ import annotations

import math
import threading
from contextlib import suppress
from datetime import timedelta
from io import StringIO
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import transaction

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
from django_distlock.models import KEPT, Lock
from django_distlock.records import LOST, LockState
from tests.support.concurrency import elsewhere, until
from tests.support.databases import committed, on_each_database, on_each_server
from tests.support.holders import acquire, brief, free_for_others, work_off

if TYPE_CHECKING:
    from django.test import Client

    from tests.support.moved_clock import MovedClock
    from tests.support.scripted_store import ScriptedBackend

pytestmark = committed

LONG = 60.0
"""Seconds that no test waits for."""


def states(alias: str) -> list[LockState]:
    """Return what the store lists."""
    return [lock.state for lock in lock_backends[alias].held()]


def kept(alias: str) -> bool:
    """Tell whether the lock is nobody's, but nobody gets it."""
    return Lock.objects.using(alias).filter(
        semaphore="1234collectPayment", owner=KEPT
    ).exists() and (states(alias) == [LockState.HELD])


# At least


@on_each_database
def test_lock_is_kept_until_min_hold_has_passed_since_the_grant(alias: str) -> None:
    """Whoever waits gets it then, with a greater token."""
    begun = clocks.monotonic()
    lease = acquire(alias, min_hold=0.3)
    assert lease.release() is True
    assert not lease.held
    assert lease.released
    successor = elsewhere(lambda: acquire(alias, timeout=LONG))
    assert clocks.monotonic() - begun >= 0.3
    assert successor.token
    assert lease.token
    assert successor.token > lease.token
    assert successor.release()


@on_each_database
def test_kept_lock_is_contended_for_all(alias: str) -> None:
    """For its last holder, too, who may wait for it as anybody, and can't reenter it."""
    with distributed_lock("1234collectPayment", backend=alias, min_hold=LONG) as lease:
        assert not free_for_others(alias)
    assert not free_for_others(alias)
    for arguments in ({}, {"timeout": 0.01}, {"reentrant": True}):
        assert acquire_lock("1234collectPayment", backend=alias, **arguments) is None
    assert lease.release() is False
    assert kept(alias)


@on_each_database
def test_min_hold_that_has_passed_is_an_ordinary_release(
    alias: str, moved_clock: MovedClock
) -> None:
    """As if there were none."""
    lease = acquire(alias, min_hold=LONG)
    moved_clock.advance(LONG)
    lease.release()
    assert states(alias) == []
    assert Lock.objects.using(alias).get(semaphore="1234collectPayment").owner == ""
    assert free_for_others(alias)


@on_each_database
def test_min_hold_of_nothing_is_none(alias: str) -> None:
    """0 is a number, too."""
    acquire(alias, min_hold=0).release()
    assert free_for_others(alias)


@on_each_database
@pytest.mark.parametrize("how", ["block", "call"])
def test_body_that_raises_keeps_nothing(alias: str, how: str) -> None:
    """It may be done again at once."""
    lock = distributed_lock("1234collectPayment", backend=alias, min_hold=LONG)

    @lock
    def fail() -> None:
        raise ZeroDivisionError

    with suppress(ZeroDivisionError):
        if how == "call":
            fail()
        with lock:
            raise ZeroDivisionError
    assert free_for_others(alias)


@on_each_database
def test_error_that_an_outer_reentrant_block_overcomes_keeps(alias: str) -> None:
    """What the outermost one comes to counts."""
    lock = distributed_lock("1234collectPayment", backend=alias, reentrant=True, min_hold=LONG)
    with lock:
        with suppress(ZeroDivisionError), lock:
            raise ZeroDivisionError
    assert kept(alias)


@on_each_database
@pytest.mark.parametrize("acquired", ["before", "inside"])
@pytest.mark.parametrize("failing", [False, True])
def test_transaction_keeps_if_it_is_committed(alias: str, acquired: str, failing: bool) -> None:
    """What was rolled back may be done again at once."""
    lease = acquire(alias, min_hold=LONG) if acquired == "before" else None
    with suppress(ZeroDivisionError), transaction.atomic(using=alias):
        lease = lease or acquire(alias, min_hold=LONG)
        assert lease.release() is True
        if failing:
            raise ZeroDivisionError
    if failing:
        assert free_for_others(alias)
    else:
        assert kept(alias)
        assert not free_for_others(alias)


@on_each_database
def test_commit_keeps_what_an_inner_rollback_released(alias: str) -> None:
    """On SQLite that undid the first release."""
    with transaction.atomic(using=alias):
        lease = acquire(alias, min_hold=LONG)
        with suppress(ZeroDivisionError), transaction.atomic(using=alias):
            lease.release()
            raise ZeroDivisionError
    assert kept(alias)


@on_each_server
def test_failed_block_in_a_transaction_that_is_committed_keeps_nothing(alias: str) -> None:
    """The block's error counts."""
    with transaction.atomic(using=alias):
        with suppress(ZeroDivisionError):
            with distributed_lock("1234collectPayment", backend=alias, min_hold=LONG):
                raise ZeroDivisionError
    assert free_for_others(alias)


@on_each_database
def test_kept_lock_is_held_for_people_and_released_afterwards(alias: str) -> None:
    """Never stale: nobody died."""
    acquire(alias, min_hold=LONG, label="who").release()
    locks = Lock.objects.using(alias)
    [listed] = lock_backends[alias].held()
    assert listed.state == LockState.HELD
    assert listed.holder.startswith("who (")
    assert [*locks.held()] == [*locks.unreleased()] == [*locks.all()]
    assert not locks.stale().exists()
    assert not locks.released().exists()
    acquire(alias, "kept for a moment", min_hold=0.05).release()
    moment = locks.filter(semaphore="kept for a moment")
    until(lambda: not moment.held().exists())
    assert states(alias) == [LockState.HELD]
    assert [*locks.released()] == [*moment]
    assert [lock.state for lock in moment.with_state()] == [LockState.RELEASED]
    assert not locks.stale().exists()


@on_each_database
def test_command_leaves_kept_locks_alone(alias: str) -> None:
    """Until they are released ones, which it may delete."""

    def run() -> str:
        output = StringIO()
        arguments = [f"--backend={alias}", "--purge-released=0s"]
        call_command("clear_stale_locks", *arguments, stdout=output)
        return output.getvalue()

    acquire(alias, min_hold=LONG).release()
    assert "0 stale locks released" in run()
    assert kept(alias)
    acquire(alias, "kept for a moment", min_hold=0.05).release()
    until(lambda: Lock.objects.using(alias).held().count() == 1)
    assert "0 stale locks released" in run()
    assert [lock.semaphore for lock in Lock.objects.using(alias)] == ["1234collectPayment"]
    purged = lock_backends[alias].purge_released(timedelta(0))
    assert list(purged) == []


@pytest.mark.django_db(databases=["default"])
def test_admin_lists_a_kept_lock_as_held(client: Client) -> None:
    """And none as stale."""
    acquire("default", min_hold=LONG, label="kept for a while").release()
    client.force_login(User.objects.create_superuser("admin"))
    held = client.get("/admin/django_distlock/lock/").content.decode()
    assert "kept for a while" in held
    stale = client.get("/admin/django_distlock/lock/?state=stale").content.decode()
    assert "kept for a while" not in stale


@on_each_database
def test_kept_lock_is_not_renewed(alias: str) -> None:
    """It is no lease any more."""
    lease = acquire(alias, min_hold=LONG, ttl=LONG)
    lease.release()
    end = Lock.objects.using(alias).get(semaphore="1234collectPayment").expires_at
    lease.due = 0
    assert lease not in background(alias).renewals
    background(alias).renewals.renew_due()
    with pytest.raises(LockLost, match="was released"):
        lease.renew()
    assert lock_backends[alias].renew([lease]) == {lease.owner: LOST}
    assert Lock.objects.using(alias).get(semaphore="1234collectPayment").expires_at == end


@on_each_database
def test_kept_lock_can_be_force_released(alias: str) -> None:
    """By its last holder's token."""
    lease = acquire(alias, min_hold=LONG)
    lease.release()
    assert lock_backends[alias].force_release("1234collectPayment", lease.token or 0)
    assert states(alias) == []
    assert free_for_others(alias)


@on_each_database
def test_release_of_a_lost_lease_keeps_nothing(alias: str) -> None:
    """Its successor is untouched."""
    lease = acquire(alias, min_hold=LONG, renew=False)
    assert lock_backends[alias].force_release("1234collectPayment", lease.token or 0)
    successor = elsewhere(lambda: acquire(alias))
    assert lease.release() is False
    assert not kept(alias)
    assert elsewhere(successor.release)
    assert free_for_others(alias)


# At most


@on_each_database
def test_lease_is_lost_at_max_hold(alias: str) -> None:
    """However it is renewed until then; others get the lock."""
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
    successor = elsewhere(lambda: acquire(alias, timeout=LONG))
    assert lease.release() is False
    assert elsewhere(successor.release)


@on_each_database
def test_last_renewal_lets_the_lock_be_free_at_max_hold(
    alias: str, moved_clock: MovedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It asks the store for what is left, and not for a whole ttl."""
    moved_clock.stop()
    lease = acquire(alias, ttl=600, max_hold=900, renew=False)
    for passed, left in ((500, 400), (399.9, 0.1)):
        moved_clock.advance(passed)
        lease.renew()
        assert lease.remaining == pytest.approx(left)
    monkeypatch.undo()  # the store's clock counts from here
    successor = elsewhere(lambda: acquire(alias, timeout=LONG))
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
def test_shorter_ttl_is_left_as_it_is(alias: str) -> None:
    """And a release before is an ordinary one."""
    lease = acquire(alias, ttl=10, max_hold=30)
    assert lease.ttl == 10
    assert lease.remaining <= 10
    lease.renew()
    assert lease.release() is True
    assert free_for_others(alias)


def test_renewals_approach_max_hold_and_end_there(
    scripted: ScriptedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last claims the rest only, after which nothing is due but the end."""
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


@pytest.mark.parametrize("ttl", [LONG, 0.3])
def test_lease_that_can_not_be_renewed_is_left_alone_until_its_end(
    ttl: float, lost: dict[Lease, str]
) -> None:
    """The thread sleeps meanwhile."""
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
        work_off()
    assert 1 <= looks.count(background("default").renewals) < 10  # other stores have theirs


@on_each_database
def test_lease_that_is_over_here_is_not_prolonged_in_the_store(
    alias: str, moved_clock: MovedClock
) -> None:
    """It would keep others out, though nobody has it."""
    lease = acquire(alias, ttl=LONG, renew=False)
    renewals = Renewals(alias)
    renewals.add(lease)
    moved_clock.expire(lease)
    with mock.patch.object(type(lock_backends[alias]), "renew") as renew:
        renewals.renew_due()
    assert not renew.called
    assert lease.lost


@on_each_database
def test_min_and_max_hold_may_be_the_same(alias: str) -> None:
    """A lock for exactly that long, if it is released in time."""
    lease = acquire(alias, min_hold=LONG, max_hold=LONG)
    assert lease.release() is True
    assert kept(alias)


@on_each_database
def test_lease_can_be_renewed_as_soon_as_it_is_acquired(alias: str) -> None:
    """Though a store's clock may stand still for a millisecond."""
    for _ in range(20):
        lease = acquire(alias)
        lease.renew()
        assert lease.release()


@on_each_database
@pytest.mark.parametrize("how", ["block", "name"])
def test_lease_whose_release_failed_ends_by_itself(
    alias: str, how: str, moved_clock: MovedClock
) -> None:
    """It is renewed no more; after a call of release_lock() it can be released again."""
    down = LockBackendUnavailable("down")
    refused = threading.Event()

    def refuse(*args: Any) -> bool:
        refused.set()
        raise down

    with mock.patch.object(type(lock_backends[alias]), "release", refuse):
        if how == "block":
            with distributed_lock("1234collectPayment", backend=alias, ttl=LONG) as lease:
                pass
        else:
            lease = acquire(alias)
            with pytest.raises(LockBackendUnavailable):
                release_lock("1234collectPayment", backend=alias)
    assert refused.is_set()
    assert lease not in background(alias).renewals
    if how == "name":
        assert release_lock("1234collectPayment", backend=alias)
    else:
        assert lock_backends[alias].release(lease)
        moved_clock.expire(lease)
        assert not lease.held
    assert free_for_others(alias)


# Arguments


@pytest.mark.parametrize("name", ["min_hold", "max_hold"])
@pytest.mark.parametrize("value", ["1", True, False, timedelta(seconds=1), [], object()])
def test_hold_is_a_number_of_seconds(scripted: ScriptedBackend, name: str, value: object) -> None:
    """Nothing else, and no truth value by mistake."""
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


def test_min_hold_can_not_be_more_than_max_hold(scripted: ScriptedBackend) -> None:
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
