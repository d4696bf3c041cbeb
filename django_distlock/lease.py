"""The lease as its holder sees it."""

from abc import ABC, abstractmethod
from datetime import datetime
from typing import Literal


class Lease(ABC):
    """A lock that is held for a time: what `acquire_lock()` and `distributed_lock` give.

    It ends `ttl` seconds after it was acquired or renewed, or with its release. Any thread or task
    of the process may use and release it; a forked child may not. A lease is always true: to learn
    whether it is held, read `held`.
    """

    __slots__ = ()

    @property
    @abstractmethod
    def semaphore(self) -> str:
        """The name of the lock."""

    @property
    @abstractmethod
    def backend(self) -> str:
        """The alias of its store in `DISTLOCK`."""

    @property
    @abstractmethod
    def template(self) -> str:
        """The template of a decorated function's semaphore, or the name of its callable.

        It is empty for `acquire_lock()` and `with` blocks.
        """

    @property
    @abstractmethod
    def holder(self) -> str:
        """The holder, for people: its label, host, process, and thread or task."""

    @property
    @abstractmethod
    def token(self) -> int | None:
        """The fencing token, an integer: greater than that of every earlier grant of the semaphore.

        It is None if the store has no tokens.
        """

    @property
    @abstractmethod
    def ttl(self) -> float | None:
        """How long it lasts unless it is renewed, in seconds; None until it is released."""

    @property
    @abstractmethod
    def acquired_at(self) -> datetime:
        """When it was granted: an aware datetime, by the store's clock."""

    @property
    @abstractmethod
    def expires_at(self) -> datetime | None:
        """When it ends unless it is renewed: an aware datetime, by the store's clock.

        It is None if the lease lasts until it is released.
        """

    @property
    @abstractmethod
    def waited(self) -> float:
        """Seconds from the acquiring call to the grant, by this process's monotonic clock."""

    @property
    @abstractmethod
    def held(self) -> bool:
        """Whether the lock is held, as far as this process knows; the store isn't asked."""

    @property
    @abstractmethod
    def held_for(self) -> float:
        """Seconds since the grant, or from it to the end, by this process's monotonic clock."""

    @property
    @abstractmethod
    def remaining(self) -> float:
        """Seconds until it ends unless it is renewed, by this process's monotonic clock.

        They are counted from before the request was sent, so the store ends it no sooner, unless
        its clock is set forward or it loses the lease. At the end they are 0. They go on counting
        after a release or a loss: ask `held` whether the lock is held. If `ttl` is None, they are
        infinite.
        """

    @abstractmethod
    def check(self) -> None:
        """Raise `LockLost` unless the lease is held, as far as this process knows."""

    @abstractmethod
    async def acheck(self) -> None:
        """See `check()`."""

    @abstractmethod
    def renew(self) -> None:
        """Renew the lease: it ends `ttl` seconds from now, but no later than `max_hold` allows.

        `LockLost`: it isn't held any more. `LockBackendUnavailable`: the store didn't answer, so
        the lease ends at its old or its new end. `remaining` counts to the earlier one then, and
        also in a transaction whose rollback would undo the renewal.
        """

    @abstractmethod
    async def arenew(self) -> None:
        """See `renew()`."""

    @abstractmethod
    def release(self) -> bool:
        """Release the lock. Return False if the lease was lost or released before.

        Inside a transaction, the release waits for the end of the outermost `atomic()` block. With
        `min_hold`, others get the lock when that time has passed.

        `LockBackendUnavailable`: the store didn't answer. The lease isn't renewed any more, so it
        ends with its ttl. Until then you can release it again.
        """

    @abstractmethod
    async def arelease(self) -> bool:
        """See `release()`."""

    def __bool__(self) -> Literal[True]:
        return True
