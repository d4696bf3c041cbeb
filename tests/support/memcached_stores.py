"""Lock stores at Memcached servers that a test chooses."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.cache import caches
from django.test import override_settings

from django_distlock import lock_backends
from django_distlock.backends import memcached_clients
from django_distlock.backends.memcached import MemcachedBackend

if TYPE_CHECKING:
    from collections.abc import Iterator

BACKEND = "django_distlock.backends.memcached.MemcachedBackend"


@contextmanager
def configured(
    alias: str, cache: dict[str, Any] | None = None, **options: Any
) -> Iterator[MemcachedBackend]:
    """Let the store have these options, and its cache these settings, beside those it has."""
    changed = {**settings.CACHES, alias: settings.CACHES[alias] | (cache or {})}
    store = {"BACKEND": BACKEND, "OPTIONS": {"cache": alias, **options}}
    with override_settings(CACHES=changed, DISTLOCK={**settings.DISTLOCK, alias: store}):
        try:
            yield find(alias)
        finally:
            memcached_clients.close_idle()
            caches.close_all()


def find(alias: str) -> MemcachedBackend:
    store = lock_backends[alias]
    assert isinstance(store, MemcachedBackend)
    return store


@contextmanager
def leading_to(port: str | int, alias: str, **options: Any) -> Iterator[MemcachedBackend]:
    """Let the store's cache be on the server at this port."""
    with configured(alias, {"LOCATION": f"127.0.0.1:{port}"}, **options) as store:
        yield store
