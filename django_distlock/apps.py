"""The app's place in Django."""

import sys

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _

from .leases import cleanup


class DistlockConfig(AppConfig):
    """The app: a table, its admin, and a command."""

    name = "django_distlock"
    label = "distlock"
    verbose_name = _("Distributed locks")

    def ready(self) -> None:
        """Connect to Celery's tasks, if the site has imported Celery, as its workers have."""
        if "celery" in sys.modules:
            cleanup.connect_celery()
