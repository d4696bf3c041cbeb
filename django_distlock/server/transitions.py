"""How locks change: granted, kept, freed, offered to the next waiter."""

import math
import time
from collections.abc import Callable
from typing import Final

from django_distlock import clocks

from .errors import Refused
from .expiry import ExpirySchedule
from .locks import EXPIRED, Lock
from .pauses import Pauses
from .tokens import next_token
from .waiters import Waiters, next_waiter

OFFER_SECONDS: Final = 1.0
"""How long the first waiter has to acquire the lock that it was offered."""


class LockTransitions:
    """The locks of a table, and every change of a lock. `now` is by the monotonic clock.

    A lock without a holder is in the table only if it is waited for while it may not be granted:
    in a pause, or when nothing is granted yet. While there are waiters, a lock that ends is granted
    to the next one, for as long as an offer lasts, before anybody else can acquire it.
    """

    def __init__(
        self,
        *,
        grants_from: float = EXPIRED,
        last_token: int = 0,
        max_locks: float = math.inf,
        max_waiters: float = math.inf,
        max_all_waiters: float = math.inf,
        max_pauses: float = math.inf,
        monotonic: Callable[[], float] = clocks.monotonic,
        microseconds: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        """Grant nothing before `grants_from`, by the monotonic clock: holders reclaim leases."""
        self.locks: dict[str, Lock] = {}
        """By semaphore."""
        self.schedule = ExpirySchedule(self.locks)
        self.waiters = Waiters(max_waiters, max_all_waiters)
        self.pauses = Pauses(max_pauses)
        self.last_token = last_token
        self.monotonic = monotonic
        self.microseconds = microseconds
        self._grants_from = grants_from
        self._max_locks = max_locks

    def run_due(self) -> float:
        """Free what has expired, for the next waiters; return in how many seconds to call again."""
        now = self.monotonic()
        while (lock := self.schedule.pop_due(now)) is not None:
            self._advance(lock, now)
            self.schedule.add(lock)
        if now >= self._grants_from > EXPIRED:
            self._grants_from = EXPIRED
            for lock in list(self.locks.values()):
                self._advance(lock, now)
        soonest = self.schedule.next_check
        if self.pauses:
            if self.pauses.drop_ended(now):
                self._advance_all_waited_for(now)
            soonest = min(self.schedule.next_check, self.pauses.next_end)
        if self._grants_from > EXPIRED:
            soonest = min(soonest, self._grants_from)
        return max(0.0, soonest - self.monotonic())

    def _find(self, semaphore: str, now: float) -> Lock | None:
        """Return the lock, in its state at this time."""
        lock = self.locks.get(semaphore)
        if lock is not None and lock.expires <= now:
            self._advance(lock, now)
            lock = self.locks.get(semaphore)
        return lock

    def _held_by(self, semaphore: str, owner: str, now: float) -> Lock | None:
        lock = self.locks.get(semaphore)
        return lock if lock is not None and lock.owner == owner and lock.expires > now else None

    def _create(self, semaphore: str) -> Lock:
        """Return a new lock, which enters the table when it gets an expiry."""
        if len(self.locks) >= self._max_locks:
            raise Refused(
                f"There are {len(self.locks)} locks already, as many as --max-locks allows."
            )
        return Lock(semaphore)

    def _refuse_in_grace(self, now: float) -> None:
        if now < self._grants_from:
            raise Refused(
                "Nothing is granted after a restart without a saved table until all earlier leases "
                f"have ended or been reclaimed: {self._grants_from - now:.1f} s more."
            )

    def _grantable_from(self, semaphore: str, now: float) -> float:
        """Return from when on the semaphore may be granted, if it is free."""
        pause = self.pauses.covering(semaphore, now) if self.pauses else None
        return max(self._grants_from, EXPIRED if pause is None else pause.ends)

    def _grant(self, lock: Lock, owner: str, holder: str) -> None:
        lock.acquired_at = at = self.microseconds()
        lock.token = self.last_token = next_token(self.last_token, at)
        lock.owner, lock.holder, lock.renewed_at, lock.attempt = owner, holder, 0, 0

    def _set_expiry(self, lock: Lock, expires: float) -> None:
        lock.expires = expires
        self.locks[lock.semaphore] = lock
        self.schedule.add(lock)

    def _free(self, lock: Lock, now: float, keep: float = 0) -> None:
        """End the lease; after `keep` seconds, in which nobody gets the lock, it is free."""
        lock.owner, lock.offered = "", False
        lock.bind(None)
        if keep:
            self._set_expiry(lock, now + keep)
        else:
            lock.expires = EXPIRED
            self._advance(lock, now)

    def _advance(self, lock: Lock, now: float) -> None:
        """If the lock has expired, offer it to the next waiter, or else remove it."""
        while lock.expires <= now:
            if lock.offered and lock.queue and (waiter := lock.queue.get(lock.owner)):
                waiter.session.unresponsive = True
            lock.owner, lock.offered, lock.expires = "", False, EXPIRED
            lock.bind(None)
            if now < self._grants_from and (lock.queue or lock.token):
                return  # Its token stays known, so that its last holder can't reclaim it.
            if not lock.queue:
                if self.locks.get(lock.semaphore) is lock:
                    del self.locks[lock.semaphore]
                return
            if self.pauses and self.pauses.covering(lock.semaphore, now) is not None:
                return
            waiter = next_waiter(lock.queue)
            self._grant(lock, waiter.owner, waiter.holder)
            lock.offered = True
            self._set_expiry(lock, now + OFFER_SECONDS)
            if waiter.wake() is False:
                self.waiters.remove(lock, waiter.owner)
                lock.expires = EXPIRED

    def _advance_all_waited_for(self, now: float) -> None:
        """Offer to their next waiters all locks that may be granted again."""
        for semaphore in self.waiters.semaphores():
            if (lock := self.locks.get(semaphore)) is not None:
                self._advance(lock, now)
