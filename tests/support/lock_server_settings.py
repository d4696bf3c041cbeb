"""Settings of a lock server that a test starts: it needs no database, and no DISTLOCK."""

SECRET_KEY = "not a secret"
INSTALLED_APPS = ["django_distlock"]
DISTLOCK: dict[str, object] = {}
