"""Listing: operators see held and stale locks, and release them."""

from datetime import timedelta

from django_distlock.backends.operations import ListingStore
from django_distlock.exceptions import LockNotSupported
from django_distlock.records import LockQuery, LockState

from .cases import StoreTestCase


class ListingTests(StoreTestCase):
    """The methods of ListingStore."""

    def test_store_that_cannot_list_says_so(self) -> None:
        """It has nothing to clean up either."""
        is_listing = isinstance(self.backend, ListingStore)
        self.assertEqual(self.backend.supports_listing, is_listing)
        if not is_listing:
            with self.assertRaises(LockNotSupported):
                self.backend.held()
            with self.assertRaises(LockNotSupported):
                self.backend.find(self.new_semaphore())
            with self.assertRaises(LockNotSupported):
                self.backend.page(LockQuery())
            self.assertIsNone(self.backend.waiters(self.new_semaphore()))
            with self.assertRaises(LockNotSupported):
                self.backend.force_release(self.new_semaphore(), 0)
            self.assertEqual(list(self.backend.clear_stale()), [])
            self.assertEqual(list(self.backend.purge_released(timedelta(0))), [])

    def test_held_lists_held_and_stale_locks_in_order(self) -> None:
        self.require(self.backend.supports_listing, "listing")
        prefix = self.new_semaphore()
        [stale] = self.expired(f"{prefix}:a")
        # Nobody holds it any more: clear_stale() is for it.
        self.assertFalse(self.backend.force_release(stale.semaphore, stale.token or 0))
        held = self.grant(f"{prefix}:b")
        self.backend.release(self.grant(f"{prefix}:c"))
        unlike = self.grant(f"x{prefix}:b")
        found = list(self.backend.held(f"{prefix}:"))
        expected = [
            (stale.semaphore, LockState.STALE, stale.grant.token, "contract"),
            (held.semaphore, LockState.HELD, held.grant.token, "contract"),
        ]
        self.assertEqual(
            [(lock.semaphore, lock.state, lock.token, lock.holder) for lock in found],
            expected if self.keeps_expired else expected[1:],
        )
        self.assert_close(found[-1].expires_at, held.grant.expires_at)
        self.assertEqual(len(list(self.backend.held(f"{prefix}:", limit=1))), 1)
        self.assertIn(unlike.semaphore, {lock.semaphore for lock in self.backend.held()})

    def test_prefix_is_taken_literally(self) -> None:
        self.require(self.backend.supports_listing, "listing")
        prefix = self.new_semaphore()
        for ending in ("%b", "ab", "_b", "Ab", "*b", "[b", "\\b"):
            self.grant(prefix + ending)
        for ending in ("%", "a", "_", "A", "*", "[", "\\"):
            found = [lock.semaphore for lock in self.backend.held(prefix + ending)]
            self.assertEqual(found, [f"{prefix}{ending}b"])

    def test_force_release_takes_away_only_the_grant_that_was_seen(self) -> None:
        self.require(self.backend.supports_listing, "listing")
        earlier = self.grant(self.new_semaphore())
        self.backend.release(earlier)
        held = self.grant(earlier.semaphore)
        assert earlier.grant.token is not None and held.grant.token is not None
        self.assertFalse(self.backend.force_release(held.semaphore, earlier.grant.token))
        self.assert_held(held)
        self.assertTrue(self.backend.force_release(held.semaphore, held.grant.token))
        self.assertFalse(self.backend.release(held))
        self.assert_free(held.semaphore)

    def test_what_is_kept_from_others_is_listed_as_it_was_held_and_can_be_force_released(
        self,
    ) -> None:
        self.require(self.backend.supports_listing, "listing")
        held = self.grant(self.new_semaphore())
        assert held.grant.token is not None
        [before] = self.backend.held(held.semaphore)
        self.assertEqual((before.state, before.token), (LockState.HELD, held.grant.token))
        self.assertTrue(self.backend.release(held, 60))
        [kept] = self.backend.held(held.semaphore)
        for name in ("state", "token", "holder", "acquired_at"):
            self.assertEqual(getattr(kept, name), getattr(before, name), name)
        self.assertFalse(self.backend.force_release(held.semaphore, held.grant.token - 1))
        self.assertFalse(self.try_once(held.semaphore))
        self.assertTrue(self.backend.force_release(held.semaphore, held.grant.token))
        self.assertFalse(self.backend.force_release(held.semaphore, held.grant.token))
        self.assert_free(held.semaphore)

    def test_clear_stale_touches_only_what_expired(self) -> None:
        self.require(self.backend.supports_listing, "listing")
        self.require(self.keeps_expired, "expired locks")
        prefix = self.new_semaphore()
        held = self.grant(f"{prefix}:held")
        stale, other = self.expired(f"{prefix}:stale", f"x{prefix}")
        for dry_run in (True, False):
            cleared = list(self.backend.clear_stale(prefix, dry_run=dry_run))
            self.assertEqual([lock.semaphore for lock in cleared], [stale.semaphore])
        self.assertEqual([lock.state for lock in self.backend.held(prefix)], [LockState.HELD])
        self.assertEqual(len(list(self.backend.held(other.semaphore))), 1)
        self.assert_held(held)
        successor = self.grant(stale.semaphore)
        self.assert_rising([stale.grant.token, successor.grant.token])

    def test_purged_semaphores_keep_rising(self) -> None:
        self.require(self.backend.supports_listing, "listing")
        self.require(self.keeps_expired, "expired locks")
        semaphore = self.new_semaphore()
        held = self.grant(semaphore)
        self.backend.release(held)
        purged = list(self.backend.purge_released(timedelta(0), semaphore))
        self.assertEqual([lock.semaphore for lock in purged], [semaphore])
        self.assert_rising([held.grant.token, self.grant(semaphore).grant.token])
        self.assertEqual(list(self.backend.purge_released(timedelta(0), semaphore)), [])
