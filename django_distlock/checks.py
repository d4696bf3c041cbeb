"""System checks: the DISTLOCK setting, and what each store has to say of its own part of it."""

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
    """Warn, as the check does, if Django has listed its checks before we are imported.

    So it is when a view is what imports us: the check of the URLconf imports that. And a server
    may run no checks at all.
    """
    if apps.ready and (missing := _missing_app()) and not missing.is_silenced():
        warnings.warn(f"{missing.msg} {missing.hint} ({missing.id})", RuntimeWarning, stacklevel=3)


def _missing_app() -> checks.Warning | None:
    """Say that the app isn't there; not where DISTLOCK is, since then somebody means it so."""
    if apps.is_installed("django_distlock") or hasattr(settings, "DISTLOCK"):
        return None
    return checks.Warning(
        "django_distlock is imported, but not in INSTALLED_APPS: its table isn't there.",
        hint='Add "django_distlock" to INSTALLED_APPS, and run manage.py migrate.',
        id="distlock.W001",
    )


@checks.register
def check_lock_backends(**kwargs: Any) -> Iterator[checks.CheckMessage]:
    """Yield an error for each alias that can't be made, and the messages of those that can.

    Where neither the app nor DISTLOCK is there, nobody may mean to lock: that is a warning.
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
            continue  # it need not be there yet
        else:
            yield from backend.check(**kwargs)


@checks.register(deploy=True)
def check_deployment(**kwargs: Any) -> Iterator[checks.CheckMessage]:
    """Yield what each store has to say of a deployment; one that can't be made is told of above."""
    with suppress(InvalidLockBackend):
        for alias in lock_backends:
            with suppress(InvalidLockBackend, LockBackendUnavailable):
                yield from lock_backends[alias].check_deployment()
