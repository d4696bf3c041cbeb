"""System checks: the DISTLOCK setting, and what each store has to say of its own part of it."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core import checks

from .exceptions import InvalidLockBackend, LockBackendUnavailable
from .handler import lock_backends


@checks.register
def check_lock_backends(**kwargs: Any) -> Iterator[checks.CheckMessage]:
    """Yield an error for each alias that can't be made, and the messages of those that can.

    Where neither the app nor DISTLOCK is there, nobody may mean to lock: that is a warning.
    """
    if not (apps.is_installed("django_distlock") or hasattr(settings, "DISTLOCK")):
        yield checks.Warning(
            "django_distlock is imported, but not in INSTALLED_APPS: its table isn't there.",
            id="distlock.W001",
        )
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
