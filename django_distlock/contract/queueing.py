"""Queueing: a waiter is woken when it is its turn, and gets the lock."""

import threading
from typing import NamedTuple

from django_distlock.backends.base import QueueingStore
from django_distlock.backends.operations import ListingStore
from django_distlock.leases.request import new_owner
from django_distlock.records import REFUSED, Grant, Place, Refusal

from .cases import GrantedLease, StoreTestCase


class QueuedWaiter(NamedTuple):
    """A waiter in the store's queue."""

    semaphore: str
    owner: str
    place: Place
    woken: threading.Event


class QueueingTests(StoreTestCase):
    """The methods of QueueingStore."""

    def queueing_store(self) -> QueueingStore:
        """Return the store; skip the test if it has no queue."""
        store = self.backend
        if not isinstance(store, QueueingStore):
            raise self.lacks("queue")
        return store

    def join(self, semaphore: str, holder: str = "contract") -> QueuedWaiter:
        """Join the queue as a new owner; skip the test where waiters have to poll."""
        owner, woken = new_owner(), threading.Event()
        store = self.queueing_store()
        place = store.join(semaphore, owner, holder, woken.set)
        if place is None:
            raise self.lacks("queue in these circumstances")
        return QueuedWaiter(semaphore, owner, place, woken)

    def acquire_in_turn(self, waiter: QueuedWaiter) -> Grant:
        """Wait to be woken, and acquire; a waiter may be woken for nothing."""
        grants: list[Grant | Refusal] = [REFUSED]

        def acquire() -> bool:
            waiter.woken.wait(waiter.place.patience)
            waiter.woken.clear()
            grants[0] = self.backend.acquire(waiter.semaphore, waiter.owner, 60, "contract")
            return bool(grants[0])

        self.wait_until(acquire)
        [grant] = grants
        assert grant
        return grant

    def leave(self, waiter: QueuedWaiter, *, granted: bool) -> None:
        """Leave the queue."""
        self.queueing_store().leave(waiter.place, granted)

    def assert_given_to(self, waiter: QueuedWaiter, former: GrantedLease) -> None:
        """Fail unless the waiter gets the lock, which its former owner has lost."""
        grant = self.acquire_in_turn(waiter)
        self.leave(waiter, granted=True)
        self.assertFalse(self.backend.release(former))
        self.assertTrue(self.backend.release(former._replace(owner=waiter.owner, grant=grant)))
        self.assert_free(former.semaphore)

    def test_waiters_get_a_released_lock_in_turn(self) -> None:
        held = self.grant(self.new_semaphore())
        waiters = [self.join(held.semaphore) for _ in range(3)]
        tokens = [held.token]
        self.assertTrue(self.backend.release(held))
        for waiter in waiters:
            grant = self.acquire_in_turn(waiter)
            tokens.append(grant.token)
            self.leave(waiter, granted=True)
            self.assertFalse(self.try_once(held.semaphore))
            self.assertTrue(self.backend.release(held._replace(owner=waiter.owner, grant=grant)))
        if self.backend.supports_fencing:
            self.assert_rising(tokens)
        self.assert_free(held.semaphore)

    def test_waiter_that_left_is_passed_over(self) -> None:
        """Before it was woken, and after."""
        held = self.grant(self.new_semaphore())
        first, second, third = [self.join(held.semaphore) for _ in range(3)]
        self.leave(first, granted=False)
        self.assertTrue(self.backend.release(held))
        if self.queueing_store().queues_all:  # else waiters may look for themselves
            self.assertTrue(second.woken.wait(30))
        self.leave(second, granted=False)
        grant = self.acquire_in_turn(third)
        self.leave(third, granted=True)
        self.assertTrue(self.backend.release(held._replace(owner=third.owner, grant=grant)))
        self.assert_free(held.semaphore)

    def test_renewal_of_the_former_holder_is_not_its_successors(self) -> None:
        store = self.backend
        if not isinstance(store, ListingStore) or not store.lists_renewals:
            raise self.lacks("renewals in its list")
        held = self.grant(self.new_semaphore())
        waiter = self.join(held.semaphore)
        self.assertTrue(store.renew([held])[held.owner].renewed)
        self.assertTrue(store.release(held))
        self.acquire_in_turn(waiter)
        lock = store.find(held.semaphore)
        assert lock is not None
        self.assertIsNone(lock.renewed_at)
        self.leave(waiter, granted=True)

    def test_waiter_gets_a_lock_whose_lease_expired(self) -> None:
        held = self.grant(self.new_semaphore(), ttl=self.at_least(0.05))
        waiter = self.join(held.semaphore)
        self.assert_given_to(waiter, held)

    def test_waiter_gets_a_lock_that_was_released_by_force(self) -> None:
        self.require(self.backend.supports_listing, "listing")
        held = self.grant(self.new_semaphore())
        waiter = self.join(held.semaphore)
        self.assertTrue(self.backend.force_release(held.semaphore, held.token or 0))
        self.assert_given_to(waiter, held)

    def assert_waiting(self, semaphore: str, *holders: str) -> None:
        """Wait until exactly these are listed as waiters, by their holders' texts.

        Skip the test if the store doesn't list waiters. One may be listed a moment after it joined.
        """
        store = self.backend
        assert isinstance(store, ListingStore)
        if store.waiters(semaphore) is None:
            raise self.lacks("list of waiters")

        def is_listed() -> bool:
            waiters, lock = store.waiters(semaphore), store.find(semaphore)
            assert waiters is not None and lock is not None
            for waiter in waiters:
                if waiter.since is not None:
                    assert lock.acquired_at is not None
                    self.assertLessEqual(lock.acquired_at, waiter.since)
                    self.assertLessEqual(waiter.since, lock.seen_at)
            listed = tuple(waiter.holder for waiter in waiters)
            return listed == holders and lock.waiting == len(holders)

        self.wait_until(is_listed)

    def test_waiters_are_listed_in_turn(self) -> None:
        """Until they leave."""
        self.require(self.backend.supports_listing, "listing")
        held = self.grant(self.new_semaphore())
        first, second, third = [self.join(held.semaphore, f"waiter {n}") for n in range(3)]
        try:
            self.assert_waiting(held.semaphore, "waiter 0", "waiter 1", "waiter 2")
            self.leave(second, granted=False)
            self.assert_waiting(held.semaphore, "waiter 0", "waiter 2")
        finally:
            for waiter in (first, second, third):
                self.leave(waiter, granted=False)
        self.assert_waiting(held.semaphore)
