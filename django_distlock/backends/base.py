"""The interface of a lock store. A mixin stands for what only some stores do."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar, Final

from django.core.checks import CheckMessage
from django.db.backends.base.base import BaseDatabaseWrapper

from django_distlock.arguments import (
    LONGEST,
    SHORTEST_TTL,
    plain,
    validate_bool,
    validate_seconds,
)
from django_distlock.exceptions import InvalidLockBackend
from django_distlock.records import Claim, Grant, Place, Refusal, Released, Renewal

from .operator_calls import OperatorCalls

__all__ = ["AsyncStore", "BaseLockBackend", "QueueingStore", "TransactionalStore"]

NO_TIME_LIMIT: Final = nullcontext()


class BaseLockBackend(OperatorCalls, ABC):
    """A lock store. It makes one attempt at a time; waiting, renewal and HTTP are not its concern.

    Each thread has an object of its own, which keeps no state of a lock. Each action is atomic in
    the store. If the store can't be reached or doesn't answer, the action raises
    `LockBackendUnavailable`, with `reply_lost=True` if it may have been carried out.

    A capability is off unless the store switches it on. A store that does more than acquire, renew
    and release adds mixins: `QueueingStore`, `TransactionalStore`, `AsyncStore`, and for operators
    `ListingStore` and `PausingStore`.
    """

    supports_fencing: ClassVar[bool] = False
    """Whether each grant has a token greater than every earlier one of that semaphore."""
    tells_holder: ClassVar[bool] = False
    """Whether a refusal always tells the holder, since when and until when."""
    supports_listing: ClassVar[bool] = False
    """Whether the store lists its locks: `ListingStore` sets this."""
    supports_unlimited_ttl: ClassVar[bool] = False
    """Whether a lease may last until it is released (`ttl=None`)."""
    shortest_ttl: ClassVar[float] = SHORTEST_TTL
    """The shortest lease, in seconds."""
    longest_ttl: ClassVar[float] = LONGEST
    """The longest lease, in seconds; also the longest `keep` after a release."""

    @property
    def supports_pausing(self) -> bool:
        """Whether the store can pause grants, as it is configured."""
        return False

    @property
    def keeps_open(self) -> bool:
        """Whether calls leave connections open for the next ones; `close()` closes them."""
        return False

    @property
    def events_using(self) -> str | None:
        """The database of the recorded events, an alias; None leaves it to `DATABASE_ROUTERS`."""
        return None

    threads: int = 2
    """How many calls of async code run at the same time, each in a thread of the store's own."""

    store_timeout: float | None = None
    """Seconds within which a call ends; None if the store sets no limit."""

    using: str | None = None
    """The database, an alias in DATABASES, that it keeps locks in; None for other stores."""

    guard_commits: bool
    """Whether a commit is refused when a lease that it depends on is lost."""

    events: bool
    """Whether each process records what happens to its locks."""

    def __init__(
        self,
        alias: str,
        *,
        ttl: float | None = 60,
        guard_commits: bool = True,
        events: bool = False,
    ) -> None:
        self.alias = plain(alias)
        self.guard_commits = guard_commits
        self.events = events
        try:
            validate_bool("guard_commits", guard_commits)
            validate_bool("events", events)
            self.ttl = self.validate_ttl(ttl)
        except (TypeError, ValueError) as error:
            raise InvalidLockBackend(f"DISTLOCK[{alias!r}]: {error}") from error

    def validate_ttl(self, ttl: float | None) -> float | None:
        """Return the ttl as a plain number of seconds; `ValueError` if the store can't keep it."""
        if ttl is None:
            if not self.supports_unlimited_ttl:
                raise ValueError(f"{type(self).__name__} has no unlimited ttl; give seconds.")
            return None
        none = "None means until released" if self.supports_unlimited_ttl else None
        return validate_seconds("ttl", ttl, self.shortest_ttl, self.longest_ttl, none)

    def time_budget(self) -> AbstractContextManager[object]:
        """Return a context manager whose calls share one time limit, if the store has one."""
        return NO_TIME_LIMIT

    @abstractmethod
    def acquire(
        self, semaphore: str, owner: str, ttl: float | None, holder: str
    ) -> Grant | Refusal:
        """Try once, without waiting. Return a `Refusal` if another owner holds the semaphore.

        The refusal tells what this attempt saw of the holder; the store isn't asked again for it.
        `REFUSED` tells nothing.

        The owner that holds the semaphore gets its own grant again, with the stored token, for
        `ttl` seconds from now.

        A holder counts `ttl` from before its call. The store must not grant the semaphore to
        another owner sooner. So if its clock counts in steps, it keeps the lease a step longer. The
        same goes for a renewal, and for `keep` seconds after a release.
        """

    @abstractmethod
    def renew(self, leases: Sequence[Claim]) -> dict[str, Renewal]:
        """Renew each lease: it ends its `ttl` from now. Return each result, by owner.

        An expired lease is lost, even if no other owner has taken the semaphore. If a renewal would
        have to wait, the store doesn't change the lease and answers `RenewalOutcome.HELD`.
        """

    @abstractmethod
    def release(self, lease: Claim, keep: float = 0) -> Released:
        """Release the semaphore if this owner still holds it.

        For `keep` seconds from now, the store grants it to no owner.
        """

    def close(self) -> None:
        """Close the connections that aren't in use. The next call opens one."""

    def check_database(self) -> list[CheckMessage]:
        """Return more messages for `manage.py check --database`, about the database `using`."""
        return []

    def check_deployment(self) -> list[CheckMessage]:
        """Return more messages for `manage.py check --deploy`. It may ask the store itself."""
        return []

    def check(self, **kwargs: Any) -> list[CheckMessage]:
        """Return the messages of the system checks about the configuration. It asks nothing."""
        return []


class QueueingStore(BaseLockBackend):
    """A store with a queue of waiters for each lock."""

    @property
    def queues_all(self) -> bool:
        """Whether every waiter joins the queue, or only the first one of each process."""
        return True

    @abstractmethod
    def join(
        self, semaphore: str, owner: str, holder: str, wake: Callable[[], object]
    ) -> Place | None:
        """Add this owner to the semaphore's queue. Return None if it has to poll instead.

        The store calls `wake` when it is time to try again, in any thread, and perhaps for nothing.
        To make sure that the waiter gets the lock, the store may grant it to that owner for a
        moment. The waiter's own attempt is then answered as a second one.
        """

    @abstractmethod
    def leave(self, place: Place, granted: bool) -> None:
        """Remove a waiter from the queue. What it was offered and did not take is free."""


class TransactionalStore(BaseLockBackend):
    """A store whose locks may be part of the caller's database transaction."""

    @abstractmethod
    def joins_transaction(self) -> bool:
        """Return whether the caller's transaction commits or undoes what is done now."""

    @abstractmethod
    def caller(self) -> BaseDatabaseWrapper | None:
        """Return the caller's connection, if an acquisition now would use it."""

    @abstractmethod
    def can_renew(self) -> bool:
        """Return whether another thread can renew what is acquired now."""

    @abstractmethod
    def guard(self, lease: Claim, using: str) -> bool | None:
        """Keep other owners out until the caller's transaction on the database `using` ends.

        Return False if the lease is lost. Return None if the store has no part in that transaction;
        the caller then calls `renew()`, unless it did so a moment ago.
        """


def joins_transaction(store: BaseLockBackend) -> bool:
    """Return whether the caller's transaction commits, or undoes, what is done in the store now."""
    return isinstance(store, TransactionalStore) and store.joins_transaction()


class AsyncStore(BaseLockBackend):
    """A store that async code awaits in its event loop, instead of calling it in a thread.

    Each coroutine does the same as the method without the `a`, by the `deadline`, a time of
    `django_distlock.clocks.monotonic()`.
    """

    def new_deadline(self) -> float:
        """Return when the calls that a task makes now must have ended."""
        return math.inf

    @abstractmethod
    async def aacquire(
        self, semaphore: str, owner: str, ttl: float | None, holder: str, *, deadline: float
    ) -> Grant | Refusal:
        """See `acquire()`."""

    @abstractmethod
    async def arenew(self, leases: Sequence[Claim], *, deadline: float) -> dict[str, Renewal]:
        """See `renew()`."""

    @abstractmethod
    async def arelease(self, lease: Claim, keep: float = 0, *, deadline: float) -> Released:
        """See `release()`."""

    async def ajoin(
        self,
        semaphore: str,
        owner: str,
        holder: str,
        wake: Callable[[], object],
        *,
        deadline: float,
    ) -> Place | None:
        """See `QueueingStore.join()`. A store with both mixins overrides it, and `aleave()`."""
        return None

    async def aleave(self, place: Place, granted: bool, *, deadline: float) -> None:
        """See `QueueingStore.leave()`."""
