"""The base of the contract's tests: how they name, acquire, expire and compare locks."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import count
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeVar
from unittest import SkipTest, TestCase

from django.db import connections

from django_distlock.backends.base import BaseLockBackend
from django_distlock.backends.operations import ListingStore
from django_distlock.clocks import monotonic
from django_distlock.conf import lock_backends
from django_distlock.leases.request import new_owner
from django_distlock.records import Grant, Refusal

# A mixin: the subclass chooses its test case, of unittest or of Django.
if TYPE_CHECKING:
    _TestCase = TestCase
else:
    _TestCase = object

T = TypeVar("T")


class GrantedLease(NamedTuple):
    """A claim with its grant, and when the grant arrived, by the local monotonic clock."""

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
        """Seconds that are left by the holder's clock."""
        return max(0.0, self.received + (self.ttl or 0) - monotonic())


class StoreTestCase(_TestCase):
    """A test case for the store that DISTLOCK[alias] names."""

    alias: ClassVar[str] = "default"
    """The store, an alias in `DISTLOCK`."""
    clock_tick: ClassVar[float] = 0.002
    """Seconds by which the store may end a lease late: its clock's resolution, and what it adds."""
    many: ClassVar[int] = 1100
    """How many leases to renew at once. Choose more than fit into one round trip."""
    semaphores: ClassVar["count[int]"] = count()

    @property
    def backend(self) -> BaseLockBackend:
        """The store, as this thread uses it."""
        return lock_backends[self.alias]

    @property
    def keeps_expired(self) -> bool:
        """Whether the store lists expired locks, and remembers released ones."""
        return isinstance(self.backend, ListingStore) and self.backend.keeps_expired

    def new_semaphore(self) -> str:
        """Return a semaphore that no other test uses."""
        return f"{type(self).__name__}:{next(self.semaphores)}"

    def grant(self, semaphore: str, ttl: float | None = 60, owner: str = "") -> GrantedLease:
        """Acquire a free semaphore as this owner, or as a new one."""
        owner = owner or new_owner()
        grant = self.backend.acquire(semaphore, owner, ttl, "contract")
        assert grant, f"{semaphore!r} should have been free"
        return GrantedLease(semaphore, owner, ttl, grant, monotonic())

    def try_once(self, semaphore: str) -> Grant | Refusal:
        """Try to acquire as a new owner."""
        return self.backend.acquire(semaphore, new_owner(), 60, "another")

    def at_least(self, seconds: float) -> float:
        """Return this ttl, or the shortest that the store can keep."""
        return max(seconds, self.backend.shortest_ttl)

    def expired(self, *semaphores: str, ttl: float = 0.05) -> list[GrantedLease]:
        """Acquire each semaphore, and return the leases once the store has let them expire."""
        leases = [self.grant(semaphore, self.at_least(ttl)) for semaphore in semaphores]
        self.wait_for_expiry(*leases)
        return leases

    def wait_for_expiry(self, *leases: GrantedLease) -> None:
        """Wait until each lease has expired by the store's clock."""
        ends = max(lease.received + (lease.ttl or 0) for lease in leases)
        while (left := ends + self.clock_tick - monotonic()) > 0:
            time.sleep(left)

    def assert_held(self, held: GrantedLease) -> None:
        """Fail unless this owner still holds the semaphore, with the same token."""
        self.assertFalse(self.backend.acquire(held.semaphore, new_owner(), 60, "contract"))
        again = self.backend.acquire(held.semaphore, held.owner, held.ttl, "contract")
        assert again
        self.assertEqual(again.token, held.grant.token)

    def assert_free(self, semaphore: str) -> None:
        """Fail unless a new owner gets the semaphore; release it again."""
        self.backend.release(self.grant(semaphore))

    def assert_close(self, moment: Any, expected: Any, seconds: float = 2) -> None:
        """Fail unless the two are one moment, about, or both None. A busy machine needs seconds."""
        if expected is None:
            self.assertIsNone(moment)
        else:
            self.assertAlmostEqual(moment, expected, delta=timedelta(seconds=seconds))

    def assert_rising(self, tokens: list[Any]) -> None:
        """Fail unless each token is greater than the one before."""
        self.assertEqual(tokens, sorted(set(tokens)))

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Return as soon as the condition is true; fail after 30 seconds."""
        deadline = monotonic() + 30
        while not condition():
            self.assertLess(monotonic(), deadline, "waited for 30 seconds")
            time.sleep(0.005)

    def require(self, supported: bool, feature: str) -> None:
        """Skip the test if the store doesn't declare the feature."""
        if not supported:
            raise self.lacks(feature)

    def lacks(self, feature: str) -> SkipTest:
        """Return what skips a test since the store doesn't declare the feature."""
        return SkipTest(f"{type(self.backend).__name__} has no {feature}")

    def in_threads(self, number: int, action: Callable[[], T]) -> list[T]:
        """Call the action in this many threads at once, and return the results."""
        start = threading.Barrier(number)

        def run() -> T:
            try:
                start.wait(timeout=30)
                return action()
            finally:
                connections.close_all()

        with ThreadPoolExecutor(number) as threads:
            return [future.result() for future in [threads.submit(run) for _ in range(number)]]
