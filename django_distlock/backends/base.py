"""What a lock store is to the rest of the package."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import Any, ClassVar

from django.core.checks import CheckMessage
from django.db.backends.base.base import BaseDatabaseWrapper

from django_distlock.arguments import (
    LONGEST,
    SHORTEST_TTL,
    plain,
    validate_bool,
    validate_seconds,
    validate_whole,
)
from django_distlock.exceptions import InvalidLockBackend, LockNotSupported
from django_distlock.records import Claim, Grant, LockInfo, Place, Renewal
from django_distlock.semaphores.validation import validate_prefix, validate_semaphore
from django_distlock.signals import lock_force_released

logger = logging.getLogger("django_distlock")

NO_BUDGET = nullcontext()


def validate_listing(prefix: str, limit: int | None) -> tuple[str, int | None]:
    """Return what held() is asked for as plain values, or raise for what makes no sense."""
    if limit is not None:
        limit = validate_whole("limit", limit, 0, "None lists all")
    return validate_prefix(prefix), limit


def validate_claim(semaphore: str, token: int) -> tuple[str, int]:
    """Return what force_release() is asked for as plain values; see validate_listing()."""
    return validate_semaphore(semaphore), validate_whole("token", token, 0)


class BaseLockBackend:
    """A store of locks: how one attempt is made, and nothing about waiting, renewal or HTTP.

    There is one object per thread, which keeps no state of a lock. The store itself is shared.
    Each action is atomic in the store. When the store can't be reached or doesn't answer, each
    raises LockBackendUnavailable, with `reply_lost` set if it may have been carried out.
    """

    supports_fencing: ClassVar[bool] = True
    """Each grant has a token greater than every earlier one's on that semaphore."""
    supports_listing: ClassVar[bool] = True
    """held(), force_release() and clear_stale() work."""
    supports_unlimited_ttl: ClassVar[bool] = True
    """A lease may last until it is released (`ttl=None`)."""
    keeps_expired: ClassVar[bool] = True
    """What expired without release is listed, and purged, until somebody sees to it."""
    is_async: ClassVar[bool] = False
    """aacquire(), arenew(), arelease(), ajoin() and aleave() ask in an event loop.

    They are as their twins, with the `budget` that new_budget() made besides.
    """
    shortest_ttl: ClassVar[float] = SHORTEST_TTL
    longest_ttl: ClassVar[float] = LONGEST
    """Seconds that a lease can last; nor can anything else that the store is to keep be longer."""

    @property
    def keeps_open(self) -> bool:
        """Whether calls leave something open for the next ones, which close() closes."""
        return False

    threads: int = 2
    """How many of the calls of async code are made at once, in threads for them alone."""

    guard_commits: bool
    """Whether a commit is refused when a lease that it depends on is lost."""

    def __init__(self, alias: str, *, ttl: float | None = 60, guard_commits: bool = True) -> None:
        self.alias = plain(alias)
        self.guard_commits = guard_commits
        try:
            validate_bool("guard_commits", guard_commits)
            self.ttl = self.validate_ttl(ttl)
        except (TypeError, ValueError) as error:
            raise InvalidLockBackend(f"DISTLOCK[{alias!r}]: {error}") from error

    @property
    def queues_all(self) -> bool:
        """All who wait are in the store's queue; else the first one of each process waits there."""
        return False

    def validate_ttl(self, ttl: float | None) -> float | None:
        """Return the ttl in seconds, a plain number, or raise for what this store can't do."""
        if ttl is None:
            if not self.supports_unlimited_ttl:
                raise ValueError(f"{type(self).__name__} has no unlimited ttl; give seconds.")
            return None
        none = "None means until released" if self.supports_unlimited_ttl else None
        return validate_seconds("ttl", ttl, self.shortest_ttl, self.longest_ttl, none)

    def in_time(self) -> AbstractContextManager[object]:
        """Return in what one time budget holds for several calls, if the store has any."""
        return NO_BUDGET

    def new_budget(self) -> AbstractContextManager[Any]:
        """Return what gives the calls of one task their time, of a store that `is_async`."""
        raise NotImplementedError

    def joins_transaction(self) -> bool:
        """Tell whether what is done now is committed or undone with the caller's transaction."""
        return False

    def caller(self) -> BaseDatabaseWrapper | None:
        """Return the caller's connection, if that is what an acquisition now is made on."""
        return None

    def can_renew(self) -> bool:
        """Tell whether another thread can renew what is acquired now."""
        return True

    def guard(self, lease: Claim, using: str) -> bool | None:
        """Keep others out until the end of the caller's transaction on that database.

        False means that the lease was lost; None that the store has no part in the transaction. It
        is asked to renew() the lease then, unless it did so a moment ago.
        """
        return None

    def acquire(self, semaphore: str, owner: str, ttl: float | None, holder: str) -> Grant | None:
        """Try once, without waiting; None means that somebody else holds the semaphore.

        The same owner again gets its own grant, with the stored token, for `ttl` from now.

        A holder counts `ttl` from before it called, and nobody else may be granted the semaphore
        sooner: a store whose clock counts in steps, rounded down, keeps the lease a step longer. So
        it does where it renews, or keeps a semaphore after a release.
        """
        raise NotImplementedError

    def join(
        self,
        semaphore: str,
        owner: str,
        holder: str,
        wake: Callable[[], object],
    ) -> Place | None:
        """Let this owner wait for the semaphore; None means to try again and again, with back-off.

        `wake` is called, in any thread and perhaps for nothing, when it is time to try again. To
        make sure that the one who is woken gets the lock, the store may grant it to that owner,
        for a moment: its try is then answered as if it were a second one.
        """
        return None

    def leave(self, place: Place, granted: bool) -> None:
        """Let who has this place wait no more."""
        place.leave(granted=granted)

    def renew(self, leases: Sequence[Claim]) -> dict[str, Renewal]:
        """Let each lease end its ttl from now; return what became of those still held, by owner.

        An expired lease is lost, even if nobody else took the semaphore. One that is held, but
        can't be renewed at the moment without a wait, keeps its end.
        """
        raise NotImplementedError

    def release(self, lease: Claim, keep: float = 0) -> bool:
        """Give the semaphore back if this owner still holds it; False means it was lost already.

        Nobody gets it for `keep` seconds from now; it is no owner's then, and its end no loss.
        """
        raise NotImplementedError

    def held(self, prefix: str = "", limit: int | None = None) -> Iterator[LockInfo]:
        """List held and stale locks in the order of their semaphores.

        See validate_listing() for the arguments.
        """
        raise self._unsupported("list locks")

    def force_release(self, semaphore: str, token: int) -> bool:
        """Take the lock from its holder, if it still is the one that was granted this token.

        A lock that was released, but is kept from others for a while, is freed, too. If so, call
        tell_force_released(). See validate_claim() for the arguments.
        """
        raise self._unsupported("release a lock by force")

    def _unsupported(self, action: str) -> LockNotSupported:
        return LockNotSupported(
            f"DISTLOCK[{self.alias!r}]: {type(self).__name__} can't {action}. The database, Redis, "
            "the lock server and the memory store can; here, a lock ends with its ttl."
        )

    def tell_force_released(self, semaphore: str, token: int) -> None:
        """Tell whoever wants to know that this was taken from its holder."""
        logger.warning("The lock on %r, with token %s, was force-released.", semaphore, token)
        lock_force_released.send_robust(
            sender=type(self), semaphore=semaphore, backend=self.alias, token=token
        )

    def clear_stale(self, prefix: str = "", *, dry_run: bool = False) -> Iterator[LockInfo]:
        """Release locks whose lease expired without release; yield each. Nothing by default."""
        validate_prefix(prefix)
        return iter(())

    def purge_released(
        self, older_than: timedelta, prefix: str = "", *, dry_run: bool = False
    ) -> Iterator[LockInfo]:
        """Forget locks that were released longer ago than that; yield each. Nothing by default."""
        validate_prefix(prefix)
        return iter(())

    def close(self) -> None:
        """Close what is kept open and not in use; the next use opens it."""

    def check_deployment(self) -> list[CheckMessage]:
        """Return what `check --deploy` has to say besides: the store itself may be asked."""
        return []

    def check(self, **kwargs: Any) -> list[CheckMessage]:
        """Return the system checks' messages on this store's configuration."""
        return []
