"""The errors that this package raises."""

from datetime import datetime

from django.core.exceptions import ImproperlyConfigured

from .lease import Lease


class LockError(Exception):
    """Base of all lock errors."""

    lease: Lease | None = None
    """The lease that was lost, or that could not be renewed or released."""

    def __reduce__(self) -> tuple[object, ...]:
        # Without the lease: a task queue may send the error to another process.
        attributes = {name: value for name, value in vars(self).items() if name != "lease"}
        return type(self), self.args, attributes


class LockNotAcquired(LockError):
    """Another holder, or this thread or task itself, held the semaphore until the timeout.

    Or the semaphore is paused, which `reason` says. The times are by the store's clock. What the
    store did not tell with its refusal is None, or an empty text.
    """

    def __init__(
        self,
        message: str = "",
        *,
        semaphore: str = "",
        backend: str = "",
        holder: str | None = None,
        held_since: datetime | None = None,
        expires_at: datetime | None = None,
        seen_at: datetime | None = None,
        reason: str = "",
    ) -> None:
        super().__init__(message)
        self.semaphore = semaphore
        self.backend = backend
        self.holder = holder
        """The holder, as a text for operators: not for clients."""
        self.held_since = held_since
        self.expires_at = expires_at
        """When the lease ends, if it is not renewed; None also if it has no end."""
        self.seen_at = seen_at
        """The store's time at the last refusal."""
        self.reason = reason


class LockNotHeld(LockError):
    """This task, thread or request holds no lock of that name."""


class LockLost(LockError):
    """The lease is not held any more: it expired, was released, or an operator took it away."""

    def __init__(self, message: str, lease: Lease | None = None) -> None:
        super().__init__(message)
        self.lease = lease


class LockBackendUnavailable(LockError):
    """The store can't be reached or did not answer, so the lock's holder is unknown.

    `reply_lost` is True if the store may have carried out the request all the same. `lease` is None
    if it failed to acquire one.
    """

    def __init__(
        self, message: str, *, reply_lost: bool = False, lease: Lease | None = None
    ) -> None:
        super().__init__(message)
        self.reply_lost = reply_lost
        self.lease = lease


class LockNotSupported(LockError, NotImplementedError):
    """The store has no such operation."""


class InvalidLockBackend(ImproperlyConfigured):
    """The DISTLOCK setting is wrong, or names something that can't be a lock store."""


class UnencryptedServer(InvalidLockBackend):
    """The setting leads to a lock server on another machine without TLS."""
