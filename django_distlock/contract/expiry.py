"""Liveness: a lease ends after its ttl, not before, and with nobody's help."""

import time
from functools import partial

from django_distlock.clocks import monotonic
from django_distlock.leases.request import new_owner
from django_distlock.records import LOST, Released

from .cases import StoreTestCase


class ExpiryTests(StoreTestCase):
    """When a lease expires, and what its former owner can still do: nothing."""

    def test_one_of_many_threads_gets_a_semaphore_whose_ttl_has_passed(self) -> None:
        """Nobody has to clean up after a dead holder."""
        [expired] = self.expired(self.new_semaphore())
        grants = self.in_threads(8, partial(self.try_once, expired.semaphore))
        self.assertEqual(sum(map(bool, grants)), 1)

    def test_nobody_gets_a_semaphore_before_the_ttl_has_passed_for_its_holder(self) -> None:
        """Whenever between two steps of the store's clock the lease began.

        A grant and a renewal begin late in a millisecond: then a clock that counts milliseconds is
        most wrong. If the shortest ttl is long, there is time for one of each only.
        """
        ttl = self.at_least(0.008)
        enough = monotonic() + 1
        for _ in range(40):
            granted, renewed = self.new_semaphore(), self.new_semaphore()
            began = {granted: self.late_in_a_millisecond()}
            self.grant(granted, ttl)
            held = self.grant(renewed, ttl)
            sent = self.late_in_a_millisecond()
            if self.backend.renew([held])[held.owner].renewed:  # unless this machine is busy
                began[renewed] = sent
            for semaphore, moment in self.when_granted(*began).items():
                self.assertGreaterEqual(moment - began[semaphore], ttl)
            if monotonic() > enough:
                break

    def late_in_a_millisecond(self) -> float:
        """Wait for the last third of a millisecond, and return the monotonic time."""
        while time.time_ns() % 1_000_000 < 667_000:
            pass
        return monotonic()

    def when_granted(self, *semaphores: str) -> dict[str, float]:
        """Poll until each semaphore is granted to a new owner; return when each was."""
        owner, found = new_owner(), dict[str, float]()
        enough = monotonic() + 30
        while len(found) < len(semaphores):
            for semaphore in semaphores:
                if semaphore not in found and self.backend.acquire(semaphore, owner, 60, "next"):
                    found[semaphore] = monotonic()
            self.assertLess(monotonic(), enough, "waited for 30 seconds")
        return found

    def test_expired_owner_can_neither_release_nor_renew_and_its_successor_is_untouched(
        self,
    ) -> None:
        held = [self.grant(self.new_semaphore()) for _ in range(3)]
        expired, succeeded = self.expired(self.new_semaphore(), self.new_semaphore())
        successor = self.grant(succeeded.semaphore)
        for each in (expired, succeeded):
            self.assertIs(self.backend.release(each), Released.NOT_HELD)
            self.assertEqual(self.backend.renew([each]), {each.owner: LOST})
        renewals = self.backend.renew([held[0], expired, *held[1:], succeeded])
        lost = {each.owner: renewals[each.owner].lost for each in [*held, expired, succeeded]}
        self.assertEqual(len(renewals), len(lost))
        self.assertEqual({owner for owner in lost if lost[owner]}, {expired.owner, succeeded.owner})
        self.assert_held(successor)
        self.assert_free(expired.semaphore)
