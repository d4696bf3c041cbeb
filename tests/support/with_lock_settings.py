"""Settings for processes that run with_lock: few apps, so that they start quickly."""

import json
import os

SECRET_KEY = "not a secret"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = ["django_distlock"]
DATABASES = {"default": json.loads(os.environ["DISTLOCK_TEST_WITH_LOCK"])}
DISTLOCK = {
    "default": {
        "BACKEND": "django_distlock.backends.database.DatabaseBackend",
        "OPTIONS": {"ttl": 180, "store_timeout": 60},
    }
}
