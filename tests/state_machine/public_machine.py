"""A state machine over the public calls: locks as a site's code takes, nests and releases them."""

from __future__ import annotations

import math
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
from django.db import transaction
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from django_distlock import (
    LockLost,
    LockNotAcquired,
    LockNotHeld,
    acquire_lock,
    distributed_lock,
    lock_backends,
    release_lock,
)
from tests.state_machine.holder_machine import SLACK

if TYPE_CHECKING:
    from django_distlock import Lease
    from tests.state_machine.moved_stores import MovedStore
    from tests.support.moved_clock import MovedClock

NAMES = ["1234collectPayment", "5678collectPayment"]
SEMAPHORES = st.sampled_from(NAMES)
STEP = 500
LONG = 1e9
TTLS = st.sampled_from([250, 1250, None])


class PublicMachine(RuleBasedStateMachine):
    """Acquires, renews and releases, in blocks and transactions, while clocks go on.

    Nothing is renewed in the background, so a lease ends with its ttl by both clocks.
    """

    def __init__(self, moved: MovedStore, clock: MovedClock) -> None:
        super().__init__()
        self.moved, self.clock = moved, clock
        self.now = 0
        self.leases: dict[str, Lease] = {}
        """The lease of each semaphore that has not been released."""
        self.ends: dict[str, float] = {}
        self.kept: dict[str, float] = {}
        self.ttls: dict[str, float] = {}
        self.limits: dict[str, float] = {}
        """When the lease ends at the latest, by max_hold."""
        self.last_token = dict.fromkeys(NAMES, 0)
        self.deferred: set[str] = set()
        """Semaphores released in the open transaction: they are free when it has ended."""
        self.transaction: ExitStack | None = None

    @initialize()
    def begin(self) -> None:
        """Begin with an empty store."""
        self.moved.empty(NAMES)

    def teardown(self) -> None:
        self.end_transaction(rollback=False)
        for semaphore in [*self.leases]:
            self.release(semaphore, by_name=False)

    def is_held(self, semaphore: str) -> bool:
        """Return whether the lease on it has not ended."""
        return semaphore in self.leases and self.ends[semaphore] > self.now

    @rule(
        semaphore=SEMAPHORES,
        ttl=TTLS,
        reentrant=st.booleans(),
        min_hold=st.sampled_from([None, None, 250]),
        max_hold=st.sampled_from([None, None, 250]),
    )
    def acquire(
        self,
        semaphore: str,
        ttl: float | None,
        reentrant: bool,
        min_hold: float | None,
        max_hold: float | None,
    ) -> None:
        """Acquire: refused while it is held or kept, unless it is reentered."""
        if semaphore in self.leases or semaphore in self.deferred:
            return
        free = self.kept.get(semaphore, 0) <= self.now
        lease = acquire_lock(
            semaphore,
            ttl=ttl,
            renew=False,
            reentrant=reentrant,
            min_hold=min_hold,
            max_hold=max_hold,
            backend=self.moved.alias,
        )
        assert bool(lease) == free
        if lease is None:
            return
        assert lease.held
        assert lease.token is not None
        assert lease.token > self.last_token[semaphore]
        self.last_token[semaphore] = lease.token
        self.leases[semaphore] = lease
        self.ttls[semaphore] = ttl or math.inf
        self.limits[semaphore] = self.now + (max_hold or math.inf)
        self.kept[semaphore] = self.now + (min_hold or 0)
        self.extend(semaphore)

    def extend(self, semaphore: str) -> None:
        """Expect the lease to end its ttl from now, or at the limit of max_hold."""
        self.ends[semaphore] = min(self.now + self.ttls[semaphore], self.limits[semaphore])
        left = self.ends[semaphore] - self.now
        assert min(left - SLACK, LONG) < self.leases[semaphore].remaining <= left

    @rule(semaphore=SEMAPHORES, in_block=st.booleans())
    def try_again(self, semaphore: str, in_block: bool) -> None:
        """Acquire what is held: contended, though it is one's own."""
        if not self.is_held(semaphore):
            return
        if in_block:
            with (
                pytest.raises(LockNotAcquired),
                distributed_lock(semaphore, backend=self.moved.alias),
            ):
                pytest.fail("it is held")
        else:
            assert acquire_lock(semaphore, backend=self.moved.alias) is None

    @rule(semaphore=SEMAPHORES)
    def renew(self, semaphore: str) -> None:
        """Renew: it ends its ttl from now, unless it is lost."""
        if (lease := self.leases.get(semaphore)) is None:
            return
        if not self.is_held(semaphore):
            with pytest.raises(LockLost):
                lease.renew()
            return
        lease.renew()
        self.extend(semaphore)

    @rule(semaphore=SEMAPHORES)
    def check(self, semaphore: str) -> None:
        """Check: LockLost exactly if it has ended."""
        if (lease := self.leases.get(semaphore)) is None:
            return
        assert lease.held == self.is_held(semaphore)
        assert bool(lease.remaining) == lease.held
        if lease.held:
            lease.check()
        else:
            with pytest.raises(LockLost):
                lease.check()

    @rule(semaphore=SEMAPHORES, by_name=st.booleans())
    def release(self, semaphore: str, by_name: bool) -> None:
        """Release by name or through the lease: False if it was lost, LockNotHeld if never held."""
        alias = self.moved.alias
        lease = self.leases.pop(semaphore, None)
        if lease is None:
            with pytest.raises(LockNotHeld):
                release_lock(semaphore, backend=alias)
            return
        held = self.ends[semaphore] > self.now
        assert (release_lock(semaphore, backend=alias) if by_name else lease.release()) == held
        assert not lease.held
        if not held:
            self.kept[semaphore] = self.now
        elif self.transaction is not None:
            self.deferred.add(semaphore)

    @precondition(lambda self: self.transaction is None)
    @rule()
    def begin_transaction(self) -> None:
        """Open a transaction, whose end releases wait for."""
        self.transaction = ExitStack()
        self.transaction.enter_context(transaction.atomic())

    @precondition(lambda self: self.transaction is not None)
    @rule(rollback=st.booleans())
    def end_transaction(self, rollback: bool) -> None:
        """Commit or roll back: what was released is free now."""
        if self.transaction is None:
            return  # at the end of a run
        if rollback:
            transaction.set_rollback(True)
        self.transaction.close()
        self.transaction = None
        self.deferred.clear()

    @rule()
    def let_time_pass(self) -> None:
        """Move both clocks."""
        if self.transaction is None:
            self.now += STEP
            self.clock.advance(STEP)
            self.moved.move(STEP)

    @rule(semaphore=SEMAPHORES)
    def compare_with_store(self, semaphore: str) -> None:
        """The store knows the same holder."""
        if semaphore not in self.deferred and self.transaction is None:
            found: Any = lock_backends[self.moved.alias].find(semaphore)
            is_listed = found is not None and found.state == "held"
            kept = semaphore not in self.leases and self.kept.get(semaphore, 0) > self.now
            assert is_listed == (self.is_held(semaphore) or kept)
