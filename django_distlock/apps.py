"""The app's place in Django."""

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class DistlockConfig(AppConfig):
    """The app: a table, its admin, and a command."""

    name = "django_distlock"
    verbose_name = _("Distributed locks")
