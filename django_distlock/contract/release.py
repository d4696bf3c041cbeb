"""Own release: nobody but its owner releases a lease."""

from django_distlock.clocks import monotonic
from django_distlock.leases.request import new_owner
from django_distlock.records import LOST

from .cases import StoreTestCase


class ReleaseTests(StoreTestCase):
    """What a release frees, for which owner, and for how long it may keep others out."""

    def test_release_frees_the_semaphore(self) -> None:
        held = self.grant(self.new_semaphore())
        self.assertTrue(self.backend.release(held))
        self.assert_free(held.semaphore)

    def test_another_thread_can_release(self) -> None:
        held = self.grant(self.new_semaphore())
        self.assertEqual(self.in_threads(1, lambda: self.backend.release(held)), [True])
        self.assert_free(held.semaphore)

    def test_stranger_can_neither_release_nor_renew(self) -> None:
        held = self.grant(self.new_semaphore())
        stranger = held._replace(owner=new_owner())
        self.assertFalse(self.backend.release(stranger))
        self.assertEqual(self.backend.renew([stranger]), {stranger.owner: LOST})
        self.assert_held(held)

    def test_released_lease_can_be_neither_released_nor_renewed_again(self) -> None:
        semaphore = self.new_semaphore()
        released = self.grant(semaphore)
        self.assertTrue(self.backend.release(released))
        self.assertFalse(self.backend.release(released))
        self.assertEqual(self.backend.renew([released]), {released.owner: LOST})
        successor = self.grant(semaphore)
        self.assertFalse(self.backend.release(released))
        self.assert_held(successor)

    def test_never_acquired_semaphore_can_be_neither_released_nor_renewed(self) -> None:
        semaphore = self.new_semaphore()
        released = self.grant(self.new_semaphore())._replace(semaphore=semaphore)
        self.assertFalse(self.backend.release(released))
        self.assertEqual(self.backend.renew([released]), {released.owner: LOST})

    def test_release_can_keep_others_out_for_a_while(self) -> None:
        held = self.grant(self.new_semaphore())
        self.assertTrue(self.backend.release(held, 60))
        self.assertFalse(self.try_once(held.semaphore))
        self.assertFalse(self.backend.release(held))
        self.assertEqual(self.backend.renew([held]), {held.owner: LOST})

    def test_what_is_kept_from_others_is_free_after_that_while(self) -> None:
        held, keep = self.grant(self.new_semaphore()), self.at_least(0.05)
        self.assertTrue(self.backend.release(held, keep))
        self.wait_for_expiry(held._replace(ttl=keep, received=monotonic()))
        if self.backend.supports_listing:
            self.assertEqual(list(self.backend.held(held.semaphore)), [])
            self.assertEqual(list(self.backend.clear_stale(held.semaphore)), [])
        self.assert_free(held.semaphore)

    def test_only_the_owner_can_release_and_keep_others_out(self) -> None:
        held = self.grant(self.new_semaphore())
        self.assertFalse(self.backend.release(held._replace(owner=new_owner()), 60))
        self.assert_held(held)
        self.assertTrue(self.backend.release(held))
        self.assert_free(held.semaphore)
