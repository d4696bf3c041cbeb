"""The errors that this package raises."""

from datetime import datetime

from django.core.exceptions import ImproperlyConfigured

from .lease import Lease


class LockError(Exception):
    """The base of all lock errors."""

    lease: Lease | None = None
    """The lease that was lost, or that could not be renewed or released."""

    def __reduce__(self) -> tuple[object, ...]:
        # Without the lease: a task queue may send the error to another process.
        attributes = {name: value for name, value in vars(self).items() if name != "lease"}
        return type(self), self.args, attributes


class LockNotAcquired(LockError):
    """The lock was refused: it was held until the timeout, or it is paused.

    The times are aware datetimes, by the store's clock. What the store didn't tell with its refusal
    is None, or an empty text.
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
        """The name of the lock."""
        self.backend = backend
        """The alias of its store in `DISTLOCK`."""
        self.holder = holder
        """The holder, for operators: don't show it to clients."""
        self.held_since = held_since
        """When the holder's lease was granted."""
        self.expires_at = expires_at
        """When the lease ends unless it is renewed, or the pause; None also if there is no end."""
        self.seen_at = seen_at
        """The store's time at its last refusal."""
        self.reason = reason
        """Why the lock isn't granted although nobody holds it: a pause, or `min_hold`."""


class LockNotHeld(LockError):
    """This thread, task or request holds no lock of this name."""


class LockLost(LockError):
    """The lease isn't held any more: it expired, was released, or an operator took it away."""

    def __init__(self, message: str, lease: Lease | None = None) -> None:
        super().__init__(message)
        self.lease = lease


class LockBackendUnavailable(LockError):
    """The store can't be reached, or didn't answer in time.

    `reply_lost` is True if the store may have carried out the request all the same. `lease` is the
    lease that could not be renewed or released; None if none could be acquired.
    """

    def __init__(
        self, message: str, *, reply_lost: bool = False, lease: Lease | None = None
    ) -> None:
        super().__init__(message)
        self.reply_lost = reply_lost
        self.lease = lease


class LockNotSupported(LockError, NotImplementedError):
    """The store can't do this, such as list locks or pause them."""


class InvalidLockBackend(ImproperlyConfigured):
    """The `DISTLOCK` setting is wrong, or has no store of this alias."""


class UnencryptedServer(InvalidLockBackend):
    """The setting leads to a lock server on another machine without TLS."""
