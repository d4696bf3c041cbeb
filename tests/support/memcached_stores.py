"""Lock stores at Memcached servers that a test chooses, and the servers' view of them."""

from __future__ import annotations

import hashlib
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from django.conf import settings
from django.core.cache import caches
from django.test import override_settings

from django_distlock import lock_backends
from django_distlock.backends import memcached_clients
from django_distlock.backends.memcached import MemcachedBackend
from tests.support.lossy_proxy import LossyProxy

if TYPE_CHECKING:
    from collections.abc import Iterator

BACKEND = "django_distlock.backends.memcached.MemcachedBackend"
on_memcached = pytest.mark.parametrize(
    "alias", [pytest.param("memcached", marks=pytest.mark.needs("memcached"))]
)


@contextmanager
def configured(
    alias: str, cache: dict[str, Any] | None = None, **options: Any
) -> Iterator[MemcachedBackend]:
    """Give the store these options, and its cache these settings, in addition."""
    changed = {**settings.CACHES, alias: settings.CACHES[alias] | (cache or {})}
    store = {"BACKEND": BACKEND, "OPTIONS": {"cache": alias, **options}}
    with override_settings(CACHES=changed, DISTLOCK={**settings.DISTLOCK, alias: store}):
        try:
            yield memcached_store(alias)
        finally:
            memcached_clients.close_idle()
            caches.close_all()


@contextmanager
def leading_to(port: str | int, alias: str, **options: Any) -> Iterator[MemcachedBackend]:
    """Use the server at this port for the store's cache."""
    with configured(alias, {"LOCATION": f"127.0.0.1:{port}"}, **options) as store:
        yield store


@contextmanager
def through_proxy(alias: str) -> Iterator[LossyProxy]:
    """Route the store's connections through a proxy."""
    with LossyProxy(*address(alias)) as proxy, leading_to(proxy.port, alias):
        yield proxy


def memcached_store(alias: str) -> MemcachedBackend:
    """Return this thread's store."""
    store = lock_backends[alias]
    assert isinstance(store, MemcachedBackend)
    return store


def address(alias: str) -> tuple[str, int]:
    """Return the address of the cache's server."""
    host, port = settings.CACHES[alias]["LOCATION"].split(":")
    return host, int(port)


def ask(alias: str, command: str) -> list[str]:
    """Send a raw command to the server, and return the lines of its answer."""
    with socket.create_connection(address(alias), 10) as connection:
        connection.sendall(f"{command}\r\nversion\r\n".encode())
        answer = b""
        while b"VERSION" not in answer:
            answer += connection.recv(65536)
    return answer.decode().split("\r\n")[:-2]


def key_of(semaphore: str = "1234collectPayment", prefix: str = "") -> str:
    """Return the key that a semaphore has in these stores."""
    return f"{prefix}distlock:{hashlib.sha256(semaphore.encode()).hexdigest()}"
