"""The lock table: all locks that one process keeps in its memory, and their waiters.

Nothing here waits or knows of connections: MemoryBackend calls it from threads, one at a time, and
a lock server from its event loop. Leases expire by this machine's monotonic clock; tokens, and the
times that people read, are by its wall clock.
"""

import math
from collections.abc import Callable

from django_distlock.records import Released

from .locks import EXPIRED, Lock, LockDescription, LockSnapshot, Session, Waiter
from .pauses import PauseSnapshot, TablePause
from .tokens import check_token
from .transitions import LockTransitions


class LockTable(LockTransitions):
    """All locks of a process, and what can be asked of them.

    A release may come in the middle of any call in the same thread, when the garbage collector
    finalizes a lease. So no call leaves two changes that belong together half done, iteration is
    over copies, and a release or renewal by a former owner changes nothing.
    """

    def __len__(self) -> int:
        return len(self.locks)

    @property
    def grace(self) -> float:
        """Seconds for which nothing is granted yet."""
        return max(0.0, self._grants_from - self.monotonic())

    def acquire(
        self,
        semaphore: str,
        owner: str,
        ttl: float,
        holder: str,
        session: Session | None = None,
        attempt: int = 0,
    ) -> Lock | None:
        """Return the lock if this owner gets it, or has it already.

        None if another owner has it, or it is paused: refusal() says which. The lease also ends
        with the session, if one is given. Refused if the table can't grant it. An owner numbers its
        attempts in their order: see release().
        """
        now = self.monotonic()
        if self.schedule.next_check <= now:
            self.run_due()
        lock = self._find(semaphore, now)
        if lock is not None and lock.queue and (waiter := lock.queue.get(owner)):
            waiter.session.unresponsive = False
        if lock is not None and lock.expires > now:
            if lock.owner != owner:
                return None
            if lock.offered:
                self.waiters.remove(lock, owner)
                lock.offered = False
            lock.holder = holder
        else:
            self._refuse_in_grace(now)
            if self.pauses and self.pauses.covering(semaphore, now) is not None:
                return None
            lock = self._create(semaphore)  # nobody waits for it, or it would have been offered
            self._grant(lock, owner, holder)
        lock.attempt = max(lock.attempt, attempt)
        self._set_expiry(lock, now + ttl)
        lock.bind(session)
        return lock

    def renew(
        self,
        semaphore: str,
        owner: str,
        ttl: float,
        session: Session | None = None,
        at: int | None = None,
    ) -> bool:
        """Renew the lease for `ttl` seconds from now; False if the lock isn't this owner's.

        Leases that are renewed together share the time `at`, by the wall clock: one int, not many.
        """
        now, renewed_at = self.monotonic(), self.microseconds() if at is None else at
        lock = self._held_by(semaphore, owner, now)
        if lock is None:
            return False
        lock.expires = now + ttl  # at once: a release from here on must not be undone
        lock.renewed_at = renewed_at
        self.schedule.add(lock)
        lock.bind(session)
        return True

    def reclaim(self, lease: LockSnapshot, session: Session | None = None) -> bool:
        """Restore a lease that its holder says was granted before this table was there.

        Return False if locks are granted by now, or if a lease with this token or a higher one is
        known: held, or released since. FutureToken if nobody can have been granted the token: all
        later ones would have to exceed it, and those leases couldn't be reclaimed.
        """
        now = self.monotonic()
        lock = self._find(lease.semaphore, now)
        if now >= self._grants_from or (lock and lock.token >= lease.token):
            return False
        check_token(lease.token, renewed_at := self.microseconds())
        self.last_token = max(self.last_token, lease.token)
        if lock is None:
            lock = self._create(lease.semaphore)
        lock.bind(session)
        lock.owner, lock.token, lock.holder = lease.owner, lease.token, lease.holder
        lock.acquired_at, lock.renewed_at = lease.acquired_at, renewed_at
        self._set_expiry(lock, now + lease.remaining)
        return True

    def release(
        self, semaphore: str, owner: str, keep: float = 0, attempt: float = math.inf
    ) -> Released:
        """Free the lock if it is this owner's; nobody gets it for the next `keep` seconds.

        To undo an `attempt` changes nothing once a later one was granted: its owner relies on that,
        and the undoing may arrive late, from a connection that has been given up since.
        """
        now = self.monotonic()
        lock = self._held_by(semaphore, owner, now)
        if lock is None or lock.attempt > attempt:
            return Released.NOT_HELD
        self.waiters.remove(lock, owner)  # an owner that releases an offer waits no longer
        self._free(lock, now, keep)
        return Released.HANDED_OVER if lock.offered else Released.FREED

    def force_release(self, semaphore: str, token: int) -> bool:
        """Free the lock if it is held, or kept, with this token."""
        now = self.monotonic()
        lock = self._find(semaphore, now)
        if lock is None or lock.expires <= now or lock.token != token:
            return False
        self._free(lock, now)
        return True

    def join(
        self,
        semaphore: str,
        owner: str,
        holder: str,
        wake: Callable[[], object],
        session: Session | None = None,
    ) -> float:
        """Put this owner at the end of the lock's queue; return the seconds until it expires,
        or may be granted again.

        When its turn comes, the lock is granted to it for OFFER_SECONDS, in which it has to call
        acquire(), and `wake` is called; if that returns False, the waiter is gone. An owner that
        joins again keeps its place.
        """
        now, since = self.monotonic(), self.microseconds()
        lock = self._find(semaphore, now) or self._create(semaphore)
        waiter = Waiter(owner, holder, wake, session or Session(), since)
        self.waiters.add(lock, waiter)
        waiter.session.unresponsive = False
        if lock.offered and lock.owner == owner:
            wake()  # it may have missed the offer
        elif now < self._grantable_from(semaphore, now):
            self.locks[semaphore] = lock
        self._advance(lock, now)
        return max(lock.expires, self._grantable_from(semaphore, now), now) - now

    def leave(self, semaphore: str, owner: str) -> None:
        """Remove this owner from the lock's queue; what it was only offered goes to the next."""
        lock = self.locks.get(semaphore)
        if lock is None:
            return
        now = self.monotonic()
        self.waiters.remove(lock, owner)
        if lock.offered and lock.owner == owner:
            self._free(lock, now)
        else:
            self._advance(lock, now)

    def end_session(self, session: Session) -> None:
        """Remove the session's waiters, and end the leases that are bound to it."""
        now = self.monotonic()
        leaving = sorted(session.waiting)  # the same order in each simulated run
        # All are removed first, or else one would be offered the lock that another one leaves.
        for semaphore, owner in leaving:
            self.waiters.remove(self.locks[semaphore], owner)
        for semaphore, owner in leaving:
            self.leave(semaphore, owner)
        for lock in list(session.bound.values()):
            if lock.session is session:
                self._free(lock, now)

    def pause(self, prefix: str, seconds: float, reason: str, by: str) -> PauseSnapshot:
        """Grant no semaphore with this prefix for so many seconds; withdraw what is offered."""
        now, since = self.monotonic(), self.microseconds()
        self.pauses.drop_ended(now)
        pause = TablePause(prefix, since, now + seconds, reason, by)
        self.pauses.add(pause)
        self._advance_all_waited_for(now)
        for semaphore in self.waiters.semaphores():
            lock = self.locks.get(semaphore)
            if lock is not None and lock.offered and semaphore.startswith(prefix):
                lock.owner, lock.offered, lock.expires = "", False, EXPIRED
        return pause.snapshot(now)

    def resume(self, prefix: str) -> bool:
        """End the pause of this prefix; return whether there was one."""
        now = self.monotonic()
        self.pauses.drop_ended(now)
        found = self.pauses.remove(prefix)
        self._advance_all_waited_for(now)
        return found

    def clear(self) -> None:
        """End all pauses, take all locks from their holders, and offer them to their waiters."""
        now = self.monotonic()
        self.pauses.clear()
        self._advance_all_waited_for(now)
        for lock in list(self.locks.values()):
            if lock.expires > now and not lock.offered:
                self._free(lock, now)

    def remaining(self, semaphore: str) -> float:
        """Return in how many seconds the lock expires, unless it is renewed, or may be granted."""
        now = self.monotonic()
        lock = self._find(semaphore, now)
        if lock is None:
            return 0.0
        return max(lock.expires, self._grantable_from(semaphore, now)) - now

    def names(self, prefix: str = "") -> list[str]:
        """Return the semaphores that begin with this and are held or kept, in no order."""
        now = self.monotonic()
        held = [lock.semaphore for lock in list(self.locks.values()) if lock.expires > now]
        return [name for name in held if name.startswith(prefix)]

    def is_held_by(self, semaphore: str, owner: str) -> bool:
        """Return whether the lock is this owner's."""
        return self._held_by(semaphore, owner, self.monotonic()) is not None

    def describe(self, names: list[str]) -> list[LockDescription]:
        """Return those of these locks that are held or kept."""
        now = self.monotonic()
        locks = [lock.describe(now) for name in names if (lock := self._find(name, now))]
        return [lock for lock in locks if lock.remaining > 0]

    def refusal(self, semaphore: str) -> LockDescription | PauseSnapshot | None:
        """Return why the semaphore isn't granted; None if it may be by now."""
        now = self.monotonic()
        lock = self._find(semaphore, now)
        if lock is not None and (held := lock.describe(now)).remaining > 0:
            return held
        pause = self.pauses.covering(semaphore, now)
        return None if pause is None else pause.snapshot(now)

    def waiting(self, semaphore: str) -> list[Waiter]:
        """Return the waiters, first come first, without the one that the lock is offered to."""
        lock = self.locks.get(semaphore)
        if lock is None or not lock.queue:
            return []
        return [each for each in list(lock.queue.values()) if each.owner != lock.owner]

    def save(self) -> list[LockSnapshot]:
        """Return all locks that are held or kept, without those that are only offered."""
        now = self.monotonic()
        taken = [lock for lock in list(self.locks.values()) if not lock.offered]
        return [saved for lock in taken if (saved := lock.snapshot(now)).remaining > 0]

    def load(self, saved: list[LockSnapshot], elapsed: float = 0) -> None:
        """Restore locks that were saved so many seconds ago."""
        now = self.monotonic()
        for each in saved:
            lock = Lock(each.semaphore)
            lock.owner, lock.token, lock.holder = each.owner, each.token, each.holder
            lock.acquired_at, lock.renewed_at = each.acquired_at, each.renewed_at
            self.last_token = max(self.last_token, lock.token)
            if each.remaining > elapsed:
                self._set_expiry(lock, now + each.remaining - elapsed)

    def pauses_in_force(self) -> list[PauseSnapshot]:
        """Return the pauses in force, in the order of their prefixes."""
        return self.pauses.snapshots(self.monotonic())

    def load_pauses(self, saved: list[PauseSnapshot], elapsed: float = 0) -> None:
        """Restore pauses that were saved so many seconds ago."""
        now = self.monotonic()
        for prefix, since, remaining, reason, by in saved:
            if remaining > elapsed:
                self.pauses.add(TablePause(prefix, since, now + remaining - elapsed, reason, by))
