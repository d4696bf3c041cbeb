"""A distributed lock for Django: one thing happens once at a time, on every host of a site."""

import os
from importlib.util import find_spec

if not hasattr(os, "register_at_fork") or find_spec("fcntl") is None:
    raise ImportError(
        "django_distlock needs a POSIX system, such as Linux, macOS or a BSD. "
        "On Windows, run your site in WSL."
    )

from django.core.checks import Tags, register

from . import checks, conf, transactions
from .conf import lock_backends
from .exceptions import (
    InvalidLockBackend,
    LockBackendUnavailable,
    LockError,
    LockLost,
    LockNotAcquired,
    LockNotHeld,
    LockNotSupported,
)
from .lease import Lease
from .leases import cleanup, commit_guard
from .locks.api import aacquire_lock, acquire_lock, arelease_lock, release_lock
from .semaphores.validation import InvalidSemaphore
from .views import lock_checks, url_checks
from .views.decorator import distributed_lock, skip

__all__ = [
    "InvalidLockBackend",
    "InvalidSemaphore",
    "Lease",
    "LockBackendUnavailable",
    "LockError",
    "LockLost",
    "LockNotAcquired",
    "LockNotHeld",
    "LockNotSupported",
    "aacquire_lock",
    "acquire_lock",
    "arelease_lock",
    "distributed_lock",
    "lock_backends",
    "release_lock",
    "skip",
]


def __dir__() -> list[str]:
    """Offer in an interactive shell what users import from here, and no module of the package."""
    return __all__


def _connect_to_django() -> None:
    """Connect the package to Django's signals and system checks.

    By the import rather than in AppConfig.ready(): a site that needs no table need not install the
    app, a check tells sites that need it, and a connection may be opened before apps are ready.
    """
    conf.connect_signals()
    transactions.connect_signals()
    commit_guard.connect_signals()
    cleanup.connect_signals()
    for check in (
        url_checks.check_placeholders,
        url_checks.check_captures,
        lock_checks.check_locks,
        lock_checks.check_templates,
    ):
        register(check, checks.TAG, Tags.urls)
    checks.register_checks()


_connect_to_django()
