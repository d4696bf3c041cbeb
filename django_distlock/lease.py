"""The lease as its holder sees it, which acquire_lock() and `distributed_lock` give."""

from abc import ABC, abstractmethod
from datetime import datetime
from typing import Literal


class Lease(ABC):
    """A lock held for a time: until `ttl` seconds after it was acquired or renewed, or a release.

    It may be used, and released, from another thread or task, but not by a forked child. It is
    always true: ask `held`.
    """

    __slots__ = ()

    @property
    @abstractmethod
    def semaphore(self) -> str:
        """What is locked."""

    @property
    @abstractmethod
    def backend(self) -> str:
        """The alias of its store in DISTLOCK."""

    @property
    @abstractmethod
    def template(self) -> str:
        """What a decorated function's semaphore was made by; empty for other acquisitions.

        It is the text of `@distributed_lock("…")`, or the name of its callable.
        """

    @property
    @abstractmethod
    def holder(self) -> str:
        """The label, host, process, and thread or task that acquired it, for people."""

    @property
    @abstractmethod
    def token(self) -> int | None:
        """The fencing token: greater than that of every earlier grant of this semaphore.

        None if the store has none.
        """

    @property
    @abstractmethod
    def ttl(self) -> float | None:
        """Seconds that it lasts unless renewed; None until it is released."""

    @property
    @abstractmethod
    def acquired_at(self) -> datetime:
        """When it was granted, by the store's clock."""

    @property
    @abstractmethod
    def expires_at(self) -> datetime | None:
        """When it ends unless renewed, by the store's clock; None if it lasts until released."""

    @property
    @abstractmethod
    def waited(self) -> float:
        """Seconds from the call that acquired it until the grant, by the local monotonic clock."""

    @property
    @abstractmethod
    def held(self) -> bool:
        """Whether this process has the lock as far as it knows: no round trip is made."""

    @property
    @abstractmethod
    def held_for(self) -> float:
        """Seconds since it was granted, or until it ended, by the local monotonic clock."""

    @property
    @abstractmethod
    def remaining(self) -> float:
        """Seconds until it expires unless renewed, by the local monotonic clock.

        Never more than by the store's: they are counted from before the request was sent. Infinite
        for an unlimited ttl.
        """

    @abstractmethod
    def check(self) -> None:
        """Raise LockLost unless the lease is held."""

    @abstractmethod
    async def acheck(self) -> None:
        """See check()."""

    @abstractmethod
    def renew(self) -> None:
        """Let the lease end `ttl` seconds from now; LockLost if it is lost.

        It never lasts longer than `max_hold`. After LockBackendUnavailable it is unknown which end
        is true; `remaining` has the earlier, as it has in a transaction that could undo this.
        """

    @abstractmethod
    async def arenew(self) -> None:
        """See renew()."""

    @abstractmethod
    def release(self) -> bool:
        """Release the lock; False if the lease was lost, or released before.

        Inside a transaction that is done when the outermost atomic block has ended, however it
        ends. With `min_hold`, others get it when that has passed. After LockBackendUnavailable it
        is not renewed any more, so it ends with its ttl; until then it can be released again.
        """

    @abstractmethod
    async def arelease(self) -> bool:
        """See release()."""

    def __bool__(self) -> Literal[True]:
        return True
