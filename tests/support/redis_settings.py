"""Settings with a Redis backend, and the system checks' messages about them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django_distlock.checks import check_deployment, check_lock_backends
from tests.support.redis_stores import (
    ALIAS,
)

if TYPE_CHECKING:
    from django.core import checks


REDIS_BACKEND = "django_distlock.backends.redis.RedisBackend"


def messages_of_checks(*, deployed: bool) -> list[checks.CheckMessage]:
    """Return the checks' messages."""
    return [*(check_deployment() if deployed else check_lock_backends())]


def by(**options: Any) -> dict[str, Any]:
    """Return a DISTLOCK whose backend has these OPTIONS."""
    return {ALIAS: {"BACKEND": REDIS_BACKEND, "OPTIONS": options}}
