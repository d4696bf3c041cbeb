"""Settings of commands in processes of their own: this test's databases, and nothing slow."""

from tests.settings import DATABASES, DISTLOCK, SECRET_KEY, TIME_ZONE, USE_TZ

INSTALLED_APPS = ["django_distlock"]
DISTLOCK = {alias: DISTLOCK[alias] for alias in ("default", "minimal")}
SILENCED_SYSTEM_CHECKS = ["distlock.W005"]

__all__ = ["DATABASES", "DISTLOCK", "INSTALLED_APPS", "SECRET_KEY", "TIME_ZONE", "USE_TZ"]
