"""Settings of the workers: the store under test, as DISTLOCK_FAULTS describes it."""

import json
import os
from typing import Any

_given: dict[str, Any] = json.loads(os.environ["DISTLOCK_FAULTS"])

DATABASES: dict[str, Any] = _given["DATABASES"]
CACHES: dict[str, Any] = _given.get("CACHES", {})
DISTLOCK: dict[str, Any] = _given["DISTLOCK"]

SECRET_KEY = "not a secret"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = ["django_distlock", "tests.app"]
