"""Renewal: a renewed lease ends its ttl from then, and each lease gets an answer."""

from datetime import timedelta

from django_distlock.clocks import monotonic
from django_distlock.records import LOST, Renewal

from .cases import GrantedLease, StoreTestCase


class RenewalTests(StoreTestCase):
    """What renew() does to leases, and what it answers."""

    def test_renewed_lease_ends_its_ttl_after_the_renewal(self) -> None:
        """Whether that is later than it would have ended, or sooner."""
        short = self.at_least(0.05)
        early, longer = self.renewed_in_time(short, 60)
        late = self.grant(self.new_semaphore())
        shorter = late._replace(ttl=short)
        renewal = self.backend.renew([shorter])[late.owner]
        self.assertTrue(renewal.renewed)
        end = renewal.expires_at
        assert end is not None and late.grant.expires_at is not None
        self.assertLess(end, late.grant.expires_at)
        self.wait_for_expiry(early, shorter._replace(received=monotonic()))
        self.assert_held(longer)
        self.assert_free(late.semaphore)

    def renewed_in_time(self, ttl: float, longer: float) -> tuple[GrantedLease, GrantedLease]:
        """Return a lease as it was granted for a short ttl, and as it was renewed in time.

        A busy machine may take longer than that ttl: then another lease is tried.
        """
        tries: list[tuple[GrantedLease, dict[str, Renewal]]] = []

        def renew() -> bool:
            held = self.grant(self.new_semaphore(), ttl)
            renewals = self.backend.renew([held._replace(ttl=longer)])
            tries.append((held, renewals))
            return not renewals[held.owner].lost

        self.wait_until(renew)
        held, renewals = tries[-1]
        self.assertTrue(renewals[held.owner].renewed)
        end = renewals[held.owner].expires_at
        assert end is not None and held.grant.expires_at is not None
        self.assertGreater(end - held.grant.expires_at, timedelta(seconds=longer - ttl - 1))
        return held, held._replace(ttl=longer)

    def test_many_leases_are_renewed_at_once(self) -> None:
        held = [self.grant(self.new_semaphore(), ttl=60 + n) for n in range(self.many)]
        lost = self.grant(self.new_semaphore())
        self.assertTrue(self.backend.release(lost))
        longer = [one._replace(ttl=(one.ttl or 0) + 50) for one in [*held, lost]]
        renewals = self.backend.renew(longer)
        self.assertEqual(set(renewals), {one.owner for one in longer})
        self.assertEqual(renewals[lost.owner], LOST)
        for one in held:
            self.assertTrue(renewals[one.owner].renewed)
            end = renewals[one.owner].expires_at
            assert end is not None and one.grant.expires_at is not None
            self.assertGreater(end - one.grant.expires_at, timedelta(seconds=49))

    def test_nothing_to_renew_is_nothing_renewed(self) -> None:
        self.assertEqual(self.backend.renew([]), {})
