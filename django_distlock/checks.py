"""System checks of the DISTLOCK setting; each store checks its own options."""

import warnings
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core import checks

from .conf import lock_backends
from .exceptions import InvalidLockBackend, LockBackendUnavailable


def warn_of_missing_app() -> None:
    """Warn, as the system check does, if the package is imported after Django set up its apps.

    Then the check may come too late: a view imports the package while the check of the URLconf
    runs, and a server may run no checks at all.
    """
    if apps.ready and (missing := _missing_app()) and not missing.is_silenced():
        warnings.warn(f"{missing.msg} {missing.hint} ({missing.id})", RuntimeWarning, stacklevel=4)


def _missing_app() -> checks.Warning | None:
    """Return a warning if the app isn't installed; not if DISTLOCK is set, which means intent."""
    if apps.is_installed("django_distlock") or hasattr(settings, "DISTLOCK"):
        return None
    return checks.Warning(
        "django_distlock is imported, but not in INSTALLED_APPS, so its table is missing.",
        hint='Add "django_distlock" to INSTALLED_APPS, and run manage.py migrate.',
        id="distlock.W001",
    )


def check_lock_backends(**kwargs: Any) -> Iterator[checks.CheckMessage]:
    """Yield an error for each store that can't be made, and the messages of the others.

    Without the app and without DISTLOCK, a mere import may not mean to lock: that is a warning.
    """
    if missing := _missing_app():
        yield missing
        return
    try:
        aliases = list(lock_backends)
    except InvalidLockBackend as error:
        yield checks.Error(str(error), id="distlock.E001")
        return
    for alias in aliases:
        try:
            backend = lock_backends[alias]
        except InvalidLockBackend as error:
            yield checks.Error(str(error), id="distlock.E001")
        except LockBackendUnavailable:
            continue  # the store need not run yet
        else:
            yield from backend.check(**kwargs)


def check_deployment(**kwargs: Any) -> Iterator[checks.CheckMessage]:
    """Yield each store's messages on a deployment; check_lock_backends() reports broken ones."""
    with suppress(InvalidLockBackend):
        for alias in lock_backends:
            with suppress(InvalidLockBackend, LockBackendUnavailable):
                yield from lock_backends[alias].check_deployment()
