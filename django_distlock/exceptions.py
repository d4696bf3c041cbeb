"""The errors that this package raises."""

from typing import Any

from django.core.exceptions import ImproperlyConfigured


class LockError(Exception):
    """Base of all lock errors."""


class LockNotAcquired(LockError):
    """Another holder, or this thread or task itself, held the semaphore until the timeout."""


class LockNotHeld(LockError):
    """This task, thread or request holds no lock of that name."""


class LockLost(LockError):
    """The lease is not held any more: it expired, was released, or an operator took it away."""

    def __init__(self, message: str, lease: Any = None) -> None:
        super().__init__(message)
        self.lease = lease

    def __reduce__(self) -> tuple[Any, ...]:
        # Without the lease: a task queue may send the error to another process.
        return type(self), self.args, {**self.__dict__, "lease": None}


class LockBackendUnavailable(LockError):
    """The store can't be reached or did not answer, so it is unknown who holds the lock.

    `reply_lost` is True if the store may have carried out the request all the same.
    """

    def __init__(self, message: str, *, reply_lost: bool = False) -> None:
        super().__init__(message)
        self.reply_lost = reply_lost


class LockNotSupported(LockError, NotImplementedError):
    """The store has no such operation."""


class InvalidLockBackend(ImproperlyConfigured):
    """The DISTLOCK setting is wrong, or names something that can't be a lock store."""
