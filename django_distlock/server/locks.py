"""The state of one lock, its waiters, and the session that a lease may be bound to."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections import OrderedDict

EXPIRED: Final = -math.inf
"""The expiry of a lock that nobody holds."""


class LockDescription(NamedTuple):
    """A lock at one moment, as everybody may see it."""

    semaphore: str
    token: int
    holder: str
    acquired_at: int
    remaining: float
    """Seconds until it expires."""
    renewed_at: int
    """Like `acquired_at`, in microseconds since the epoch by the wall clock; 0 if never renewed."""
    kept: bool
    """Whether it was released, and is only kept from others for a while."""
    waiting: int
    """How many wait for it, beside the one that it is offered to."""


class LockSnapshot(NamedTuple):
    """A lock at one moment, with its owner: to be saved, or reclaimed by its holder."""

    semaphore: str
    owner: str
    token: int
    holder: str
    acquired_at: int
    remaining: float
    renewed_at: int = 0

    def __repr__(self) -> str:
        """Leave the owner out: it is a secret that can release the lock."""
        return f"<lock on {self.semaphore!r}, token {self.token}, of {self.holder!r}>"


class Session:
    """A client process: when it ends, it waits for nothing more, and its bound leases end."""

    __slots__ = ("bound", "unresponsive", "waiting")

    def __init__(self) -> None:
        self.bound: dict[str, Lock] = {}
        """Locks whose lease ends with the session, by semaphore."""
        self.waiting: set[tuple[str, str]] = set()
        """Its waiters, by semaphore and owner."""
        self.unresponsive = False
        """Whether it let an offer expire, and has made no request for a lock since."""


class Waiter(NamedTuple):
    """A place in a lock's queue."""

    owner: str
    holder: str
    wake: Callable[[], object]
    session: Session
    since: int
    """Microseconds since the epoch, by the wall clock."""

    def __repr__(self) -> str:
        """Leave the owner out. See LockSnapshot."""
        return f"<waiter {self.holder!r}>"


class Lock:
    """A lock that is held, kept, offered, or only waited for.

    Kept: nobody holds it, and nobody gets it for a while (`min_hold`).
    """

    __slots__ = (
        "acquired_at",
        "attempt",
        "expires",
        "holder",
        "next_check",
        "offered",
        "owner",
        "queue",
        "renewed_at",
        "semaphore",
        "session",
        "token",
    )

    def __init__(self, semaphore: str) -> None:
        self.semaphore = semaphore
        self.owner = ""
        """Empty for a lock that is kept."""
        self.token = 0
        self.holder = ""
        self.acquired_at = 0
        """Microseconds since the epoch, by the wall clock."""
        self.attempt = 0
        """The latest of its owner's attempts that were granted. See LockTable.release()."""
        self.renewed_at = 0
        """Likewise; 0 if it was not renewed."""
        self.expires = EXPIRED
        """By the monotonic clock."""
        self.next_check = math.inf
        """When the schedule looks at it next: not later than it expires."""
        self.offered = False
        """Whether its owner still waits, and has to take the lock by acquiring it."""
        self.session: Session | None = None
        """The session with which its lease ends."""
        self.queue: OrderedDict[str, Waiter] | None = None
        """Waiters by owner, first come first."""

    def bind(self, session: Session | None) -> None:
        """Bind the lease to this session, and to no other."""
        earlier = self.session
        if earlier is session:
            return
        if earlier is not None:
            earlier.bound.pop(self.semaphore, None)
        self.session = session
        if session is not None:
            session.bound[self.semaphore] = self

    def describe(self, now: float) -> LockDescription:
        """Return the lock as it is now, for everybody."""
        return LockDescription(
            self.semaphore,
            self.token,
            self.holder,
            self.acquired_at,
            self.expires - now,
            self.renewed_at,
            not self.owner,
            len(self.queue) - self.offered if self.queue else 0,
        )

    def snapshot(self, now: float) -> LockSnapshot:
        """Return the lock as it is now, with its owner."""
        return LockSnapshot(
            self.semaphore,
            self.owner,
            self.token,
            self.holder,
            self.acquired_at,
            self.expires - now,
            self.renewed_at,
        )
