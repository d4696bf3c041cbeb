"""The values that stores and the rest of the package exchange."""

from dataclasses import dataclass
from datetime import datetime
from enum import Enum, IntEnum, StrEnum, auto
from typing import Final, NamedTuple, Protocol


class Owner(str):
    """The secret that identifies an acquisition: with it, the lock can be released.

    Its repr hides it from logs and error pages.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return "<owner>"


class LockState(StrEnum):
    """The state of a listed lock; `stale` means expired and never released."""

    HELD = "held"
    STALE = "stale"
    RELEASED = "released"


class Claim(Protocol):
    """A lease as it is passed to a store: semaphore, owner, and ttl in seconds."""

    @property
    def semaphore(self) -> str: ...
    @property
    def owner(self) -> str: ...
    @property
    def ttl(self) -> float | None: ...
    @property
    def token(self) -> int | None:
        """The fencing token of its grant; None if it isn't known, or the store has none."""
        ...

    @property
    def holder(self) -> str: ...
    @property
    def remaining(self) -> float:
        """Seconds that it lasts at least, by the holder's clock."""
        ...


class LeaseClaim(NamedTuple):
    """A claim of plain values, as for a renewal with another ttl than the lease's own."""

    semaphore: str
    owner: str
    ttl: float | None
    token: int | None = None
    holder: str = ""
    remaining: float = 0


class Grant(NamedTuple):
    """A store's answer to a successful attempt; the times are by the store's clock."""

    token: int | None
    acquired_at: datetime
    expires_at: datetime | None


class RenewalOutcome(Enum):
    """The result of a renewal for one lease."""

    RENEWED = auto()
    HELD = auto()
    """Still held, but not renewed now: it ends when it would have ended."""
    LOST = auto()


class Renewal(NamedTuple):
    """A store's answer to a renewal of one lease.

    `expires_at` is by the store's clock. If the lease is only HELD, `reason` says why, for people.
    """

    outcome: RenewalOutcome
    expires_at: datetime | None = None
    reason: str = ""

    @property
    def renewed(self) -> bool:
        """Whether the lease ends its ttl from now."""
        return self.outcome is RenewalOutcome.RENEWED

    @property
    def lost(self) -> bool:
        """Whether the lease is not this owner's any more."""
        return self.outcome is RenewalOutcome.LOST


LOST: Final = Renewal(RenewalOutcome.LOST)


class Released(IntEnum):
    """A store's answer to a release; false if the owner did not hold the lock."""

    NOT_HELD = 0
    FREED = 1
    HANDED_OVER = 2
    """Released, and offered to the next waiter: most likely, another owner holds it now."""


class Place(Protocol):
    """A waiter's place in a store's queue, as join() returns it and leave() takes it."""

    @property
    def patience(self) -> float:
        """Seconds after which to try again, unless woken."""
        ...

    @property
    def outlasts_failures(self) -> bool:
        """Whether the wait goes on when an attempt finds the store unavailable."""
        ...

    def check(self) -> None:
        """Raise LockBackendUnavailable if the store is known to be unreachable."""
        ...


@dataclass(frozen=True, slots=True)
class LockInfo:
    """A lock as a store lists it for people, without its owner."""

    semaphore: str
    state: LockState
    token: int | None
    holder: str
    acquired_at: datetime | None
    expires_at: datetime | None
    seen_at: datetime
    """The store's time when it was listed."""
