"""Settings of a site that tests its locks."""

SECRET_KEY = "not a secret"
USE_TZ = True
INSTALLED_APPS = ["django_distlock"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
