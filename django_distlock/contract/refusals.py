"""Refusals: they tell what the store saw, and nothing that is false."""

import asyncio
from dataclasses import fields

from django_distlock.backends.base import AsyncStore
from django_distlock.leases.request import new_owner
from django_distlock.records import KEPT, REFUSED, Refusal

from .cases import GrantedLease, StoreTestCase


class RefusalTests(StoreTestCase):
    """What a refused attempt tells of the holder."""

    def assert_refused_by(self, held: GrantedLease, refusal: object) -> None:
        """Fail unless the refusal tells of this lease, or of nothing where the store need not."""
        assert isinstance(refusal, Refusal)
        self.assertFalse(refusal)
        for field in fields(refusal):
            self.assertNotIn(held.owner, str(getattr(refusal, field.name)), "an owner is secret")
        if refusal == REFUSED and not self.backend.tells_holder:
            return
        self.assertEqual((refusal.holder, refusal.reason), (held.holder, ""))
        assert refusal.acquired_at is not None and refusal.seen_at is not None
        self.assert_close(refusal.acquired_at, held.grant.acquired_at)
        self.assert_close(refusal.expires_at, held.grant.expires_at)
        self.assertGreaterEqual(refusal.seen_at, refusal.acquired_at)
        self.assertEqual(refusal.seen_at.utcoffset(), held.grant.acquired_at.utcoffset())

    def test_refusal_tells_the_holder_and_since_when_until_when(self) -> None:
        held = self.grant(self.new_semaphore())
        self.assert_refused_by(held, self.try_once(held.semaphore))

    def test_holders_other_attempt_is_refused_like_anybodys(self) -> None:
        """An owner is an acquisition, not a process: the holder's text is the same."""
        held = self.grant(self.new_semaphore())
        again = self.backend.acquire(held.semaphore, new_owner(), 60, held.holder)
        self.assert_refused_by(held, again)

    def test_refusal_by_a_renewed_lease_tells_its_new_end(self) -> None:
        held = self.grant(self.new_semaphore())
        end = self.backend.renew([held._replace(ttl=120)])[held.owner].expires_at
        renewed = held._replace(grant=held.grant._replace(expires_at=end))
        self.assert_refused_by(renewed, self.try_once(held.semaphore))

    def test_refusal_by_an_unlimited_lease_tells_no_end(self) -> None:
        self.require(self.backend.supports_unlimited_ttl, "unlimited ttl")
        held = self.grant(self.new_semaphore(), ttl=None)
        self.assert_refused_by(held, self.try_once(held.semaphore))

    def test_refusal_of_what_is_only_kept_says_so(self) -> None:
        held = self.grant(self.new_semaphore())
        self.assertTrue(self.backend.release(held, 60))
        refusal = self.try_once(held.semaphore)
        assert not refusal
        if refusal != REFUSED or self.backend.tells_holder:
            self.assertEqual((refusal.holder, refusal.reason), (held.holder, KEPT))

    def test_refusal_in_an_event_loop_tells_the_same(self) -> None:
        store, held = self.backend, self.grant(self.new_semaphore())
        if not isinstance(store, AsyncStore):
            raise self.lacks("coroutines")

        async def attempt() -> object:
            acquire = (held.semaphore, new_owner(), 60, "contract")
            return await store.aacquire(*acquire, deadline=store.new_deadline())

        self.assert_refused_by(held, asyncio.run(attempt()))
