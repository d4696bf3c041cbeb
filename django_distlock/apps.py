"""The app's place in Django."""

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class DistlockConfig(AppConfig):
    """Registers the system checks."""

    name = "django_distlock"
    verbose_name = _("Distributed locks")

    def ready(self) -> None:
        from . import checks  # noqa: F401 - registered when the apps are there
