"""A distributed lock for Django: one thing happens once at a time, on every host of a site."""

# Checks are registered by the import, so that one can say that the app is not in INSTALLED_APPS;
# and commits are guarded from then on.
from . import checks, guard, leftovers, url_checks  # noqa: F401
from .decorators import distributed_lock, skip
from .exceptions import (
    InvalidLockBackend,
    LockBackendUnavailable,
    LockError,
    LockLost,
    LockNotAcquired,
    LockNotHeld,
)
from .handler import lock_backends
from .leases import Lease
from .locks import aacquire_lock, acquire_lock, arelease_lock, release_lock

__all__ = [
    "InvalidLockBackend",
    "Lease",
    "LockBackendUnavailable",
    "LockError",
    "LockLost",
    "LockNotAcquired",
    "LockNotHeld",
    "aacquire_lock",
    "acquire_lock",
    "arelease_lock",
    "distributed_lock",
    "lock_backends",
    "release_lock",
    "skip",
]

checks.warn_of_missing_app()
