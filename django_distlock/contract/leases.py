"""The life of a lease: renewal in the background, loss, ownership by name, and clean-up."""

import asyncio
from contextlib import suppress
from contextvars import copy_context
from typing import Any

from django.core.signals import request_finished, request_started
from django.db import connections

from django_distlock.concurrency.background import background
from django_distlock.exceptions import LockBackendUnavailable, LockLost, LockNotHeld
from django_distlock.lease import Lease
from django_distlock.locks.api import acquire_lock, release_lock
from django_distlock.signals import lock_lost

from .cases import StoreTestCase


class LeaseTests(StoreTestCase):
    """The life of a lease that acquire_lock() returned."""

    def test_lease_is_renewed_in_the_background(self) -> None:
        semaphore = self.new_semaphore()
        lease = acquire_lock(semaphore, backend=self.alias, ttl=60)
        assert lease is not None
        end = lease.expires_at
        self.renew_in_background()
        self.wait_until(lambda: lease.expires_at != end)
        assert end is not None and lease.expires_at is not None
        self.assertGreater(lease.expires_at, end)
        self.assertTrue(lease.held)
        self.assertFalse(self.try_once(semaphore))
        self.assertTrue(lease.release())

    def test_lease_that_is_not_renewed_ends_with_its_ttl(self) -> None:
        lease = self.acquired_in_time(self.at_least(0.1))
        self.wait_until(lambda: not lease.held)
        with self.assertRaises(LockLost):
            lease.check()
        with self.assertRaises(LockLost):
            lease.renew()
        self.assertFalse(lease.release())
        self.wait_until(lambda: bool(self.try_once(lease.semaphore)))

    def acquired_in_time(self, ttl: float) -> Lease:
        """Return a lease that isn't renewed; a busy machine may need several tries."""
        leases: list[Lease | None] = []

        def acquire() -> bool:
            with suppress(LockBackendUnavailable):  # it took longer than the ttl
                semaphore = self.new_semaphore()
                leases.append(acquire_lock(semaphore, backend=self.alias, ttl=ttl, renew=False))
            return bool(leases)

        self.wait_until(acquire)
        [lease] = leases
        assert lease is not None
        return lease

    def test_holder_is_told_that_its_lease_was_taken_away(self) -> None:
        self.require(self.backend.supports_listing, "listing")
        received: list[Any] = []

        def receive(*, lease: Lease, reason: str, **kwargs: Any) -> None:
            received.append((lease, reason))

        semaphore = self.new_semaphore()
        lease = acquire_lock(semaphore, backend=self.alias, ttl=60)
        assert lease is not None and lease.token is not None
        lock_lost.connect(receive)
        try:
            self.assertTrue(self.backend.force_release(semaphore, lease.token))
            self.renew_in_background()
            self.wait_until(lambda: bool(received))
            successor = self.grant(semaphore)
            self.assertFalse(lease.release())
        finally:
            lock_lost.disconnect(receive)
        self.assertEqual([each for each, _ in received], [lease])
        self.assert_held(successor)

    def renew_in_background(self) -> None:
        """Make the background thread renew this process's leases now."""
        renewing = background(self.alias)
        renewing.submit(renewing.renewals.hasten)

    def test_name_is_its_threads_and_the_lease_is_everybodys(self) -> None:
        semaphore = self.new_semaphore()
        lease = acquire_lock(semaphore, backend=self.alias)
        assert lease is not None
        copied = copy_context()
        for elsewhere in (
            lambda: release_lock(semaphore, backend=self.alias),
            lambda: copied.run(release_lock, semaphore, backend=self.alias),
        ):
            with self.assertRaises(LockNotHeld):
                self.in_threads(1, elsewhere)
        self.assertTrue(lease.held)
        self.assertEqual(self.in_threads(1, lease.release), [True])
        with self.assertRaises(LockNotHeld):
            release_lock(semaphore, backend=self.alias)
        self.assert_free(semaphore)

    def test_name_is_not_a_child_tasks(self) -> None:
        semaphore = self.new_semaphore()

        async def release_in_task() -> bool:
            def release() -> bool:
                try:
                    return release_lock(semaphore, backend=self.alias)
                finally:
                    connections.close_all()

            return await asyncio.to_thread(release)

        lease = acquire_lock(semaphore, backend=self.alias)
        assert lease is not None
        with self.assertRaises(LockNotHeld):
            asyncio.run(release_in_task())
        self.assertTrue(release_lock(semaphore, backend=self.alias))

    def test_request_leaves_nothing_behind(self) -> None:
        before, within = self.new_semaphore(), self.new_semaphore()
        earlier = acquire_lock(before, backend=self.alias)
        request_started.send(sender=None)
        acquire_lock(within, backend=self.alias)
        with self.assertWarns(ResourceWarning):
            request_finished.send(sender=None)
        self.assert_free(within)
        assert earlier is not None
        self.assertTrue(earlier.held)
        self.assertTrue(earlier.release())
