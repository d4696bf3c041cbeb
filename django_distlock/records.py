"""What a store and the rest of the package exchange."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple, Protocol


class Owner(str):
    """A secret that whoever has it can release the lock by: shown to nobody by accident."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "<owner>"


class LockState(StrEnum):
    """What a lock that a store lists is: `stale` means expired and never released."""

    HELD = "held"
    STALE = "stale"
    RELEASED = "released"


class Claim(Protocol):
    """By what a store knows a lease: who has which semaphore, for how many seconds."""

    @property
    def semaphore(self) -> str: ...
    @property
    def owner(self) -> str: ...
    @property
    def ttl(self) -> float | None: ...
    @property
    def token(self) -> int | None:
        """What it was granted with; None if that isn't known, or the store has none."""
        ...

    @property
    def holder(self) -> str: ...
    @property
    def remaining(self) -> float:
        """Seconds for which it is in force by the holder's clock, at least."""
        ...


class LeaseClaim(NamedTuple):
    """A claim of plain values, as of a lease that is renewed for another time than its own ttl."""

    semaphore: str
    owner: str
    ttl: float | None
    token: int | None = None
    holder: str = ""
    remaining: float = 0


class Grant(NamedTuple):
    """What a store answers to who gets the lock; the times are by the store's clock."""

    token: int | None
    acquired_at: datetime
    expires_at: datetime | None


class Renewal(NamedTuple):
    """What a store answers of a lease that is still held, and was renewed if it could be just now.

    `expires_at` is by the store's clock. The `reason` is why it wasn't renewed, for people.
    """

    renewed: bool
    expires_at: datetime | None
    reason: str = ""


class Place(Protocol):
    """A waiter's place in a store's queue."""

    @property
    def patience(self) -> float:
        """Seconds after which to try again, unless woken."""
        ...

    @property
    def outlasts_failures(self) -> bool:
        """Whether a try that finds the store unavailable doesn't end the wait before its time."""
        ...

    def check(self) -> None:
        """Raise LockBackendUnavailable if it is known that the store can't be asked."""
        ...

    def leave(self, *, granted: bool) -> None:
        """Wait no more: having been granted the lock, or having given up."""
        ...


@dataclass(frozen=True, slots=True)
class LockInfo:
    """A lock as a store lists it, for people: all but the owner."""

    semaphore: str
    state: LockState
    token: int | None
    holder: str
    acquired_at: datetime | None
    expires_at: datetime | None
    seen_at: datetime
    """The store's time when it was listed."""
