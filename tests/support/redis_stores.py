"""Lock stores at Redis servers that a test chooses, and the servers' view of them."""

from __future__ import annotations

import re
from collections import Counter
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest
from django.conf import settings
from django.test import override_settings

from django_distlock import LockBackendUnavailable, clocks, lock_backends
from django_distlock.backends.redis import RedisBackend, scripts
from django_distlock.backends.redis.nodes import Node
from django_distlock.backends.redis.protocol import RedisConnection
from django_distlock.backends.redis.scripts import Script
from tests.support.holders import acquire
from tests.support.ports import HOST
from tests.support.redis_servers import connect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.servers import Server

ALIAS = "redis"
DJANGO_REDIS = "django_redis.cache.RedisCache"
DJANGO = "django.core.cache.backends.redis.RedisCache"

on_each_library = pytest.mark.parametrize("library", [DJANGO_REDIS, DJANGO])
"""Run the test with each of the cache clients."""


@contextmanager
def locks_at(
    port: int | str,
    *,
    library: str = DJANGO_REDIS,
    options: dict[str, Any] | None = None,
    store: dict[str, Any] | None = None,
    location: str | None = None,
    **cache: Any,
) -> Iterator[RedisBackend]:
    """Keep the locks of ALIAS in the server at this port, or at another `location`.

    `options` are the OPTIONS of the cache, `store` those of the lock backend.
    """
    entry = {
        "BACKEND": library,
        "LOCATION": location or f"redis://{HOST}:{port}/0",
        "KEY_PREFIX": "site",
        "OPTIONS": options or {},
        **cache,
    }
    caches = settings.CACHES | {ALIAS: entry}
    with override_settings(CACHES=caches), locks_by(cache=ALIAS, **(store or {})) as found:
        yield found


@contextmanager
def locks_by(**options: Any) -> Iterator[RedisBackend]:
    """Give the lock backend ALIAS these OPTIONS."""
    backend = {"BACKEND": "django_distlock.backends.redis.RedisBackend", "OPTIONS": options}
    with override_settings(DISTLOCK={ALIAS: backend}):
        found = lock_backends[ALIAS]
        assert isinstance(found, RedisBackend)
        try:
            yield found
        finally:
            found.close()


def locks_of(server: Server, **arguments: Any) -> Any:
    """Keep the locks of ALIAS in this server. See locks_at()."""
    return locks_at(server.settings["PORT"], **arguments)


def client_path(make: Callable[[], Any]) -> str:
    """Return a new dotted path for the function that makes a client, for settings.

    With a known path, a process would reuse the servers that it found before.
    """
    name = f"client_{next(NUMBERS)}"
    globals()[name] = make
    return f"{__name__}.{name}"


NUMBERS = count()


def let_offers_last() -> dict[Script, str]:
    """Make offers last a minute; return the scripts' previous sources."""
    found = {
        script: script.source for script in vars(scripts).values() if isinstance(script, Script)
    }
    for script, source in found.items():
        vary(script, re.sub(r"local OFFER = \d+", "local OFFER = 60000", source))
    return found


@contextmanager
def lasting_offers() -> Iterator[None]:
    """Keep this process's offers from expiring in the block, however slow this machine is."""
    sources = let_offers_last()
    try:
        yield
    finally:
        for script, source in sources.items():
            vary(script, source)


def vary(script: Script, source: str) -> None:
    """Change the digest."""
    script.source, script.digest = source, Script(source).digest


def key_of(semaphore: str = "1234collectPayment", prefix: str = "site:") -> str:
    """Return the key of a lock in these stores; those of a client have no prefix."""
    return f"{prefix}distlock:{{{semaphore}}}"


def is_locked(server: Server, semaphore: str = "1234collectPayment") -> bool:
    """Ask the server itself."""
    with connect(server) as client:
        return bool(client.exists(key_of(semaphore)))


def connections(server: Server) -> int:
    """Return how many clients the server has, without this one."""
    with connect(server) as client:
        return len(client.client_list()) - 1


def why_not(semaphore: str) -> str:
    """Return why the store is unavailable for this lock; an empty text if it is available."""
    try:
        acquire(ALIAS, semaphore).release()
    except LockBackendUnavailable as error:
        return str(error)
    return ""


def waiting(server: Server, semaphore: str = "1234collectPayment") -> int:
    """Return how many wait in the queue of a lock, according to the server."""
    with connect(server) as client:
        return int(client.zcard(f"{key_of(semaphore)}:queue"))


def hurry(patch: pytest.MonkeyPatch, script: Script | None = None) -> None:
    """Limit each call, or each call of this script, to a moment for its answer."""
    ask_all = Node.ask_all

    def hurry_and_ask(node: Node, requests: Any, deadline: float, undo: Any = None) -> list[Any]:
        is_meant = script is None or name_of(requests[0]) == script.digest
        soon = clocks.monotonic() + 0.2
        return ask_all(node, requests, soon if is_meant else deadline, undo)

    patch.setattr(Node, "ask_all", hurry_and_ask)


def name_of(request: Any) -> Any:
    """Return a script's digest, or a command's name."""
    return request[1] if request[0] == "EVALSHA" else request[0]


@contextmanager
def commands(server: Server) -> Iterator[Counter[str]]:
    """Count the commands that clients, but not scripts, send in the block, by their names."""
    seen: Counter[str] = Counter()
    with connect(server) as client:
        before = _calls(client)
        yield seen
        after = _calls(client)
    seen.update({name: calls - before.get(name, 0) for name, calls in after.items()})
    seen.subtract({"info": 1})
    for name in [name for name, calls in seen.items() if not calls]:
        del seen[name]


def _calls(client: Any) -> dict[str, int]:
    found = client.info("commandstats")
    return {name.removeprefix("cmdstat_"): stat["calls"] for name, stat in found.items()}


def count_sent(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Collect how many commands are sent at once, each time."""
    sizes: list[int] = []
    send = RedisConnection.send

    def count_and_send(wire: RedisConnection, commands: Any) -> None:
        sizes.append(len(commands))
        send(wire, commands)

    monkeypatch.setattr(RedisConnection, "send", count_and_send)
    return sizes
