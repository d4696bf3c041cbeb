"""Waiting on PostgreSQL: in the order of joining, woken by the release."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

from django_distlock import Lease, aacquire_lock, acquire_lock, distributed_lock
from django_distlock.backends.database import DatabaseBackend
from django_distlock.backends.database.orm import ORMStatements
from django_distlock.backends.database.places import QueuedPlace
from django_distlock.backends.database.postgresql import PostgreSQLStatements
from django_distlock.backends.database.statements import Statements
from django_distlock.concurrency.process_queue import recent_handovers
from django_distlock.leases.request import new_owner
from django_distlock.models import Lock, LockWaiter, WaitingProcess
from django_distlock.records import LeaseClaim, Released
from tests.support.concurrency import elsewhere, run
from tests.support.databases import committed, statements_sent
from tests.support.holders import acquire
from tests.support.postgresql_waiters import (
    ALIAS,
    FUTURE,
    PAST,
    SOON,
    Line,
    another_waits,
    granted,
    store,
    until_waiting,
    wait_by_hand,
    waiters,
)
from tests.support.processes import Workers

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = [
    committed,
    pytest.mark.needs("postgresql"),
    pytest.mark.usefixtures("fresh_listeners"),
]


@pytest.mark.once
@pytest.mark.usefixtures("long_offers")
def test_order_is_that_of_joining_across_processes_threads_and_tasks() -> None:
    """Each grant has a greater token than the one before."""

    def wait_in_task() -> int | None:
        async def wait() -> int | None:
            async with distributed_lock("1234collectPayment", timeout=SOON, backend=ALIAS) as lease:
                return lease.token

        return run(wait())

    def wait_in_thread() -> int | None:
        lease = acquire_lock("1234collectPayment", timeout=SOON, backend=ALIAS)
        assert lease is not None
        lease.release()
        connections.close_all()
        return lease.token

    held = acquire(ALIAS)
    tokens: list[Callable[[], int | None]] = []
    first, last = (
        Workers(1, "wait_in_queue", ALIAS, "1", DISTLOCK_TEST_LASTING_OFFERS="1") for _ in range(2)
    )
    with first, ThreadPoolExecutor(4) as threads:
        until_waiting(1)
        for number, wait in enumerate([wait_in_thread, wait_in_task] * 2, start=2):
            tokens.append(threads.submit(wait).result)
            until_waiting(number)
        with last:
            until_waiting(6)
            held.release()
            ours = [token() for token in tokens]
            order = [*first.results()[0], *ours, *last.results()[0]]
    assert len(order) == 6
    assert order == sorted(order)
    assert waiters() == 0


@pytest.mark.usefixtures("long_offers")
def test_release_wakes_one_waiter_alone(only_woken: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one; the others keep sleeping."""
    offers: list[int] = []
    offer = QueuedPlace.offer

    def count(place: QueuedPlace) -> None:
        offers.append(place.number)
        offer(place)

    monkeypatch.setattr(QueuedPlace, "offer", count)
    lease: Lease = acquire(ALIAS)
    with Line() as line:
        waiting = [line.join() for _ in range(5)]
        for number, each in enumerate(waiting, start=1):
            lease.release()
            lease = granted(each)
            assert len(offers) == number
            assert waiters() == 5 - number
        assert offers == sorted(offers)
        lease.release()


def test_uncontended_release_is_one_statement_that_notifies_nobody() -> None:
    """So waiting makes other releases no slower."""
    lease = acquire(ALIAS)
    [sent] = statements_sent(ALIAS, lease.release)
    assert "notify" not in sent


def test_newcomer_does_not_overtake_the_living() -> None:
    """Though the lock is free, as it is for a moment after its holder has died."""
    another_waits(FUTURE)
    assert acquire_lock("1234collectPayment", backend=ALIAS) is None
    acquire(ALIAS, "nobody waits for it").release()


def test_newcomer_does_not_wait_for_the_dead() -> None:
    """The lock isn't handed over to dead waiters; a try removes them."""
    another_waits(PAST)
    acquire(ALIAS).release()
    assert Lock.objects.using(ALIAS).get().owner == ""
    assert waiters() == 0
    assert not WaitingProcess.objects.using(ALIAS).exists()


def test_min_hold_is_waited_for(only_woken: None) -> None:
    """The release hands over nothing before that."""
    began = time.monotonic()
    lease = acquire(ALIAS, min_hold=0.3)
    with Line() as line:
        waiting = line.join()
        lease.release()
        assert granted(waiting).release()
    assert time.monotonic() - began >= 0.3


def test_waiter_that_gives_up_leaves_nothing() -> None:
    """Whether its timeout passes or its task is cancelled."""
    lease = acquire(ALIAS)
    assert (
        elsewhere(lambda: acquire_lock("1234collectPayment", timeout=0.05, backend=ALIAS)) is None
    )
    assert waiters() == 0

    async def wait_and_give_up() -> None:
        waiting = asyncio.create_task(
            aacquire_lock("1234collectPayment", timeout=30, backend=ALIAS)
        )
        await asyncio.to_thread(elsewhere, lambda: until_waiting(1))
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    run(wait_and_give_up())
    assert waiters() == 0
    lease.release()


@pytest.mark.usefixtures("long_offers")
def test_unused_offer_is_handed_over() -> None:
    """A waiter whose time is up when it is offered the lock passes it to the next."""
    lease = acquire(ALIAS)
    first, owner, woken = wait_by_hand()
    second, other, woken_too = wait_by_hand()
    lease.release()
    assert woken.wait(SOON)
    assert not woken_too.is_set()
    store().leave(first, False)
    assert Lock.objects.using(ALIAS).get().owner == other
    assert woken_too.wait(SOON)
    assert not store().acquire("1234collectPayment", owner, 60, "")
    assert store().acquire("1234collectPayment", other, 60, "")
    store().leave(second, True)
    assert waiters() == 0


def test_waiter_that_missed_its_offer_keeps_its_place() -> None:
    """It stays before those that joined later."""
    lease = acquire(ALIAS)
    first, owner, woken = wait_by_hand()
    lease.release()
    assert woken.wait(SOON)
    Lock.objects.using(ALIAS).update(owner="another", expires_at=None)
    second, _, _ = wait_by_hand()
    assert not store().acquire("1234collectPayment", owner, 60, "")
    [one, two] = LockWaiter.objects.using(ALIAS).order_by("id")
    assert (one.id, two.id) == (first.id, second.id)
    for place in (first, second):
        store().leave(place, False)


@pytest.mark.usefixtures("long_offers")
def test_only_the_first_waiter_is_granted_by_its_own_try(monkeypatch: pytest.MonkeyPatch) -> None:
    """No release offered it the lock. The waiter then leaves, and has no row."""
    monkeypatch.setattr(PostgreSQLStatements, "offer_free", lambda statements, semaphore: None)
    lease = acquire(ALIAS)
    first, owner, _ = wait_by_hand()
    second, other, _ = wait_by_hand()
    Lock.objects.using(ALIAS).update(owner="")
    assert not store().acquire("1234collectPayment", other, 60, "")
    assert store().acquire("1234collectPayment", owner, 60, "")
    store().leave(first, True)
    assert waiters() == 1
    store().leave(second, False)
    lease.release()


def test_waiter_that_joins_a_free_lock_tries_at_once(only_woken: None) -> None:
    """It was released between the try and the joining."""
    place, _, woken = wait_by_hand("free")
    assert woken.is_set()
    store().leave(place, False)
    recent_handovers.add(ALIAS, "1234collectPayment")
    lease = acquire(ALIAS, timeout=30)
    assert waiters() == 0
    lease.release()


@pytest.mark.usefixtures("long_offers")
def test_release_says_whether_it_handed_the_lock_over(only_woken: None) -> None:
    """A lock that only a dead process waits for is just freed."""
    first = LeaseClaim("1234collectPayment", new_owner(), 60)
    assert store().acquire(first.semaphore, first.owner, 60, "")
    place, owner, woken = wait_by_hand()
    assert store().release(first) is Released.HANDED_OVER
    assert woken.wait(SOON)
    second = LeaseClaim(first.semaphore, owner, 60)
    assert store().acquire(second.semaphore, second.owner, 60, "")
    store().leave(place, True)
    another_waits(PAST)
    assert store().release(second) is Released.FREED
    assert store().release(second) is Released.NOT_HELD


class OtherStatements(DatabaseBackend):
    """A site's own statements on PostgreSQL, without a queue."""

    @classmethod
    def statements(cls, connection: BaseDatabaseWrapper) -> Statements:
        return ORMStatements(connection, Lock._meta.db_table)


def test_other_statements_know_no_waiters() -> None:
    """Waiters poll."""
    store = OtherStatements(ALIAS, using=ALIAS)
    assert store.queues_all
    assert store.join("1234collectPayment", new_owner(), "", lambda: None) is None
    assert not store.queues_all


def test_other_statements_force_a_release() -> None:
    """It hands the lock to no waiter."""
    store = OtherStatements(ALIAS, using=ALIAS)
    grant = store.acquire("1234collectPayment", new_owner(), 60, "")
    assert grant
    assert store.force_release("1234collectPayment", grant.token or 0)
