"""The values that stores and the rest of the package exchange."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, IntEnum, StrEnum, auto
from typing import Final, Literal, NamedTuple, Protocol, TypedDict

__all__ = [
    "KEPT", "LOST", "REFUSED", "Claim", "EventKind", "Grant", "LockInfo", "LockPage", "LockQuery",
    "LockState", "Pause", "Place", "Refusal", "Released", "Renewal", "RenewalOutcome",
    "SearchScope", "ServerStatus", "WaiterInfo",
]  # fmt: skip


class Owner(str):
    """The secret that identifies an acquisition: with it, the lock can be released.

    Its repr hides it from logs and error pages.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return "<owner>"

    def __sentry_repr__(self) -> str:
        """Hide it from Sentry, which sends a text among a query's parameters as it is."""
        return repr(self)


class LockState(StrEnum):
    """The state of a listed lock. `stale` means that it expired and was never released."""

    HELD = "held"
    STALE = "stale"
    RELEASED = "released"


class EventKind(StrEnum):
    """What happened to a lock, in its history."""

    ACQUIRED = "acquired"
    RELEASED = "released"
    LOST = "lost"
    CONTENDED = "contended"
    FORCE_RELEASED = "force_released"


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

    @property
    def holder(self) -> str: ...
    @property
    def remaining(self) -> float:
        """Seconds that it lasts at least, by the holder's clock."""


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


@dataclass(frozen=True, slots=True)
class Refusal:
    """A store's answer to an attempt that was refused. It is false, and a grant is true.

    It tells of the holder what the store knew without another round trip. The times are by the
    store's clock. If nobody holds the lock, `reason` says why it isn't granted.
    """

    holder: str = ""
    acquired_at: datetime | None = None
    expires_at: datetime | None = None
    seen_at: datetime | None = None
    """The store's time at the refusal; None if it told nothing."""
    reason: str = ""

    def __bool__(self) -> Literal[False]:
        return False

    @property
    def held_for(self) -> float | None:
        """Seconds since the grant; None if that isn't known."""
        if self.seen_at is None or self.acquired_at is None:
            return None
        return (self.seen_at - self.acquired_at).total_seconds()

    @property
    def remaining(self) -> float | None:
        """Seconds until the end of the lease or pause; None if that isn't known, or has none."""
        if self.seen_at is None or self.expires_at is None:
            return None
        return (self.expires_at - self.seen_at).total_seconds()


REFUSED: Final = Refusal()
"""The answer of a store that tells nothing of the holder."""
KEPT: Final = "released, but kept from others for a while (min_hold)"
"""The `reason` of a refusal while only `min_hold` keeps others out."""


class RenewalOutcome(Enum):
    """The result of a renewal for one lease."""

    RENEWED = auto()
    HELD = auto()
    """It is still held, but was not renewed: its end is the old one."""
    LOST = auto()


class Renewal(NamedTuple):
    """A store's answer to a renewal of one lease.

    `expires_at` is by the store's clock. With `RenewalOutcome.HELD`, `reason` says why.
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
"""The answer for a lease that is lost."""


class Released(IntEnum):
    """A store's answer to a release. It is false if the owner did not hold the lock."""

    NOT_HELD = 0
    FREED = 1
    HANDED_OVER = 2
    """It was released and offered to the next waiter, so another owner probably holds it now."""


class Place(Protocol):
    """A waiter's place in a store's queue: what `join()` returns and `leave()` takes."""

    @property
    def patience(self) -> float:
        """Seconds after which to try again, unless woken."""

    @property
    def outlasts_failures(self) -> bool:
        """Whether the wait goes on when an attempt finds the store unavailable."""

    def check(self) -> None:
        """Raise `LockBackendUnavailable` if the store is known to be unreachable."""


LABELLED: Final = re.compile(r"(.+?) \((\S+ pid \d+ .*)\)", re.DOTALL)
"""The text for a holder with a label, as describe_holder() writes it."""


@dataclass(frozen=True, slots=True)
class LockInfo:
    """A lock as a store lists it for people, without its owner."""

    semaphore: str
    state: LockState
    token: int | None
    holder: str
    """Its label, if it gave one, then its host, process, and thread or task."""
    acquired_at: datetime | None
    expires_at: datetime | None
    seen_at: datetime
    """The store's time when it was listed."""
    renewed_at: datetime | None = None
    """The last renewal; None if there was none, or the store doesn't know."""
    kept: bool = False
    """Whether its holder released it, and only `min_hold` keeps it from others."""
    waiting: int | None = None
    """How many waiters the store's queue has for it; None if the store has no queue to ask."""

    @property
    def label(self) -> str:
        """The label that the holder gave, or an empty text."""
        found = LABELLED.fullmatch(self.holder)
        return found[1] if found else ""

    @property
    def process(self) -> str:
        """The holder without its label: host, process, and thread or task."""
        found = LABELLED.fullmatch(self.holder)
        return found[2] if found else self.holder


class WaiterInfo(NamedTuple):
    """A waiter in a store's queue, as it is listed for people."""

    holder: str
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class LockQuery:
    """What to list: locks whose semaphore begins with `prefix`, a page of `limit` of them."""

    prefix: str = ""
    search: str = ""
    """A text in the semaphore or the holder; upper and lower case are the same."""
    state: LockState | None = None
    """None lists held and stale locks."""
    page: int = 1
    limit: int = 100


class SearchScope(StrEnum):
    """Where a store looked for the text of `LockQuery.search`."""

    SEMAPHORE_AND_HOLDER = "any part of semaphore and holder"
    SEMAPHORE = "any part of the semaphore"
    PREFIX = "the beginning of the semaphore"


@dataclass(frozen=True, slots=True)
class LockPage:
    """The answer to a `LockQuery`, in the order of the semaphores."""

    locks: list[LockInfo]
    found: int
    """How many locks there are on all pages."""
    counts: Mapping[LockState, int]
    """How many locks there are in each state, whatever the query's state; some may be missing."""
    is_capped: bool
    """Whether there are more locks than the store looked at; the numbers are minimums then."""
    scope: SearchScope = SearchScope.SEMAPHORE_AND_HOLDER


class ServerStatus(TypedDict):
    """The counts and limits of a lock server."""

    version: int
    up: float
    """Seconds since it was started."""
    grace: float
    """Seconds for which nothing is granted, after a restart."""
    locks: int
    waiters: int
    pauses: int
    connections: int
    processes: int
    limits: dict[str, float]


class Pause(NamedTuple):
    """A pause: nothing is granted whose semaphore begins with `prefix`. By the store's clock."""

    prefix: str
    since: datetime
    until: datetime | None
    """None if it lasts until it is resumed."""
    reason: str = ""
    by: str = ""
    """The operator, for people."""

    @property
    def refusal(self) -> str:
        """The reason of a refusal, for people."""
        return f"paused: {self.reason}" if self.reason else "paused"
