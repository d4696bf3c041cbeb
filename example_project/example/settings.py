"""Settings of the example: a demonstration on this machine, not a template for production."""

import os
from pathlib import Path
from typing import Any

BASE_DIR = Path(__file__).resolve().parent.parent

SECRET_KEY = "demo-key-for-the-example-project-only-never-use-it-elsewhere"
DEBUG = False
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]

INSTALLED_APPS = [
    "payments",  # Before the admin: it extends one of its templates.
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django_distlock",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "payments.middleware.name_worker",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "example.urls"
WSGI_APPLICATION = "example.wsgi.application"

TEMPLATES: list[dict[str, Any]] = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

# ATOMIC_REQUESTS stays off. With transaction_mode IMMEDIATE it would hold SQLite's only write lock
# for whole requests, one after the other, and so hide the race that this project is here to show.
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": BASE_DIR / "example.sqlite3",
        "OPTIONS": {
            "init_command": "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;",
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,
        },
    },
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# Locks are rows in the database above. This is the default, spelled out.
DISTLOCK = {
    "default": {
        "BACKEND": "django_distlock.backends.database.DatabaseBackend",
        "OPTIONS": {"using": "default", "ttl": 60},
    },
}

# `--store` sets this for the processes that it starts: their locks are elsewhere.
STORE = os.environ.get("EXAMPLE_STORE", "database")
if STORE == "redis":
    CACHES: dict[str, Any] = {
        "default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
        "locks": {
            "BACKEND": "django_redis.cache.RedisCache",
            "LOCATION": os.environ["REDIS_URL"],
            "KEY_PREFIX": "example",  # The Redis server may be shared.
        },
    }
    DISTLOCK = {
        "default": {
            "BACKEND": "django_distlock.backends.redis.RedisBackend",
            "OPTIONS": {"cache": "locks", "ttl": 60},
        },
    }
elif STORE == "server":
    DISTLOCK = {
        "default": {
            "BACKEND": "django_distlock.backends.server.ServerBackend",
            "OPTIONS": {
                "address": os.environ["EXAMPLE_LOCK_SERVER"],
                "secret_file": os.environ["EXAMPLE_LOCK_SERVER_SECRET_FILE"],
                "ttl": 60,
            },
        },
    }

# How long the simulated payment provider takes to answer, in seconds.
PAYMENT_PROVIDER_LATENCY = 0.05

LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_TZ = True

STATIC_URL = "static/"
WHITENOISE_USE_FINDERS = True  # No collectstatic: the apps' own files are served.

LOGIN_URL = "admin:login"

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["console"], "level": "WARNING"},
    # A 409 is an expected answer here, not worth a line each.
    "loggers": {"django.request": {"level": "ERROR"}},
}
