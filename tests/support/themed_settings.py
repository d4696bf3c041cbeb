"""Settings of a site whose admin has another look: django-unfold or django-jazzmin."""

import os

from tests.settings import *  # noqa: F403
from tests.settings import INSTALLED_APPS

INSTALLED_APPS = [os.environ["DISTLOCK_TEST_THEME"], *INSTALLED_APPS]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
JAZZMIN_SETTINGS = {"use_google_fonts_cdn": False}
