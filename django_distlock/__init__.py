"""A distributed lock for Django: one thing happens once at a time, on every host of a site."""

import os
from importlib.util import find_spec

if not hasattr(os, "register_at_fork") or find_spec("fcntl") is None:
    raise ImportError(
        "django_distlock needs a POSIX system, such as Linux, macOS or a BSD. "
        "On Windows, run your site in WSL."
    )

# Checks are registered by the import, so that one can say that the app is not in INSTALLED_APPS;
# and commits are guarded from then on.
from . import checks
from .conf import lock_backends
from .exceptions import (
    InvalidLockBackend,
    LockBackendUnavailable,
    LockError,
    LockLost,
    LockNotAcquired,
    LockNotHeld,
)
from .leases import cleanup, commit_guard  # noqa: F401 - cleanup connects itself
from .leases.lease import Lease
from .locks.api import aacquire_lock, acquire_lock, arelease_lock, release_lock
from .views import url_checks  # noqa: F401
from .views.decorator import distributed_lock, skip

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

commit_guard.install()
checks.warn_of_missing_app()
