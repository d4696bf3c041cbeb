"""The app's place in Django."""

import sys
from contextlib import suppress

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _

from .backends.base import BaseLockBackend
from .conf import lock_backends, on_created
from .exceptions import InvalidLockBackend
from .leases import cleanup


class DistlockConfig(AppConfig):
    """The app: a table, its admin, and a command."""

    name = "django_distlock"
    label = "distlock"
    verbose_name = _("Distributed locks")

    def ready(self) -> None:
        """Connect to Celery's tasks, if its workers have imported it, and record events."""
        if "celery" in sys.modules:
            cleanup.connect_celery()
        on_created.append(record_events)
        with suppress(InvalidLockBackend):  # a system check reports it
            for store in lock_backends.all(initialized_only=True):
                record_events(store)


def record_events(store: BaseLockBackend) -> None:
    """Begin to record, if this store asks for it. It needs the app's table."""
    if store.events:
        from .events.recording import begin

        begin()
