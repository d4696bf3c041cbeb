"""Entries of CACHES for tests: classes that a site or a third party may have made."""

from __future__ import annotations

from typing import Any

from django.core.cache.backends.base import BaseCache
from django.core.cache.backends.filebased import FileBasedCache
from django.core.cache.backends.memcached import PyMemcacheCache
from django.test import override_settings

DJANGO = "django.core.cache.backends"
PYMEMCACHE = f"{DJANGO}.memcached.PyMemcacheCache"
REDIS = f"{DJANGO}.redis.RedisCache"
DJANGO_REDIS = "django_redis.cache.RedisCache"
MEMCACHED_BACKEND = "django_distlock.backends.memcached.MemcachedBackend"
NOWHERE = {"BACKEND": PYMEMCACHE, "LOCATION": "127.0.0.1:1"}


class OwnFileCache(FileBasedCache):
    """A site's subclass of Django's file cache."""


class OwnMemcache(PyMemcacheCache):
    """A site's subclass of a Memcached cache."""


class ForeignCache(BaseCache):
    """A third party's cache."""

    def __init__(self, location: Any, params: dict[str, Any]) -> None:
        super().__init__(params)


class BrokenCache(BaseCache):
    """A cache whose client library isn't installed."""

    def __init__(self, location: Any, params: dict[str, Any]) -> None:
        raise ImportError("No module named 'client'")


def configured(**entries: dict[str, Any]) -> Any:
    """Set CACHES to these, beside the default one that Django requires."""
    default = {"BACKEND": f"{DJANGO}.locmem.LocMemCache"}
    return override_settings(CACHES={"default": default, **entries})
