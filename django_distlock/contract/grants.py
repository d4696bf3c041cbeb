"""Exclusion: two unexpired leases on one semaphore never coexist."""

from datetime import timedelta
from functools import partial

from django_distlock.leases.request import new_owner
from django_distlock.records import Renewal, RenewalOutcome

from .cases import StoreTestCase


class GrantTests(StoreTestCase):
    """Which owner is granted a semaphore, and what the grant contains."""

    def test_held_semaphore_is_granted_to_nobody_else(self) -> None:
        held = self.grant(self.new_semaphore())
        for _ in range(3):
            self.assertFalse(self.backend.acquire(held.semaphore, new_owner(), 60, "other"))
        self.assert_held(held)

    def test_one_of_many_threads_gets_a_semaphore(self) -> None:
        for semaphore in (self.new_semaphore() for _ in range(5)):
            grants = self.in_threads(8, partial(self.try_once, semaphore))
            self.assertEqual(sum(map(bool, grants)), 1)

    def test_same_owner_gets_its_own_grant_with_the_stored_token(self) -> None:
        held = self.grant(self.new_semaphore())
        again = self.grant(held.semaphore, owner=held.owner)
        self.assertEqual(again.grant.token, held.grant.token)
        self.assertTrue(self.backend.release(held))

    def test_different_semaphores_are_different_locks(self) -> None:
        prefix = self.new_semaphore()
        endings = ["", "a", "a ", "a  ", " a", "A", "ä", "a\u0308", "%", "%s", "%%", "'", '"', "\\"]
        endings += ["{a}", "}a", "\u00a0", "ß", "ss", "\U0001f512", "_", "*", "?", "[a]"]
        for ending in endings:
            self.grant(prefix + ending)
        for ending in endings:
            self.assertFalse(self.backend.acquire(prefix + ending, new_owner(), 60, "other"))

    def test_longest_semaphores_are_not_cut(self) -> None:
        prefix = self.new_semaphore()
        longest = prefix + "\U0001f512" * (254 - len(prefix))
        self.grant(longest + "a")
        self.grant(longest + "b")
        self.assertFalse(self.backend.acquire(longest + "a", new_owner(), 60, "other"))

    def test_grant_has_the_stores_times(self) -> None:
        for ttl in (0.25, 1, 86400.5):
            grant = self.grant(self.new_semaphore(), ttl).grant
            assert grant.expires_at is not None
            self.assertEqual(grant.acquired_at.utcoffset(), timedelta())
            lasts = (grant.expires_at - grant.acquired_at).total_seconds()
            self.assertAlmostEqual(lasts, ttl, delta=0.1)

    def test_ttl_that_the_store_cannot_keep_is_refused(self) -> None:
        shortest, longest = self.backend.shortest_ttl, self.backend.longest_ttl
        for ttl in (shortest, longest):
            self.assertEqual(self.backend.validate_ttl(ttl), ttl)
        for ttl in (0, -1, shortest / 2, longest + 1, float("inf"), float("nan")):
            with self.assertRaises(ValueError):
                self.backend.validate_ttl(ttl)

    def test_unlimited_lease_lasts_until_it_is_released(self) -> None:
        self.require(self.backend.supports_unlimited_ttl, "unlimited ttl")
        held = self.grant(self.new_semaphore(), ttl=None)
        self.assertIsNone(held.grant.expires_at)
        self.assert_held(held)
        self.assertEqual(self.backend.renew([held]), {held.owner: Renewal(RenewalOutcome.RENEWED)})
        self.assertTrue(self.backend.release(held))
        self.assert_free(held.semaphore)
