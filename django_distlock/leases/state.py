"""The state of a lease: its identity, and whether it is held, released or lost."""

import os
from collections.abc import Callable
from datetime import datetime
from enum import Enum, auto
from typing import TYPE_CHECKING, Final, Protocol
from weakref import ref

from django_distlock import clocks
from django_distlock.lease import Lease
from django_distlock.records import Claim, Grant, LeaseClaim, Owner

from .deadlines import Deadlines
from .request import Request

TAKEN: Final = "its store no longer has it: it expired there, or an operator took it away"


class Status(Enum):
    """Whether a lease is held, released or lost."""

    HELD = auto()
    DEFERRED = auto()
    """Released by its holder; the store releases it when the open transactions have ended."""
    RELEASED = auto()
    LOST = auto()
    UNRELEASED = auto()
    """Its release failed or was interrupted: it is not renewed, and ends with its ttl."""
    UNKNOWN = auto()
    """UNRELEASED, but the store did not answer: the release may have been carried out."""


class Registry(Protocol):
    """Where the leases of one thread or task are found by name."""

    @property
    def pid(self) -> int: ...
    @property
    def ref(self) -> "Callable[[], Registry | None]":
        """A weak reference to it."""
        ...

    def find(self, backend: str, semaphore: str) -> "LeaseState | None": ...
    def remove(self, lease: "LeaseState") -> None: ...
    def add_unreleased(self, lease: "LeaseState") -> None: ...


class LeaseState(Deadlines, Lease):
    """A lease without its actions, which OwnedLease and the ways to release one have."""

    __slots__ = (
        "__weakref__",
        "_connection",
        "_end_unclaimed",
        "_loss_reason",
        "acquired_at",
        "backend",
        "committed",
        "holder",
        "owner",
        "pid",
        "reentries",
        "registry",
        "renewed",
        "semaphore",
        "status",
        "template",
        "token",
        "waited",
    )

    # What a Lease shows.
    semaphore: str
    backend: str
    template: str
    holder: str
    token: int | None
    acquired_at: datetime
    waited: float

    owner: Owner
    """The secret by which the store knows it."""
    pid: int
    """The process that acquired it."""
    registry: Callable[[], Registry | None]
    """A weak reference to that of the thread or task that acquired it."""
    reentries: int
    """How often it was acquired again by reentrant=True, and not released since."""
    renewed: bool
    """Whether it is renewed in the background."""
    committed: bool
    """Whether a transaction was committed under it."""

    def __init__(self, request: Request, grant: Grant, sent: float, registry: Registry) -> None:
        self.token, self.acquired_at, expires_at = grant
        super().__init__(request.ttl, request.min_hold, request.max_hold, sent, expires_at)
        self.waited = self._granted_at - request.began
        self.backend = request.backend
        self.semaphore = request.semaphore
        self.owner = request.owner
        self.holder = request.holder
        self.template = request.template
        self.pid = registry.pid
        self.registry = registry.ref
        self.reentries = 0
        self.renewed = request.renewed
        self.committed = False
        self.status = Status.HELD
        self._loss_reason = ""
        self._connection = None if request.connection is None else ref(request.connection)
        # Last: without it, the construction was interrupted.
        self._end_unclaimed = [True]

    @property
    def held(self) -> bool:
        """See Lease.held."""
        return (
            self.status in (Status.HELD, Status.UNRELEASED)
            and bool(self._end_unclaimed)
            and self.remaining > 0
            and self.pid == os.getpid()
        )

    @property
    def released(self) -> bool:
        """Whether its holder released it. The store may do so only after open transactions."""
        return self.status in (Status.DEFERRED, Status.RELEASED)

    @property
    def lost(self) -> bool:
        """Whether it is known to be lost. One that has expired may turn out to be."""
        return self.status is Status.LOST

    @property
    def is_unreleased(self) -> bool:
        """Whether its release failed or was interrupted: see Status."""
        return self.status in (Status.UNRELEASED, Status.UNKNOWN)

    def claim_end(self) -> bool:
        """Claim the right to end this lease. Return False if another thread already has.

        A list's pop() is one step: no thread, finalizer or signal handler comes in between.
        """
        try:
            return self._end_unclaimed.pop()
        except IndexError:
            return False

    def return_claim(self) -> None:
        """Let another attempt end the lease: this one failed."""
        self._end_unclaimed.append(True)

    def mark_unknown(self) -> None:
        """Record that a release may have been carried out. A deferred one stays deferred."""
        if self.status is not Status.DEFERRED:
            self.status = Status.UNKNOWN

    def record_release(self) -> None:
        """Set the status to RELEASED."""
        self._ended_at = clocks.monotonic()
        self.status = Status.RELEASED

    def record_loss(self) -> str:
        """Set the status to LOST; return the reason."""
        self._ended_at = clocks.monotonic()
        self._loss_reason = TAKEN if self.remaining else self.describe_end()
        self.status = Status.LOST
        return self._loss_reason

    def describe_status(self) -> str:
        """Return a verb phrase for messages."""
        if self.pid != os.getpid():
            return f"is process {self.pid}'s, which has forked this one"
        if self.released:
            return "was released"
        if self.lost:
            return f"was lost: {self._loss_reason}"
        if self.status is Status.UNKNOWN:
            return "may have been released: the store did not answer"
        if not self._end_unclaimed:
            return "is being released, or lost"
        return "is held" if self.held else f"expired: {self.describe_end()}"

    def claim(self, now: float) -> Claim:
        """Return the claim for a renewal."""
        ttl = self.ttl_from(now)
        return self if ttl == self.ttl else self.as_claim()._replace(ttl=ttl)

    def as_claim(self) -> LeaseClaim:
        """Return all that the store needs to know, without a reference to this object."""
        return LeaseClaim(
            self.semaphore, self.owner, self.ttl, self.token, self.holder, self.remaining
        )

    @property
    def may_be_rolled_back(self) -> bool:
        """Whether it was acquired on the caller's connection, maybe in a transaction."""
        return self._connection is not None

    def would_disturb_transaction(self) -> bool:
        """Tell whether a renewal now could break a transaction of the code that acquired it.

        On SQLite a transaction that has read can't write any more when another connection has
        written. An urgent renewal is made nevertheless.
        """
        connection = None if self._connection is None else self._connection()
        return connection is not None and connection.in_atomic_block and not self.is_urgent

    def log_fields(self, **more: object) -> dict[str, object]:
        """Return the fields of a log line about it, for `extra`."""
        return {
            "semaphore": self.semaphore,
            "backend": self.backend,
            "token": self.token,
            "holder": self.holder,
            **more,
        }

    def limit_reentries(self, to: int) -> None:
        """Count the reentries beyond this number as released."""
        self.reentries = max(0, min(self.reentries, to))

    def __str__(self) -> str:
        return f"The lease on {self.semaphore!r}"


if TYPE_CHECKING:

    def _lease_is_a_claim(lease: LeaseState) -> Claim:
        return lease
