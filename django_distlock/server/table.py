"""The locks that one process keeps in its memory, and who waits for them.

Nothing here waits or knows of connections: MemoryBackend asks it from threads, one at a time, and a
lock server from its event loop. Leases end by this machine's monotonic clock; tokens, and what
people read, are by its wall clock.
"""

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from enum import IntEnum
from heapq import heappop, heappush
from typing import Final, NamedTuple

from django_distlock import clocks

OFFER: Final = 1.0
"""Seconds in which the first who waits has to take the lock that is free."""
SLACK: Final = 1_000
HOARDED: Final = 1 / 8
"""How many ends that don't count any more are kept, at most, and so many more for each lock."""
GONE: Final = -math.inf
DAY: Final = 86_400_000_000
"""Microseconds that a token from outside may be beyond the clock: clocks are set now and then."""


class Refused(Exception):
    """The table grants nothing of this at the moment, whoever has the lock: it is no answer."""


class FutureToken(Refused):
    """A token can't have been granted: it is too far beyond the clock."""


class Release(IntEnum):
    """What became of a lease that was to be released."""

    LOST = 0
    RELEASED = 1
    HANDED_OVER = 2
    """Released, and offered to who has waited longest."""


class Described(NamedTuple):
    """A lock, for people, and for whoever keeps it elsewhere; `left` is in seconds."""

    semaphore: str
    owner: str
    token: int
    holder: str
    acquired_at: int
    left: float

    def __repr__(self) -> str:
        """Leave the owner out: who has it can release the lock."""
        return f"<lock on {self.semaphore!r}, token {self.token}, of {self.holder!r}>"


class Party:
    """A process, say: all that it waits for may end with it, and what it holds so."""

    __slots__ = ("bound", "silent", "waiting")

    def __init__(self) -> None:
        self.bound: dict[str, Lock] = {}
        self.waiting: set[tuple[str, str]] = set()
        self.silent = False
        """Whether it let an offer pass, and hasn't been heard of since."""


class Waiter(NamedTuple):
    """Who waits for a lock."""

    owner: str
    holder: str
    wake: Callable[[], object]
    party: Party

    def __repr__(self) -> str:
        """Leave the owner out. See Described."""
        return f"<waiter {self.holder!r}>"


class Lock:
    """A lock that is held, kept from everybody, offered, or only waited for."""

    __slots__ = (
        "acquired_at",
        "due",
        "ends",
        "holder",
        "offered",
        "owner",
        "party",
        "queue",
        "semaphore",
        "token",
    )

    def __init__(self, semaphore: str) -> None:
        self.semaphore = semaphore
        self.owner = ""
        """Whose it is; nobody's, if it was released to be kept from others for a while."""
        self.token = 0
        self.holder = ""
        self.acquired_at = 0
        """In microseconds since the epoch, by the wall clock."""
        self.ends = GONE
        """When it is free, by the monotonic clock."""
        self.due = math.inf
        """When it is looked at next; not later than it ends."""
        self.offered = False
        """Whether its owner still waits, and has to take it."""
        self.party: Party | None = None
        """With whom its lease ends."""
        self.queue: OrderedDict[str, Waiter] | None = None
        """Who waits, by owner, in the order in which they came."""


class LockTable:
    """All locks of a process.

    Whatever a lock's end, no one overtakes who waits for it: what has ended is the next one's
    before anybody else is granted it. A lock without a holder is not in the table, but for those
    that are waited for while nothing may be granted yet.

    A release may come in the midst of any call in the same thread, from what the garbage collector
    finalizes: so each call leaves nothing half done between two changes that belong together, and
    reads copies; and who releases or renews what it has lost changes nothing.
    """

    def __init__(
        self,
        *,
        grants_from: float = GONE,
        last_token: int = 0,
        max_locks: float = math.inf,
        max_waiters: float = math.inf,
        max_all_waiters: float = math.inf,
        monotonic: Callable[[], float] = clocks.monotonic,
        microseconds: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        """Grant nothing before `grants_from`, by the monotonic clock: holders reclaim theirs."""
        self.last_token = last_token
        self._grants_from = grants_from
        self._max_locks = max_locks
        self._max_waiters = max_waiters
        self._max_all_waiters = max_all_waiters
        self.monotonic = monotonic
        self.microseconds = microseconds
        self.locks: dict[str, Lock] = {}
        """By semaphore."""
        self.schedule: list[tuple[float, str]] = []
        """A heap of when to look at which lock; some of it doesn't count any more."""
        self._waiting: set[tuple[str, str]] = set()
        """All who wait, by semaphore and owner."""

    def __len__(self) -> int:
        return len(self.locks)

    @property
    def waiters(self) -> int:
        """How many wait."""
        return len(self._waiting)

    @property
    def grace(self) -> float:
        """Seconds for which nothing is granted yet."""
        return max(0.0, self._grants_from - self.monotonic())

    def acquire(
        self, semaphore: str, owner: str, ttl: float, holder: str, party: Party | None = None
    ) -> Lock | None:
        """Return the lock if it is this owner's from now on, or is already; else None.

        With a `party`, it is free when that ends. Refused if nothing can be granted at the moment.
        """
        now = self.monotonic()
        if self.schedule and self.schedule[0][0] <= now:
            self.run_due()
        lock = self._find(semaphore, now)
        if lock is not None and lock.ends > now:
            if lock.queue and (waiter := lock.queue.get(owner)):
                waiter.party.silent = False
            if lock.owner != owner:
                return None
            if lock.offered:
                self._forget(lock, owner)
                lock.offered = False
            lock.holder = holder
        else:
            self._refuse_in_grace(now)
            lock = self._new(semaphore)  # what is waited for is offered to somebody
            self._grant(lock, owner, holder)
        self._let_end(lock, now + ttl)
        _bind(lock, party)
        return lock

    def renew(self, semaphore: str, owner: str, ttl: float, party: Party | None = None) -> bool:
        """Let it end its ttl from now; False if it isn't this owner's."""
        now = self.monotonic()
        lock = self._held_by(semaphore, owner, now)
        if lock is None:
            return False
        lock.ends = now + ttl  # at once: what is released from here on is not to be put back
        self._schedule(lock)
        _bind(lock, party)
        return True

    def reclaim(self, claim: Described, party: Party | None = None) -> bool:
        """Let who says that he has held it since before this table was there hold it `left` long.

        That is so while nothing is granted, unless it is known to have been released since, or
        another one to have a higher token; False if not. FutureToken if nobody can have the token:
        it would be exceeded by all that are granted later, and these couldn't be reclaimed.
        """
        now = self.monotonic()
        lock = self._find(claim.semaphore, now)
        if now >= self._grants_from or (lock and lock.token >= claim.token):
            return False
        check_token(claim.token, self.microseconds())
        self.last_token = max(self.last_token, claim.token)
        if lock is None:
            lock = self._new(claim.semaphore)
        _bind(lock, party)
        lock.owner, lock.token, lock.holder = claim.owner, claim.token, claim.holder
        lock.acquired_at = claim.acquired_at
        self._let_end(lock, now + claim.left)
        return True

    def release(self, semaphore: str, owner: str, keep: float = 0) -> Release:
        """Free it, or keep it from everybody for so many seconds, if it is this owner's."""
        now = self.monotonic()
        lock = self._held_by(semaphore, owner, now)
        if lock is None:
            return Release.LOST
        self._forget(lock, owner)  # who gives back what it was offered doesn't wait any more
        self._free(lock, now, keep)
        return Release.HANDED_OVER if lock.offered else Release.RELEASED

    def force_release(self, semaphore: str, token: int) -> bool:
        """Free it if this is the token of its holder, or of who kept it from others."""
        now = self.monotonic()
        lock = self._find(semaphore, now)
        if lock is None or lock.ends <= now or lock.token != token:
            return False
        self._free(lock, now)
        return True

    def join(
        self,
        semaphore: str,
        owner: str,
        holder: str,
        wake: Callable[[], object],
        party: Party | None = None,
    ) -> float:
        """Let this owner wait behind those who do; return the seconds until the lock ends.

        When it is his turn, it is granted to him for a moment, in which he takes it by acquiring,
        and `wake` is called; if that returns False he is not there any more. Who joins again keeps
        his place.
        """
        now = self.monotonic()
        lock = self._find(semaphore, now) or self._new(semaphore)
        if lock.queue is None:
            lock.queue = OrderedDict()
        earlier = lock.queue.get(owner)
        if earlier is not None:
            earlier.party.waiting.discard((semaphore, owner))
        elif len(lock.queue) >= self._max_waiters:
            raise Refused(f"{len(lock.queue)} wait for {semaphore!r} already, the most that may.")
        elif len(self._waiting) >= self._max_all_waiters:
            raise Refused(f"{len(self._waiting)} wait for locks already, the most that may.")
        party = party or Party()
        party.silent = False
        place = semaphore, owner
        party.waiting.add(place)
        self._waiting.add(place)
        lock.queue[owner] = Waiter(owner, holder, wake, party)
        if lock.offered and lock.owner == owner:
            wake()  # he may not have heard of it
        elif now < self._grants_from:
            self.locks[semaphore] = lock
        self._settle(lock, now)
        return max(lock.ends, self._grants_from, now) - now

    def leave(self, semaphore: str, owner: str) -> None:
        """Let this owner wait no more, nor have what it was only offered."""
        lock = self.locks.get(semaphore)
        if lock is None:
            return
        now = self.monotonic()
        self._forget(lock, owner)
        if lock.offered and lock.owner == owner:
            self._free(lock, now)
        else:
            self._settle(lock, now)

    def disband(self, party: Party) -> None:
        """Let the party wait for nothing, and end the leases that end with it."""
        now = self.monotonic()
        leaving = list(party.waiting)
        for semaphore, owner in leaving:  # first, or else one is offered what another one leaves
            self._forget(self.locks[semaphore], owner)
        for semaphore, owner in leaving:
            self.leave(semaphore, owner)
        for lock in list(party.bound.values()):
            if lock.party is party:
                self._free(lock, now)

    def clear(self) -> None:
        """Take all locks from their holders; who waits for one is offered it."""
        now = self.monotonic()
        for lock in list(self.locks.values()):
            if lock.ends > now and not lock.offered:
                self._free(lock, now)

    def left(self, semaphore: str) -> float:
        """Return in how many seconds the lock ends, unless it is renewed."""
        now = self.monotonic()
        lock = self._find(semaphore, now)
        return 0.0 if lock is None else max(lock.ends, self._grants_from) - now

    def names(self, prefix: str = "") -> list[str]:
        """Return the semaphores that begin so, in no order."""
        return [name for name in list(self.locks) if name.startswith(prefix)]

    def describe(self, names: list[str]) -> list[Described]:
        """Return what is to be said of those among these locks that are held or kept."""
        now = self.monotonic()
        locks = [_describe(lock, now) for name in names if (lock := self._find(name, now))]
        return [lock for lock in locks if lock.left > 0]

    def save(self) -> list[Described]:
        """Return all that is held or kept, without what is only offered."""
        now = self.monotonic()
        taken = [lock for lock in list(self.locks.values()) if not lock.offered]
        return [saved for lock in taken if (saved := _describe(lock, now)).left > 0]

    def load(self, saved: list[Described], elapsed: float = 0) -> None:
        """Have these as they were, so many seconds ago."""
        now = self.monotonic()
        for each in saved:
            lock = Lock(each.semaphore)
            _, lock.owner, lock.token, lock.holder, lock.acquired_at, left = each
            self.last_token = max(self.last_token, lock.token)
            if left > elapsed:
                self._let_end(lock, now + left - elapsed)

    def run_due(self) -> float:
        """Let what has ended be the next one's; return in how many seconds to do so again."""
        now = self.monotonic()
        while self.schedule and self.schedule[0][0] <= now:
            due, semaphore = heappop(self.schedule)
            lock = self.locks.get(semaphore)
            if lock is None or lock.due != due:
                continue  # it has been released, or is looked at earlier
            lock.due = math.inf
            self._settle(lock, now)
            self._schedule(lock)
        if now >= self._grants_from > GONE:
            self._grants_from = GONE
            for lock in list(self.locks.values()):
                self._settle(lock, now)
        soonest = self.schedule[0][0] if self.schedule else math.inf
        if self._grants_from > GONE:
            soonest = min(soonest, self._grants_from)
        return max(0.0, soonest - self.monotonic())

    def _find(self, semaphore: str, now: float) -> Lock | None:
        """Return the lock, as it is by now."""
        lock = self.locks.get(semaphore)
        if lock is not None and lock.ends <= now:
            self._settle(lock, now)
            lock = self.locks.get(semaphore)
        return lock

    def _held_by(self, semaphore: str, owner: str, now: float) -> Lock | None:
        lock = self.locks.get(semaphore)
        return lock if lock is not None and lock.owner == owner and lock.ends > now else None

    def _new(self, semaphore: str) -> Lock:
        """Return a lock, if there is room for it: it is in the table from when it has an end."""
        if len(self.locks) >= self._max_locks:
            raise Refused(f"There are {len(self.locks)} locks already, the most that may be.")
        return Lock(semaphore)

    def _refuse_in_grace(self, now: float) -> None:
        if now < self._grants_from:
            raise Refused(
                "Nothing is granted after a restart without the table of before, until all leases "
                f"of then have ended or were reclaimed: {self._grants_from - now:.1f} s more."
            )

    def _grant(self, lock: Lock, owner: str, holder: str) -> None:
        lock.acquired_at = at = self.microseconds()
        # A token that is the time shares its number.
        lock.token = self.last_token = at if at > self.last_token else self.last_token + 1
        lock.owner, lock.holder = owner, holder

    def _free(self, lock: Lock, now: float, keep: float = 0) -> None:
        """End its lease, and let it be nobody's for so many seconds; then it is the next one's."""
        lock.owner, lock.offered = "", False
        _bind(lock, None)
        if keep:
            self._let_end(lock, now + keep)
        else:
            lock.ends = GONE
            self._settle(lock, now)

    def _settle(self, lock: Lock, now: float) -> None:
        """Offer it to the next one if it has ended; if nobody waits, it is in the table no more."""
        while lock.ends <= now:
            if lock.offered and lock.queue and (waiter := lock.queue.get(lock.owner)):
                waiter.party.silent = True
            lock.owner, lock.offered, lock.ends = "", False, GONE
            _bind(lock, None)
            if now < self._grants_from and (lock.queue or lock.token):
                return  # its token stays known: who had it can't reclaim it
            if not lock.queue:
                if self.locks.get(lock.semaphore) is lock:
                    del self.locks[lock.semaphore]
                return
            waiter = _next(lock.queue)
            self._grant(lock, waiter.owner, waiter.holder)
            lock.offered = True
            self._let_end(lock, now + OFFER)
            if waiter.wake() is False:
                self._forget(lock, waiter.owner)
                lock.ends = GONE

    def _let_end(self, lock: Lock, ends: float) -> None:
        lock.ends = ends
        self.locks[lock.semaphore] = lock
        self._schedule(lock)

    def _schedule(self, lock: Lock) -> None:
        """Have it looked at when it ends, or earlier: who renews it needs no other look."""
        if GONE < lock.ends < lock.due:
            lock.due = due = lock.ends
            heappush(self.schedule, (due, lock.semaphore))
            if len(self.schedule) > (1 + HOARDED) * len(self.locks) + SLACK:
                self.schedule.clear()  # and filled one by one, for what is scheduled in between
                for each in list(self.locks.values()):
                    heappush(self.schedule, (each.due, each.semaphore))

    def _forget(self, lock: Lock, owner: str) -> None:
        if lock.queue and (waiter := lock.queue.pop(owner, None)):
            place = lock.semaphore, owner
            waiter.party.waiting.discard(place)
            self._waiting.discard(place)


def check_token(token: int, now: int) -> None:
    """Raise FutureToken if it is more than a day beyond the clock, which is at `now` by then."""
    if token - now > DAY:
        raise FutureToken(
            f"the token {token} can't have been granted: it is more than a day beyond this "
            f"machine's clock, which says {now}; if that is wrong, set it"
        )


def _next(queue: OrderedDict[str, Waiter]) -> Waiter:
    """Return who has waited longest of those who are there, as far as is known."""
    first = next(iter(queue.values()))
    if not first.party.silent:
        return first
    return next((each for each in queue.values() if not each.party.silent), first)


def _bind(lock: Lock, party: Party | None) -> None:
    """Let its lease end with this party, and with no other."""
    earlier = lock.party
    if earlier is party:
        return
    if earlier is not None:
        earlier.bound.pop(lock.semaphore, None)
    lock.party = party
    if party is not None:
        party.bound[lock.semaphore] = lock


def _describe(lock: Lock, now: float) -> Described:
    return Described(
        lock.semaphore, lock.owner, lock.token, lock.holder, lock.acquired_at, lock.ends - now
    )
