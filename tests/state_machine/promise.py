"""The reference model: what is promised of locks, in as few words as code can say it.

Its clock is the store's. It allows more than one answer only where the promise does: a waiter whose
process may be taken for dead, since the clock has moved, may be passed over.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

LONG_AGO = -math.inf


class Claimed(NamedTuple):
    """A lease that was granted, as its owner remembers it: a Claim for the store."""

    semaphore: str
    owner: str
    ttl: float | None
    token: int | None
    holder: str
    remaining: float = 0


@dataclass
class PromisedLock:
    """A semaphore: at most one owner holds it, until its end."""

    owner: str = ""
    """Who holds it until it `ends`, or would, if it was not released."""
    ends: float = LONG_AGO
    released: bool = True
    """Whether that owner released it. It is kept from all others until it `ends`, even so."""
    released_at: float = LONG_AGO
    """When it was released, or is free after that."""
    holder: str = ""
    token: int = 0
    known: bool = False
    """Whether the store still has the last token: a purge forgets it."""
    risen_until: float = LONG_AGO
    """The latest time at which a token was granted: one granted later is greater, in any case."""
    queue: dict[str, bool] = field(default_factory=dict)
    """Each waiter, first come first; and whether its process is surely taken for alive."""
    unsettled: bool = False
    """Whether it may have been offered to a waiter since the last grant: that is not listed."""


@dataclass
class Promise:
    """All locks, the pauses, and the store's clock."""

    now: float = 0
    locks: dict[str, PromisedLock] = field(default_factory=dict)
    pauses: dict[str, float] = field(default_factory=dict)
    """When each ends, by its prefix."""

    def lock(self, semaphore: str) -> PromisedLock:
        """Return the lock."""
        return self.locks.setdefault(semaphore, PromisedLock())

    def is_held(self, semaphore: str, owner: str | None = None) -> bool:
        """Return whether this owner holds it; without one, whether anybody does, or did."""
        lock = self.lock(semaphore)
        if owner is not None and (lock.released or lock.owner != owner):
            return False
        return lock.ends > self.now

    def is_paused(self, semaphore: str) -> bool:
        """Return whether a pause in force covers it."""
        return any(semaphore.startswith(prefix) for prefix in self.pauses_in_force())

    def pauses_in_force(self) -> list[str]:
        """Return their prefixes in order."""
        return sorted(prefix for prefix, end in self.pauses.items() if end > self.now)

    def may_acquire(self, semaphore: str, owner: str) -> set[bool]:
        """Return the answers that an attempt may have."""
        if self.is_held(semaphore):
            return {self.is_held(semaphore, owner)}
        if self.is_paused(semaphore):
            return {False}
        queue = self.lock(semaphore).queue
        before = [each for each in queue if each != owner]
        if owner in queue:
            before = before[: [*queue].index(owner)]
        if any(queue[each] for each in before):
            return {False} if all(queue[each] for each in before) else {False, True}
        return {True} if not before and queue.get(owner, True) else {False, True}

    def granted(self, claim: Claimed) -> None:
        """Note a grant; its token is greater than all before, but for the same owner."""
        lock = self.lock(claim.semaphore)
        if claim.token is not None:
            again = lock.owner == claim.owner and not lock.released
            if self.is_held(claim.semaphore):
                assert claim.token == lock.token, "the same grant has another token"
            elif lock.known or self.now >= lock.risen_until:
                assert claim.token > lock.token - again, "a token did not rise"
            lock.token, lock.known = claim.token, True
        lock.risen_until = max(lock.risen_until, self.now)
        lock.owner, lock.holder, lock.released = claim.owner, claim.holder, False
        lock.unsettled = bool(lock.queue)
        self.extend(claim)

    def extend(self, claim: Claimed) -> None:
        """Let the lease end its ttl from now."""
        self.lock(claim.semaphore).ends = self.now + (math.inf if claim.ttl is None else claim.ttl)

    def release(self, semaphore: str, keep: float = 0) -> None:
        """Free the lock, or keep it from others for a while."""
        lock = self.lock(semaphore)
        lock.released, lock.released_at = True, self.now + keep
        lock.ends = lock.released_at if keep else LONG_AGO

    def join(self, semaphore: str, owner: str, *, is_sure: bool) -> None:
        """Note a waiter, which may be offered the lock from now on.

        It is not sure of its turn where others need not join the queue.
        """
        lock = self.lock(semaphore)
        lock.queue[owner], lock.unsettled = is_sure, True

    def disturb(self, prefix: str = "") -> None:
        """Note that a waiter of these locks may be passed over, or that its place was lost."""
        for semaphore, lock in self.locks.items():
            if semaphore.startswith(prefix):
                lock.queue = dict.fromkeys(lock.queue, False)

    def move_clock(self, seconds: float) -> None:
        """Move the store's clock; no waiter's process has been heard of since then."""
        self.now += seconds
        self.disturb()

    def has_ended_within(self, seconds: float) -> bool:
        """Return whether a lease or a pause has ended in the last seconds."""
        ends = [lock.ends for lock in self.locks.values()] + [*self.pauses.values()]
        return any(self.now - seconds < end <= self.now for end in ends)

    def held(self, prefix: str = "") -> list[str]:
        """Return the semaphores that are held or kept, in order."""
        return [name for name, lock in self.settled(prefix) if lock.ends > self.now]

    def stale(self, prefix: str = "") -> list[str]:
        """Return the semaphores whose leases expired without release, in order."""
        return [
            name
            for name, lock in self.settled(prefix)
            if lock.ends <= self.now and not lock.released
        ]

    def released_before(self, seconds: float, prefix: str = "") -> list[str]:
        """Return the semaphores that were released longer ago, and are still known, in order."""
        return [
            name
            for name, lock in self.settled(prefix)
            if lock.released
            and lock.known
            and lock.released_at < self.now - seconds
            and lock.risen_until < self.now
        ]

    def settled(self, prefix: str) -> list[tuple[str, PromisedLock]]:
        """Return the locks of which it is known how they are listed, in order."""
        return sorted(
            (name, lock)
            for name, lock in self.locks.items()
            if name.startswith(prefix) and not lock.unsettled
        )
