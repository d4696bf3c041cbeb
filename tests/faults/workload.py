"""What a worker does, as its seed says: acquire, hold, renew and release locks, also too late."""

from __future__ import annotations

import time
from collections import deque
from contextlib import suppress
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple

from django.db import Error

from django_distlock import LockBackendUnavailable, LockLost, acquire_lock, lock_backends
from django_distlock.backends.base import TransactionalStore
from tests.faults.environment import ISOLATED
from tests.faults.registers import increment, increment_and_release, kind_of
from tests.support.leases import internals

if TYPE_CHECKING:
    from collections.abc import Container

    from django_distlock import Lease
    from django_distlock.records import Claim
    from tests.faults.calls import Calls
    from tests.faults.history import HistoryFile, Kind, Operation, Outcome

TIMEOUTS = (0.0,) * 12 + (0.05, 0.1, 0.3) * 2 + (3.0, 10.0)
"""The timeouts of acquisitions, each as often as it is here; none lasts longer than the run.

A waiter that the run's end had to kill would leave unknown who may have held the lock.
"""
CANCELLATIONS = (None, None, None, None, 0, 0.0005, 0.002, 0.01, 0.05)
"""Seconds after which a task that acquires is cancelled."""
IN_TRANSACTION = 0.2
"""The share of turns that acquire, write and release in one transaction."""
PAUSES = (0, 0, 0, 0, 0.002, 0.02, 0.02)
"""Seconds between the reading and the writing of a register, but for those that are late."""
ABANDONED = 0.03
"""The share of leases that are never released."""
REST = 0.05
"""Seconds before the next turn when the store is down."""
STALE = 0.04
"""The share of turns that renew or release a lease that is over."""


class Work(NamedTuple):
    """What a process is to do."""

    name: str
    seed: int
    directory: str
    backend: str
    """An alias in DISTLOCK."""
    using: str
    """The alias of the database with the registers."""
    style: str
    """`sync` or `async`."""
    actors: int
    """How many threads or tasks."""
    semaphores: int
    registers: tuple[str, ...]
    ttls: tuple[float, ...]
    pace: float
    """Seconds between two turns, on the average."""
    burst: int
    """How often it tries for a lock that is held, one try after the other, at most."""
    late: float
    """The share of increments that outlast their lease, unless that is renewed."""
    probes_stale: bool
    """See Environment."""
    until: float
    """By CLOCK_MONOTONIC."""
    clock: str
    """The file of this process's wall clock, or nothing."""


class Actor:
    """A thread or task that uses the locks."""

    def __init__(
        self, name: str, work: Work, calls: Calls, history: HistoryFile, released: Container[str]
    ) -> None:
        self.name = name
        self._work = work
        self._calls = calls
        self._history = history
        self._released = released
        """The owners whose release the store has confirmed."""
        self._random = Random(f"{work.seed} {name}")
        self._over: deque[Claim] = deque(maxlen=8)
        """Leases that it has released, or lost."""
        self._abandoned: dict[int, Lease] = {}
        """Leases that it leaves to their ttl, by the number of the semaphore."""

    async def run(self) -> None:
        """Take turns until the time is over."""
        while time.monotonic() < self._work.until:
            await self._calls.sleep(self._random.uniform(0, 2) * self._work.pace)
            if self._work.probes_stale and self._over and self._random.random() < STALE:
                await self._use_stale(self._random.choice(self._over))
            else:
                await self._take_turn()

    async def _take_turn(self) -> None:
        number = self._random.randrange(self._work.semaphores) + 1
        if number in self._abandoned and self._abandoned[number].held:
            return  # to wait for it would be to wait for oneself
        # What a cancelled attempt leaves is unknown, and so what is right for others: on one lock.
        may_cancel = number == self._work.semaphores
        guarded = kind_of(self._work, number) == "guarded"
        if guarded and self._random.random() < IN_TRANSACTION and self._may_acquire_inside():
            await self._calls.run(lambda: self._increment_and_release(number))
            return
        limit = min(self._random.choice(TIMEOUTS), max(0, self._work.until - time.monotonic()))
        for _ in range(1 if limit != 0 else self._random.randint(1, self._work.burst)):
            in_block = guarded or self._random.random() < 0.5
            lease = await self._acquire(number, limit, may_cancel=may_cancel, in_block=in_block)
            if lease is not None:
                await self._hold(lease, number, may_abandon=not in_block)
                return

    def _may_acquire_inside(self) -> bool:
        """Tell whether to acquire in a transaction.

        One with a snapshot is refused, and on SQLite a rollback undoes the grant: it never was one.
        """
        store = lock_backends[self._work.backend]
        joins = isinstance(store, TransactionalStore) and store.caller() is not None
        return self._work.backend != ISOLATED and not joins

    async def _hold(self, lease: Lease, number: int, *, may_abandon: bool) -> None:
        try:
            for _ in range(self._random.choice((0, 1, 1, 2))):
                await self._use(lease, number)
            if may_abandon and self._random.random() < ABANDONED:
                internals(lease).stop_renewal()
                self._abandoned[number] = lease
            else:
                await self._release(lease)
        finally:
            self._over.append(internals(lease).as_claim()._replace(remaining=0))

    async def _acquire(
        self, number: int, limit: float, *, may_cancel: bool, in_block: bool
    ) -> Lease | None:
        arguments = self._arguments(number, limit)
        cancel_after = self._random.choice(CANCELLATIONS) if may_cancel else None
        acquired = self._begin_acquisition(arguments)
        acquire = self._calls.enter if in_block else self._calls.acquire
        try:
            lease = await acquire(cancel_after, **arguments)
        except (LockBackendUnavailable, TimeoutError):
            self._history.end(acquired, "unknown")
            await self._calls.sleep(REST)
            return None
        return self._end_acquisition(acquired, lease)

    def _arguments(self, number: int, limit: float) -> dict[str, Any]:
        return {
            "semaphore": f"{number}collectPayment",
            "timeout": limit,
            "ttl": self._random.choice(self._work.ttls),
            "renew": self._random.random() < 0.7,
            "backend": self._work.backend,
        }

    def _begin_acquisition(self, arguments: dict[str, Any]) -> Operation:
        return self._history.begin(
            "acquire", arguments["semaphore"], ttl=arguments["ttl"], timeout=arguments["timeout"]
        )

    def _end_acquisition(self, acquired: Operation, lease: Lease | None) -> Lease | None:
        if lease is None:
            self._history.end(acquired, "refused")
        else:
            owner = internals(lease).owner
            self._history.end(acquired, "ok", owner=owner, token=lease.token)
        return lease

    def _increment_and_release(self, number: int) -> None:
        """Do all in one transaction: its commit is guarded, and the release waits for it."""
        arguments = self._arguments(number, self._random.choice((0, 0, 0.1)))
        pause = self._pause(arguments["ttl"])
        operations: list[Operation] = []

        def acquire() -> Lease | None:
            operations.append(self._begin_acquisition(arguments))
            lease = self._end_acquisition(operations.pop(), acquire_lock(**arguments))
            if lease is not None:
                claim = internals(lease).as_claim()
                operations.extend(self._begin(kind, claim) for kind in ("increment", "release"))
            return lease

        try:
            value = increment_and_release(self._work.using, number, acquire, pause)
            known: tuple[Outcome, ...] = ("ok", *map(self._outcome, operations[1:]))
        except LockLost:
            value, known = None, ("lost", "lost")
        except (Error, LockBackendUnavailable):
            value, known = None, ("unknown", "unknown")
        for operation, outcome in zip(operations, known, strict=False):
            self._history.end(operation, outcome, value=value)

    async def _use(self, lease: Lease, number: int) -> None:
        match self._random.randrange(20):
            case 0:  # longer than the lease, which may be renewed, or not
                await self._calls.sleep(self._random.uniform(1, 1.3) * (lease.ttl or 0))
            case 1:
                await self._calls.fork(lease)
            case 2 | 3 | 4:
                with suppress(LockBackendUnavailable, LockLost):
                    await self._calls.renew(lease)
            case case if case < 12 and self._may_increment(number):
                await self._increment(lease, number)
            case _:
                await self._calls.sleep(self._random.expovariate(100))

    def _may_increment(self, number: int) -> bool:
        """Tell whether a late holder would be refused.

        A commit with a snapshot is guarded by a renewal: only for a ttl, which it may outlast.
        """
        kind = kind_of(self._work, number)
        return kind == "fenced" or (kind == "guarded" and self._work.backend != ISOLATED)

    async def _increment(self, lease: Lease, number: int) -> None:
        pause = self._pause(lease.ttl or 0)
        operation = self._begin("increment", internals(lease).as_claim())
        try:
            value = await self._calls.run(lambda: increment(self._work, number, lease, pause))
        except LockLost:
            self._history.end(operation, "lost")
        except (Error, LockBackendUnavailable):
            self._history.end(operation, "unknown")
        else:
            self._history.end(operation, "ok", value=value)

    def _outcome(self, release: Operation) -> Outcome:
        return "ok" if release.owner in self._released else "unknown"

    def _pause(self, ttl: float) -> float:
        if self._random.random() < self._work.late:
            return self._random.uniform(1.2, 3) * ttl
        return self._random.choice(PAUSES)

    async def _release(self, lease: Lease) -> None:
        operation = self._begin("release", internals(lease).as_claim())
        try:
            released = await self._calls.release(lease)
            self._history.end(operation, self._outcome(operation) if released else "lost")
        except LockBackendUnavailable:
            self._history.end(operation, "unknown")

    async def _use_stale(self, claim: Claim) -> None:
        """Ask the store to renew or release a lease that is over: it must refuse."""
        store = lock_backends[self._work.backend]
        if self._random.random() < 0.5:
            with suppress(LockBackendUnavailable):  # record_renewals() writes what became of it
                await self._calls.run(lambda: store.renew([claim]))
            return
        operation = self._begin("release", claim)
        try:
            released = await self._calls.run(lambda: store.release(claim))
            self._history.end(operation, "ok" if released else "lost")
        except LockBackendUnavailable:
            self._history.end(operation, "unknown")

    def _begin(self, kind: Kind, claim: Claim) -> Operation:
        return self._history.begin(
            kind, claim.semaphore, owner=claim.owner, token=claim.token, ttl=claim.ttl
        )
