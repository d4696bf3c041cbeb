"""One Redis server, reached by django-redis and by Django's own RedisCache; and what can happen."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from tests.faults.environment import PROXIED, TESTED, Fault
from tests.faults.proxy import FaultyProxy
from tests.faults.stores.outside import OneServer
from tests.support.ports import HOST
from tests.support.redis_servers import connect, redis

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager, ExitStack

    from redis import Redis

    from tests.support.servers import Server

BACKEND = "django_distlock.backends.redis.RedisBackend"
LIBRARIES = {
    TESTED: "django_redis.cache.RedisCache",
    PROXIED: "django.core.cache.backends.redis.RedisCache",
}
"""The cache of each of the workers' aliases. Both write the same keys."""


class RedisServer(OneServer):
    """A server that writes each command to its disk before it answers."""

    store = "redis"
    needs = "redis"
    directives: ClassVar[tuple[str, ...]] = ("appendonly yes", "appendfsync always")

    def start(self, stack: ExitStack) -> None:
        self.server = self.governed(redis(*self.directives)).begin()
        stack.callback(self.server.remove)
        self.proxy = stack.enter_context(FaultyProxy(HOST, self.server.port))

    def backends(self) -> dict[str, Any]:
        return {
            "CACHES": {
                TESTED: cache(TESTED, self.server.port),
                PROXIED: cache(PROXIED, self.proxy.port),
            },
            "DISTLOCK": {
                alias: {"BACKEND": BACKEND, "OPTIONS": {"cache": alias}} for alias in LIBRARIES
            },
        }

    def rest(self) -> None:
        self.let_clock_rest()

    @property
    def faults(self) -> dict[str, Fault]:
        return {
            **self.proxy.faults,
            **self.clock_faults,
            **{name: self.operation(name) for name in OPERATIONS},
            "server_killed": self.server_killed,
            "server_paused": self.server_paused,
        }

    def operation(self, name: str) -> Fault:
        """Return something that an operator does."""
        return lambda random: operate(OPERATIONS[name], self.server)


class RedisEverySecond(RedisServer):
    """A server that has the system write to its disk before it answers, but doesn't wait for it."""

    store = "redis_everysec"
    directives = ("appendonly yes", "appendfsync everysec")


class RedisInMemory(RedisServer):
    """A server that writes nothing to a disk."""

    store = "redis_memory"
    directives = ()


def cache(alias: str, port: int) -> dict[str, Any]:
    """Return the entry in CACHES."""
    location = f"redis://{HOST}:{port}/0"
    return {"BACKEND": LIBRARIES[alias], "LOCATION": location, "KEY_PREFIX": "site"}


@contextmanager
def connections_ended(client: Any) -> Iterator[None]:
    """Have the server end all connections but this one."""
    for kind in ("normal", "pubsub"):
        client.execute_command("CLIENT", "KILL", "TYPE", kind)
    yield


@contextmanager
def connections_used_up(client: Any) -> Iterator[None]:
    """Have the server end all connections but this one, and take no more."""
    most = client.config_get("maxclients")["maxclients"]
    client.config_set("maxclients", 1)
    with connections_ended(client):
        yield
    client.config_set("maxclients", most)


@contextmanager
def out_of_memory(client: Redis) -> Iterator[None]:
    """Leave the server no memory; it evicts nothing."""
    client.config_set("maxmemory", 1)
    yield
    client.config_set("maxmemory", 0)


@contextmanager
def flushed(client: Redis) -> Iterator[None]:
    """Delete all keys."""
    client.flushall()
    yield


@contextmanager
def scripts_flushed(client: Redis) -> Iterator[None]:
    """Have the server forget all scripts."""
    client.script_flush()
    yield


OPERATIONS = {
    "connections_ended": connections_ended,
    "connections_used_up": connections_used_up,
    "out_of_memory": out_of_memory,
    "flushed": flushed,
    "scripts_flushed": scripts_flushed,
}
"""What an operator can do to a server that runs."""


@contextmanager
def operate(
    operation: Callable[[Redis], AbstractContextManager[None]], server: Server
) -> Iterator[None]:
    """Do it, and undo it at the end."""
    with connect(server) as client, operation(client):
        yield
