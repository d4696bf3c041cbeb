"""The contract that every lock store keeps, as tests: subclass it for a store of your own.

    class MyStoreTests(LockBackendContract, SimpleTestCase):
        alias = "mine"  # in DISTLOCK

What a store says it doesn't support is left out; nothing else is.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeVar
from unittest import SkipTest, TestCase

from asgiref.sync import sync_to_async
from django.core.exceptions import SynchronousOnlyOperation
from django.core.signals import request_finished, request_started
from django.db import connections

from django_distlock.backends.base import BaseLockBackend, ListingStore
from django_distlock.records import LOST, Grant, LockState, Released, Renewal, RenewalOutcome

from .clocks import monotonic
from .concurrency.background import background
from .conf import lock_backends
from .exceptions import LockBackendUnavailable, LockLost, LockNotHeld
from .leases.lease import Lease
from .leases.request import new_owner
from .locks.api import aacquire_lock, acquire_lock, arelease_lock, release_lock
from .signals import lock_lost
from .views.decorator import distributed_lock

if TYPE_CHECKING:
    _TestCase = TestCase
else:
    _TestCase = object

T = TypeVar("T")


class Held(NamedTuple):
    """A claim with its grant, and when the reply was there, by the local monotonic clock."""

    semaphore: str
    owner: str
    ttl: float | None
    grant: Grant
    received: float
    holder: str = "contract"

    @property
    def token(self) -> int | None:
        """The fencing token."""
        return self.grant.token

    @property
    def remaining(self) -> float:
        """Seconds that are left, as a holder counts them."""
        return max(0.0, self.received + (self.ttl or 0) - monotonic())


class LockBackendContract(_TestCase):
    """Exclusion, own release, fencing and liveness of the store that DISTLOCK[alias] names."""

    alias: ClassVar[str] = "default"
    clock_tick: ClassVar[float] = 0.002
    """Seconds by which the store's clock may lag behind: its granularity, and what it adds."""
    many: ClassVar[int] = 1100
    """Leases to renew at once: more than fit into one round trip, or as many as is sensible."""
    semaphores: ClassVar["count[int]"] = count()

    @property
    def backend(self) -> BaseLockBackend:
        """The store, in this thread."""
        return lock_backends[self.alias]

    @property
    def keeps_expired(self) -> bool:
        """Whether the store lists locks that expired, and knows released ones."""
        return isinstance(self.backend, ListingStore) and self.backend.keeps_expired

    def new_semaphore(self) -> str:
        """Return a semaphore that no other test uses."""
        return f"{type(self).__name__}:{next(self.semaphores)}"

    def grant(self, semaphore: str, ttl: float | None = 60, owner: str = "") -> Held:
        """Acquire as a new owner what must be free."""
        owner = owner or new_owner()
        grant = self.backend.acquire(semaphore, owner, ttl, "contract")
        assert grant is not None, f"{semaphore!r} should have been free"
        return Held(semaphore, owner, ttl, grant, monotonic())

    def try_once(self, semaphore: str) -> Grant | None:
        """Try to acquire as a new owner."""
        return self.backend.acquire(semaphore, new_owner(), 60, "another")

    def at_least(self, seconds: float) -> float:
        """Return so short a ttl, or the shortest that the store has."""
        return max(seconds, self.backend.shortest_ttl)

    def expired(self, *semaphores: str, ttl: float = 0.05) -> list[Held]:
        """Acquire each, and return when these leases have expired by the store's clock."""
        leases = [self.grant(semaphore, self.at_least(ttl)) for semaphore in semaphores]
        self.let_pass(*leases)
        return leases

    def let_pass(self, *leases: Held) -> None:
        """Wait until each lease has expired by the store's clock."""
        ends = max(lease.received + (lease.ttl or 0) for lease in leases)
        while (left := ends + self.clock_tick - monotonic()) > 0:
            time.sleep(left)

    def renew_in_background(self) -> None:
        """Let the background renew this process's leases now, not after a third of their ttl."""
        renewing = background(self.alias)
        renewing.submit(renewing.renewals.hasten)

    def assert_held(self, held: Held) -> None:
        """Fail unless this owner still has the semaphore, with the same token."""
        self.assertIsNone(self.backend.acquire(held.semaphore, new_owner(), 60, "contract"))
        again = self.backend.acquire(held.semaphore, held.owner, held.ttl, "contract")
        assert again is not None
        self.assertEqual(again.token, held.grant.token)

    def assert_free(self, semaphore: str) -> None:
        """Fail unless anybody can have the semaphore."""
        self.backend.release(self.grant(semaphore))

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Return as soon as the condition holds; fail after half a minute."""
        deadline = monotonic() + 30
        while not condition():
            self.assertLess(monotonic(), deadline, "waited for half a minute")
            time.sleep(0.005)

    def require(self, supported: bool, what: str) -> None:
        """Leave the test out for a store that declares that it can't do this."""
        if not supported:
            raise SkipTest(f"{type(self.backend).__name__} has no {what}")

    def in_threads(self, number: int, action: Callable[[], T]) -> list[T]:
        """Do the action in so many threads at once and return the results."""
        start = threading.Barrier(number)

        def run() -> T:
            try:
                start.wait(timeout=30)
                return action()
            finally:
                connections.close_all()

        with ThreadPoolExecutor(number) as threads:
            return [future.result() for future in [threads.submit(run) for _ in range(number)]]

    # Own release

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

    # Exclusion

    def test_held_semaphore_is_granted_to_nobody_else(self) -> None:
        held = self.grant(self.new_semaphore())
        for _ in range(3):
            self.assertIsNone(self.backend.acquire(held.semaphore, new_owner(), 60, "other"))
        self.assert_held(held)

    def test_one_of_many_threads_gets_a_semaphore(self) -> None:
        for semaphore in (self.new_semaphore() for _ in range(5)):
            grants = self.in_threads(8, partial(self.try_once, semaphore))
            self.assertEqual(sum(grant is not None for grant in grants), 1)

    def test_different_semaphores_are_different_locks(self) -> None:
        prefix = self.new_semaphore()
        endings = ["", "a", "a ", "a  ", " a", "A", "ä", "a\u0308", "%", "%s", "%%", "'", '"', "\\"]
        endings += ["{a}", "}a", "\u00a0", "ß", "ss", "\U0001f512", "_", "*", "?", "[a]"]
        for ending in endings:
            self.grant(prefix + ending)
        for ending in endings:
            self.assertIsNone(self.backend.acquire(prefix + ending, new_owner(), 60, "other"))

    def test_longest_semaphores_are_not_cut(self) -> None:
        prefix = self.new_semaphore()
        longest = prefix + "\U0001f512" * (254 - len(prefix))
        self.grant(longest + "a")
        self.grant(longest + "b")
        self.assertIsNone(self.backend.acquire(longest + "a", new_owner(), 60, "other"))

    def test_same_owner_gets_its_own_grant_with_the_stored_token(self) -> None:
        held = self.grant(self.new_semaphore())
        again = self.grant(held.semaphore, owner=held.owner)
        self.assertEqual(again.grant.token, held.grant.token)
        self.assertTrue(self.backend.release(held))

    # Liveness

    def test_one_of_many_threads_gets_a_semaphore_whose_ttl_has_passed(self) -> None:
        """With nobody's help."""
        [expired] = self.expired(self.new_semaphore())
        grants = self.in_threads(8, partial(self.try_once, expired.semaphore))
        self.assertEqual(sum(grant is not None for grant in grants), 1)

    def test_nobody_gets_a_semaphore_before_the_ttl_has_passed_for_its_holder(self) -> None:
        """Tell that it makes no difference when, between two steps of the store's clock, it began.

        A grant and a renewal begin late in a millisecond, which is when a clock that counts these
        is most wrong. If the shortest ttl is long, there is time for one of each only.
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
        """Wait for the last third of one, by this machine's clock; return the monotonic time."""
        while time.time_ns() % 1_000_000 < 667_000:
            pass
        return monotonic()

    def when_granted(self, *semaphores: str) -> dict[str, float]:
        """Try, without a pause, until each is granted to a new owner; return when each was."""
        owner, found = new_owner(), dict[str, float]()
        enough = monotonic() + 30
        while len(found) < len(semaphores):
            for semaphore in semaphores:
                if semaphore not in found and self.backend.acquire(semaphore, owner, 60, "next"):
                    found[semaphore] = monotonic()
            self.assertLess(monotonic(), enough, "waited for half a minute")
        return found

    def test_release_frees_the_semaphore(self) -> None:
        held = self.grant(self.new_semaphore())
        self.assertTrue(self.backend.release(held))
        self.assert_free(held.semaphore)

    def test_another_thread_can_release(self) -> None:
        held = self.grant(self.new_semaphore())
        self.assertEqual(self.in_threads(1, lambda: self.backend.release(held)), [True])
        self.assert_free(held.semaphore)

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

    def test_release_can_keep_others_out_for_a_while(self) -> None:
        held = self.grant(self.new_semaphore())
        self.assertTrue(self.backend.release(held, 60))
        self.assertIsNone(self.try_once(held.semaphore))
        self.assertFalse(self.backend.release(held))
        self.assertEqual(self.backend.renew([held]), {held.owner: LOST})

    def test_what_is_kept_from_others_is_free_after_that_while(self) -> None:
        held, keep = self.grant(self.new_semaphore()), self.at_least(0.05)
        self.assertTrue(self.backend.release(held, keep))
        self.let_pass(held._replace(ttl=keep, received=monotonic()))
        if self.backend.supports_listing:
            self.assertEqual(list(self.backend.held(held.semaphore)), [])
            self.assertEqual(list(self.backend.clear_stale(held.semaphore)), [])
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
        self.assertIsNone(self.try_once(held.semaphore))
        self.assertTrue(self.backend.force_release(held.semaphore, held.grant.token))
        self.assertFalse(self.backend.force_release(held.semaphore, held.grant.token))
        self.assert_free(held.semaphore)

    def test_only_the_owner_can_release_and_keep_others_out(self) -> None:
        held = self.grant(self.new_semaphore())
        self.assertFalse(self.backend.release(held._replace(owner=new_owner()), 60))
        self.assert_held(held)
        self.assertTrue(self.backend.release(held))
        self.assert_free(held.semaphore)

    # Renewal

    def test_renewed_lease_ends_its_ttl_after_the_renewal(self) -> None:
        """Tell that it does, whether that is later than it would have ended, or sooner."""
        short = self.at_least(0.05)
        early, longer = self.renewed_in_time(short, 60)
        late = self.grant(self.new_semaphore())
        shorter = late._replace(ttl=short)
        renewal = self.backend.renew([shorter])[late.owner]
        self.assertTrue(renewal.renewed)
        end = renewal.expires_at
        assert end is not None and late.grant.expires_at is not None
        self.assertLess(end, late.grant.expires_at)
        self.let_pass(early, shorter._replace(received=monotonic()))
        self.assert_held(longer)
        self.assert_free(late.semaphore)

    def renewed_in_time(self, ttl: float, longer: float) -> tuple[Held, Held]:
        """Return a lease as it was granted for a short ttl, and as it was renewed before its end.

        A machine that is busy may take longer than that ttl: then another one is tried.
        """
        tries: list[tuple[Held, dict[str, Renewal]]] = []

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
        self.assertIsNone(self.try_once(semaphore))
        self.assertTrue(lease.release())

    def test_lease_that_is_not_renewed_ends_with_its_ttl(self) -> None:
        lease = self.acquired_in_time(self.at_least(0.1))
        self.wait_until(lambda: not lease.held)
        with self.assertRaises(LockLost):
            lease.check()
        with self.assertRaises(LockLost):
            lease.renew()
        self.assertFalse(lease.release())
        self.wait_until(lambda: self.try_once(lease.semaphore) is not None)

    def acquired_in_time(self, ttl: float) -> Lease:
        """Return a lease that isn't renewed; on a busy machine, the first that isn't late."""
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
        told: list[Any] = []

        def receive(*, lease: Lease, reason: str, **kwargs: Any) -> None:
            told.append((lease, reason))

        semaphore = self.new_semaphore()
        lease = acquire_lock(semaphore, backend=self.alias, ttl=60)
        assert lease is not None and lease.token is not None
        lock_lost.connect(receive)
        try:
            self.assertTrue(self.backend.force_release(semaphore, lease.token))
            self.renew_in_background()
            self.wait_until(lambda: bool(told))
            successor = self.grant(semaphore)
            self.assertFalse(lease.release())
        finally:
            lock_lost.disconnect(receive)
        self.assertEqual([each for each, _ in told], [lease])
        self.assert_held(successor)

    # Fencing

    def test_tokens_rise_across_release_expiry_and_force_release(self) -> None:
        self.require(self.backend.supports_fencing, "fencing tokens")
        semaphore, tokens = self.new_semaphore(), []
        for _ in range(3):
            held = self.grant(semaphore)
            tokens.append(held.grant.token)
            self.backend.release(held)
            [expired] = self.expired(semaphore, ttl=0.01)
            tokens.append(expired.token)
            if self.backend.supports_listing:
                tokens.append(self.force_released(semaphore))
        self.assert_rising(tokens)

    def test_tokens_follow_the_clock(self) -> None:
        """Tell that a token would rise even if the previous one were lost."""
        self.require(self.backend.supports_fencing, "fencing tokens")
        tokens = [self.grant(self.new_semaphore()).grant.token for _ in range(3)]
        for token in tokens:
            assert token is not None
            moment = datetime.fromtimestamp(token / 1_000_000, UTC)
            self.assertLess(abs(moment - datetime.now(UTC)), timedelta(minutes=5))

    def force_released(self, semaphore: str) -> int | None:
        """Acquire, take the lock away again, and return the token."""
        token = self.grant(semaphore).grant.token
        assert token is not None
        self.assertTrue(self.backend.force_release(semaphore, token))
        return token

    def assert_rising(self, tokens: list[Any]) -> None:
        """Fail unless each token is greater than the one before."""
        self.assertEqual(tokens, sorted(set(tokens)))

    # Times

    def test_grant_has_the_stores_times(self) -> None:
        for ttl in (0.25, 1, 86400.5):
            grant = self.grant(self.new_semaphore(), ttl).grant
            assert grant.expires_at is not None
            self.assertEqual(grant.acquired_at.utcoffset(), timedelta())
            lasts = (grant.expires_at - grant.acquired_at).total_seconds()
            self.assertAlmostEqual(lasts, ttl, delta=0.1)

    # For people

    def test_held_lists_held_and_stale_locks_in_order(self) -> None:
        self.require(self.backend.supports_listing, "listing")
        prefix = self.new_semaphore()
        [stale] = self.expired(f"{prefix}:a")
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
        assert found[-1].expires_at is not None and held.grant.expires_at is not None
        difference = abs(found[-1].expires_at - held.grant.expires_at).total_seconds()
        self.assertLessEqual(difference, self.clock_tick)
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

    # Ownership

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

    # The public calls

    def test_acquire_lock_and_release_lock(self) -> None:
        semaphore = self.new_semaphore()
        lease = acquire_lock(semaphore, backend=self.alias, label="contract")
        assert lease is not None
        self.assertTrue(lease.held)
        self.assertIsNone(acquire_lock(semaphore, backend=self.alias))
        self.assertTrue(release_lock(semaphore, backend=self.alias))
        self.assertFalse(lease.held)
        self.assert_free(semaphore)

    def test_async_twins(self) -> None:
        semaphore = self.new_semaphore()

        async def use() -> None:
            lease = await aacquire_lock(semaphore, backend=self.alias)
            assert lease is not None
            self.assertIsNone(await aacquire_lock(semaphore, backend=self.alias))
            await lease.arenew()
            await lease.acheck()
            with self.assertRaises(LockNotHeld):
                await asyncio.gather(arelease_lock(semaphore, backend=self.alias))
            with self.assertRaises(SynchronousOnlyOperation):
                acquire_lock(semaphore, backend=self.alias)
            self.assertTrue(await arelease_lock(semaphore, backend=self.alias))
            self.assertFalse(lease.held)
            async with distributed_lock(semaphore, backend=self.alias) as lease:
                self.assertTrue(lease.held)

        self.run_async(use())
        self.assert_free(semaphore)

    def test_released_lock_goes_to_those_who_wait(self) -> None:
        """Tell that a thread and a task get it, and that a wait ends at its timeout."""
        held = self.grant(self.new_semaphore())
        wait = partial(distributed_lock, held.semaphore, backend=self.alias, timeout=30)

        def wait_in_thread() -> int | None:
            with wait() as lease:
                return lease.token

        async def wait_in_task() -> int | None:
            async with wait() as lease:
                return lease.token

        kinds = ["thread", "task"]

        def wait_somewhere() -> int | None:
            return wait_in_thread() if kinds.pop() == "thread" else self.run_async(wait_in_task())

        with ThreadPoolExecutor(1) as thread:
            waiting = thread.submit(self.in_threads, 2, wait_somewhere)
            began = monotonic()
            self.assertIsNone(acquire_lock(held.semaphore, backend=self.alias, timeout=0.1))
            self.assertGreaterEqual(monotonic() - began, 0.1)
            self.assertFalse(waiting.done())
            self.assertTrue(self.backend.release(held))
            tokens = [held.token, *waiting.result(60)]
        if self.backend.supports_fencing:
            self.assertEqual(len({*tokens}), 3)
            self.assertEqual(tokens[0], min(tokens, key=lambda token: token or 0))
        self.assert_free(held.semaphore)

    def test_cancelled_tasks_leave_nothing_behind(self) -> None:
        semaphore = self.new_semaphore()

        async def hold() -> None:
            async with distributed_lock(semaphore, backend=self.alias, timeout=60):
                await asyncio.sleep(60)

        async def cancel() -> None:
            tasks = [asyncio.create_task(hold()) for _ in range(5)]
            for task in tasks:
                await asyncio.sleep(0.01)
                task.cancel()
                await asyncio.wait([task])

        self.run_async(cancel())
        self.assert_free(semaphore)

    def run_async(self, work: Coroutine[Any, Any, T]) -> T:
        """Run it, and close what it opened in asgiref's thread for sync code."""

        async def run_and_close() -> T:
            try:
                return await work
            finally:
                await sync_to_async(connections.close_all)()

        return asyncio.run(run_and_close())
