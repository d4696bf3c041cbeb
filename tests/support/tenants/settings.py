"""Settings of the site."""

import json
import os

from tests.settings import MIDDLEWARE as USUAL
from tests.settings import (
    PASSWORD_HASHERS,
    SECRET_KEY,
    STATIC_URL,
    TEMPLATES,
    USE_TZ,
)
from tests.support.documentation import example

__all__ = ["PASSWORD_HASHERS", "SECRET_KEY", "STATIC_URL", "TEMPLATES", "USE_TZ"]

PAGE = "integrations/django-tenants.md"
USUAL_APPS = ["admin", "auth", "contenttypes", "messages", "sessions"]
SHARED_APPS = [
    *(app for app in example(PAGE, "Put the app in `SHARED_APPS`").SHARED_APPS if app is not ...),
    *(f"django.contrib.{app}" for app in USUAL_APPS),
    "tests.support.tenants",
]
TENANT_APPS = ["tests.app"]
INSTALLED_APPS = [*SHARED_APPS, *TENANT_APPS]
# Only the tables of locks, and the tenants' own, are made by migrations.
MIGRATION_MODULES = dict.fromkeys([*USUAL_APPS, "tenants"])
TENANT_MODEL, TENANT_DOMAIN_MODEL = "tenants.Tenant", "tenants.Domain"
DATABASE_ROUTERS = ["django_tenants.routers.TenantSyncRouter"]
MIDDLEWARE = ["django_tenants.middleware.main.TenantMainMiddleware", *USUAL]
ROOT_URLCONF = "tests.support.tenants.site"
ALLOWED_HOSTS = ["*"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DATABASES = {
    "default": json.loads(os.environ["DISTLOCK_TEST_POSTGRESQL"])
    | {"ENGINE": "django_tenants.postgresql_backend", "NAME": "tenants"}
}
DISTLOCK = {
    "default": {
        "BACKEND": "django_distlock.backends.database.DatabaseBackend",
        "OPTIONS": {"ttl": 180, "store_timeout": 60, "events": True},
    }
}
