"""System check: the package is used, but not in INSTALLED_APPS."""

import warnings
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core import checks

HINT = 'Write "django_distlock" in INSTALLED_APPS, and run python manage.py migrate distlock.'


def missing_app() -> checks.Warning | None:
    """Return a warning if the app isn't installed; not if DISTLOCK is set, which means intent."""
    if apps.is_installed("django_distlock") or hasattr(settings, "DISTLOCK"):
        return None
    return checks.Warning(
        "INSTALLED_APPS: django_distlock is imported, but not in there, so its table is missing.",
        hint=HINT,
        id="distlock.W001",
    )


def warn_of_missing_app() -> None:
    """Warn, as the system check does, if the package is imported after Django set up its apps.

    Then the check may come too late: a view imports the package while the check of the URLconf
    runs, and a server may run no checks at all.
    """
    if not apps.ready or apps.is_installed("django_distlock"):
        return
    missing = missing_app() or _missing_table()
    if missing is not None and not missing.is_silenced():
        text = f"{missing.msg} {missing.hint} ({missing.id})"
        warnings.warn(text, RuntimeWarning, stacklevel=5)


def _missing_table() -> checks.Error | None:
    """Return an error if DISTLOCK keeps locks in the table; check_lock_backends() says the same.

    The setting itself is read, since making a store may import modules that are being imported.
    """
    configured: Any = settings.DISTLOCK
    for alias, entry in configured.items() if isinstance(configured, dict) else ():
        path = entry.get("BACKEND") if isinstance(entry, dict) else None
        if isinstance(path, str) and path.startswith("django_distlock.backends.database."):
            return checks.Error(
                f"INSTALLED_APPS: DISTLOCK[{alias!r}] keeps locks in a table of django_distlock, "
                "which is not in there.",
                hint=HINT,
                id="distlock.E001",
            )
    return None
