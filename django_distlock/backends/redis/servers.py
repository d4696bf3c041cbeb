"""Which Redis servers have the locks, and where the settings say they are."""

import asyncio
import concurrent.futures
import logging
import math
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextlib import suppress
from threading import Thread
from typing import Any, Final, Protocol, TypeVar
from urllib.parse import urlsplit

from django.core.cache import caches
from django.utils.module_loading import import_string
from redis import Redis, RedisCluster
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisClusterException, RedisError
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelConnectionPool

from django_distlock import clocks
from django_distlock.arguments import validate_text
from django_distlock.backends.cache_checks import REDIS_CACHES, find_cache, paths, servers_of
from django_distlock.backends.sockets.daemons import NoThread, start_daemon
from django_distlock.exceptions import InvalidLockBackend, LockBackendUnavailable
from django_distlock.redaction.credentials import UNREADABLE_URL

from .connections import Moved, Node

T = TypeVar("T")

logger = logging.getLogger("django_distlock")

BETWEEN_LOOK_UPS: Final = 1.0
"""Seconds, at least, between two times that a cluster is asked which node has what."""
MOVES: Final = 5
"""How often a call follows a slot that a cluster is moving about."""


class Servers(Protocol):
    """Where the locks are: in one server, or spread over the nodes of a cluster."""

    def of(self, key: str) -> Node:
        """Return the node that has this key."""
        ...

    def all(self) -> list[Node]:
        """Return all that have any."""
        ...

    def slot(self, key: str) -> int:
        """Return what is the same for keys that one script may be given."""
        ...

    def group_by_slot(self) -> None:
        """Learn that one script may only be given keys of one slot."""
        ...

    def look_up(self) -> Future[None]:
        """Begin to find out anew which node has what; NoThread if that can't be begun."""
        ...

    def suspect(self) -> None:
        """Take note that a node can't be asked: another one may have its part by now."""
        ...


class OneServer:
    """One server, or the one that sentinels say is the master."""

    def __init__(self, pool: Any, timeout: float) -> None:
        self._node = Node(pool, timeout)
        self._has_slots = False

    def of(self, key: str) -> Node:
        """Return the only one."""
        return self._node

    def all(self) -> list[Node]:
        """Return the only one."""
        return [self._node]

    def slot(self, key: str) -> int:
        """Return the same for all, unless a cluster turned out to be behind the address."""
        return key_slot(key.encode()) if self._has_slots else 0

    def group_by_slot(self) -> None:
        """Learn it from the server's refusal: it may be a proxy that hides all else."""
        self._has_slots = True

    def look_up(self) -> Future[None]:
        """Tell what is wrong: only a cluster moves keys."""
        raise LockBackendUnavailable(
            f"{self._node} is in a Redis Cluster: give client, a callable that returns a "
            "redis.RedisCluster."
        )

    def suspect(self) -> None:
        """Do nothing: it is where it was."""


class Cluster:
    """The nodes of a cluster, each of which has a part of the keys."""

    def __init__(self, client: Any, timeout: float) -> None:
        self._client = client
        self._timeout = timeout
        self._nodes: dict[str, Node] = {}
        self._looks_up: Thread | None = None
        self._known: Future[None] = Future()
        """Set when it has been looked up which node has what."""
        self._looked_up = -math.inf

    def of(self, key: str) -> Node:
        """Return the one that has the key's slot."""
        return self._node(self._client.get_node_from_key(key))

    def all(self) -> list[Node]:
        """Return the primaries."""
        return [self._node(each) for each in self._client.get_primaries()]

    def slot(self, key: str) -> int:
        """Return the key's slot."""
        slot: int = self._client.keyslot(key)
        return slot

    def group_by_slot(self) -> None:
        """Do nothing: they are."""

    def look_up(self) -> Future[None]:
        """Ask the cluster for its slots in the background, unless that is being done.

        Not in the call that needs them: redis-py asks one node after the other, in its own time.
        """
        if self._looks_up is None or not self._looks_up.is_alive():
            known: Future[None] = Future()
            name = "django_distlock looks up a cluster"
            self._looks_up = Thread(target=self._look_up, args=[known], name=name)
            start_daemon(self._looks_up)
            self._known = known
        return self._known

    def suspect(self) -> None:
        """Look up in the background which node has what, at most once a second."""
        if self._looks_up is not None and self._looks_up.is_alive():
            return
        if clocks.monotonic() - self._looked_up < BETWEEN_LOOK_UPS:
            return
        self._looked_up = clocks.monotonic()
        try:
            self.look_up().add_done_callback(_log_failure)
        except NoThread as error:
            logger.warning("It isn't looked up which node of a Redis Cluster has what: %s", error)

    def _look_up(self, known: Future[None]) -> None:
        known.set_running_or_notify_cancel()  # from here on, who waits for it can't cancel it
        try:
            self._client.nodes_manager.initialize()
        except Exception as error:  # noqa: BLE001 - raised where it is waited for
            known.set_exception(error)
        else:
            known.set_result(None)

    def _node(self, found: Any) -> Node:
        node = self._nodes.get(found.name)
        if node is None:
            pool = self._client.get_redis_connection(found).connection_pool
            node = self._nodes.setdefault(found.name, Node(pool, self._timeout))
        return node


def _log_failure(known: Future[None]) -> None:
    if error := known.exception():
        logger.warning("A Redis Cluster doesn't tell which node has what: %s", error)


def at_node(servers: Servers, key: str, deadline: float, ask: Callable[[Node], T]) -> T:
    """Ask the node that has the key, wherever a cluster may just have moved it."""
    try:
        for _ in range(MOVES):
            try:
                return ask(servers.of(key))
            except Moved:
                known = servers.look_up()
                concurrent.futures.wait([known], max(0, deadline - clocks.monotonic()))
                _raise_unless(known)
        return ask(servers.of(key))
    except LockBackendUnavailable:
        servers.suspect()
        raise
    except FAILURES as error:
        raise _unavailable(error, key) from error


async def aat_node(
    servers: Servers, key: str, deadline: float, ask: Callable[[Node], Awaitable[T]]
) -> T:
    """See at_node()."""
    try:
        for _ in range(MOVES):
            try:
                return await ask(servers.of(key))
            except Moved:
                known = servers.look_up()
                await _settled(known, max(0, deadline - clocks.monotonic()))
                _raise_unless(known)
        return await ask(servers.of(key))
    except LockBackendUnavailable:
        servers.suspect()
        raise
    except FAILURES as error:
        raise _unavailable(error, key) from error


async def _settled(known: Future[None], seconds: float) -> None:
    """Return when it is, or so many seconds are over."""
    waiting = asyncio.wrap_future(known)
    with suppress(*FAILURES):
        await asyncio.wait_for(waiting, seconds)


def _raise_unless(known: Future[None]) -> None:
    if not known.done():
        raise LockBackendUnavailable("Redis Cluster: it isn't known in time which node has what.")
    known.result()


FAILURES: Final = (Moved, RedisError, RedisClusterException, OSError)
"""What may come of looking for a cluster's node."""


def _unavailable(error: Exception, key: str) -> LockBackendUnavailable:
    """Return what it means for who asks for a lock."""
    if isinstance(error, Moved):
        return LockBackendUnavailable(f"Redis Cluster keeps moving {key!r}.")
    return LockBackendUnavailable(f"Redis Cluster: {error}")


_found: dict[tuple[Any, ...], Servers] = {}


def find_servers(
    alias: str, cache: str | None, client: str | None, timeout: float
) -> tuple[Servers, str]:
    """Return this process's way to the servers, and what the cache's keys begin with.

    Its threads have their connections together, so that they need few.
    """
    name = f"DISTLOCK[{alias!r}]"
    if client is not None and cache is None:
        try:
            client = validate_text("client", client, ", a dotted path")
        except TypeError as error:
            raise InvalidLockBackend(f"{name}: {error}") from error
        place: tuple[Any, ...] = "client", client, timeout
        found = _found.get(place) or _wrap(name, _call(name, client), timeout)
        return _found.setdefault(place, found), ""
    if cache is None or client is not None:
        raise InvalidLockBackend(
            f"{name}: give either cache, an alias of CACHES that django-redis or Django's "
            "RedisCache serves, or client, the dotted path of a callable that returns a redis-py "
            "client."
        )
    used: Any = find_cache(alias, cache, REDIS_CACHES)
    _check_urls(f"{name}: cache {cache!r}", caches.settings[cache].get("LOCATION"))
    place = "cache", cache, repr(caches.settings[cache]), timeout
    found = _found.get(place) or _wrap(name, _client_of(name, cache, used), timeout)
    return _found.setdefault(place, found), f"{used.key_prefix}:" if used.key_prefix else ""


def _check_urls(name: str, location: Any) -> None:
    """Raise for a URL that would be read otherwise than it was meant, as if that were all right.

    A special character in a password ends what is taken for the user, password and host.
    """
    for url in servers_of(location):
        if isinstance(url, str) and not _is_sound(url):
            raise InvalidLockBackend(f"{name}: in LOCATION, {UNREADABLE_URL}.")


def _is_sound(url: str) -> bool:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return False
    rest = parts.path + parts.fragment if parts.scheme != "unix" else ""
    if "@" not in parts.netloc:
        rest += parts.path + parts.query + parts.fragment
    return "://" in url and "@" not in rest


def _call(name: str, path: str) -> Any:
    """Return the client that the callable makes."""
    try:
        return import_string(path)()
    except (RedisConnectionError, RedisClusterException) as error:
        raise LockBackendUnavailable(f"{name}: client {path!r}: {error}") from error
    except Exception as error:
        raise InvalidLockBackend(
            f"{name}: client {path!r} is no callable that returns a redis-py client: {error!r}"
        ) from error


def _client_of(name: str, alias: str, cache: Any) -> Any:
    """Return the redis-py client by which the cache writes."""
    try:
        if not hasattr(cache, "client"):
            return cache._cache.get_client(write=True)
        for path in paths(type(cache.client)):
            if reason := UNSUITED_CLIENTS.get(path):
                raise InvalidLockBackend(
                    f"{name}: cache {alias!r} has CLIENT_CLASS {path!r}, which {reason}. Use "
                    "django-redis's DefaultClient or SentinelClient."
                )
        return cache.client.get_client(write=True)
    except InvalidLockBackend:
        raise
    except Exception as error:
        raise InvalidLockBackend(f"{name}: cache {alias!r} makes no client: {error!r}") from error


UNSUITED_CLIENTS: Final = {
    "django_redis.client.sharded.ShardClient": (
        "spreads keys over servers by itself: when the list of these changes, a lock is looked for "
        "on another one, and granted again"
    ),
    "django_redis.client.herd.HerdClient": (
        "lets entries outlive their time, which is for what is cached"
    ),
}


def _wrap(name: str, client: Any, timeout: float) -> Servers:
    if isinstance(client, RedisCluster):
        return Cluster(client, timeout)
    if not isinstance(client, Redis):
        raise InvalidLockBackend(
            f"{name}: a {type(client).__module__}.{type(client).__qualname__} was given, but a "
            "redis.Redis or redis.RedisCluster is needed, for async code, too."
        )
    pool = client.connection_pool
    made = pool.connection_class
    if made.__module__.partition(".")[0] == "fakeredis":
        raise InvalidLockBackend(
            f"{name}: {made.__qualname__} of fakeredis has no socket. Start its TcpFakeServer and "
            "give its address, or let tests keep their locks in a MemoryBackend."
        )
    if isinstance(pool, SentinelConnectionPool):
        pool = _in_time(pool, timeout)
    return OneServer(pool, timeout)


def _in_time(pool: SentinelConnectionPool, timeout: float) -> SentinelConnectionPool:
    """Return a pool whose sentinels have to answer in half of the time, together."""
    manager = pool.sentinel_manager
    addresses = [sentinel.connection_pool.connection_kwargs for sentinel in manager.sentinels]
    each = timeout / 2 / max(1, len(addresses))
    options = {"socket_timeout": each, "socket_connect_timeout": each}
    bounded = Sentinel(  # type: ignore[no-untyped-call]
        [(address["host"], address["port"]) for address in addresses],
        manager.min_other_sentinels,
        {**manager.sentinel_kwargs, **options, "retry": Retry(NoBackoff(), 0)},
    )
    kwargs = {**pool.connection_kwargs, "connection_class": pool.connection_class}
    del kwargs["connection_pool"]
    return SentinelConnectionPool(pool.service_name, bounded, **kwargs)  # type: ignore[no-untyped-call]
