"""Every error that this package raises on purpose."""

from typing import Any

from django.core.exceptions import ImproperlyConfigured


class LockError(Exception):
    """Base of all lock errors."""


class LockNotAcquired(LockError):
    """Somebody else, or this thread or task itself, held the semaphore until the timeout."""


class LockNotHeld(LockError):
    """Nothing is held by that name here: this task, thread or request did not acquire it."""


class LockLost(LockError):
    """The lease is no longer ours: it expired, was released, or an operator took it away."""

    def __init__(self, message: str, lease: Any = None) -> None:
        super().__init__(message)
        self.lease = lease

    def __reduce__(self) -> tuple[Any, ...]:
        # A task queue carries it to another process; the lease is of no use there.
        return type(self), self.args, {**self.__dict__, "lease": None}


class LockBackendUnavailable(LockError):
    """The store can't be reached or did not answer: nothing is known about who holds the lock.

    `reply_lost` is True when the request may have been carried out all the same.
    """

    def __init__(self, message: str, *, reply_lost: bool = False) -> None:
        super().__init__(message)
        self.reply_lost = reply_lost


class LockNotSupported(LockError, NotImplementedError):
    """The store has no such operation."""


class InvalidLockBackend(ImproperlyConfigured):
    """The DISTLOCK setting is wrong, or names what can't serve as a lock store."""
