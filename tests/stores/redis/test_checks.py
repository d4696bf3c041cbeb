"""What `manage.py check` says of locks in Redis, and which settings are refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import redis.asyncio
from django.core import checks
from django.core.cache.backends.redis import RedisCache
from django.core.checks.registry import registry
from django.test import override_settings
from django_redis.client import HerdClient, ShardClient  # type: ignore[import-untyped]
from redis import VERSION, Redis, RedisCluster
from redis.exceptions import ConnectionError as RedisConnectionError

from django_distlock import InvalidLockBackend, LockBackendUnavailable, acquire_lock, lock_backends
from django_distlock.checks import check_deployment, check_lock_backends
from tests.support.holders import acquire
from tests.support.ports import HOST, reserved_port
from tests.support.redis_servers import connect, place
from tests.support.redis_stores import (
    ALIAS,
    DJANGO,
    DJANGO_REDIS,
    locks_at,
    locks_by,
    locks_of,
    on_each_library,
)

if TYPE_CHECKING:
    from tests.support.redis_servers import Cluster
    from tests.support.servers import Server

pytestmark = pytest.mark.needs("redis")
REDIS_BACKEND = "django_distlock.backends.redis.RedisBackend"


# Clients of a site


def unreachable_client() -> Redis:
    """Fail as a client that connects at once, when the server is down."""
    raise RedisConnectionError("nobody is there")


def unreachable_cluster() -> RedisCluster:
    """Fail by redis-py itself: it asks for the slots at once."""
    with reserved_port() as port:
        return RedisCluster(HOST, port)


def broken_client() -> Redis:
    """Fail as whatever has a mistake in it."""
    raise ValueError("no such setting")


def async_client() -> Any:
    """Return a client that only async code can use."""
    return redis.asyncio.Redis()


def no_client() -> Any:
    """Return something else."""
    return {"host": HOST}


NOT_CALLABLE = 5


class OddCache(RedisCache):
    """A cache whose client can't be made."""

    @property
    def _cache(self) -> Any:
        raise OSError("no such file: /etc/redis.crt")


class OwnShardClient(ShardClient):  # type: ignore[misc]
    """What a site may have made of it."""


class OwnHerdClient(HerdClient):  # type: ignore[misc]
    """Likewise."""


def told(*, deployed: bool) -> list[checks.CheckMessage]:
    """Return what the checks say."""
    return [*(check_deployment() if deployed else check_lock_backends())]


def test_deployment_check_is_for_deployments_only() -> None:
    """It asks servers, which need not be there when a site is built."""
    check: object = check_deployment
    assert check in registry.get_checks(include_deployment_checks=True)
    assert check not in registry.get_checks()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("unreachable_client", r"nobody is there$"),
        ("unreachable_cluster", r"Redis Cluster cannot be connected"),
    ],
)
def test_client_that_finds_no_server_is_told_at_use(name: str, reason: str) -> None:
    """Not by the checks: the servers need not be there yet. And it is tried again."""
    client = f"{__name__}.{name}"
    match = rf"^DISTLOCK\['{ALIAS}'\]: client '{client}': {reason}"
    with override_settings(DISTLOCK=by(client=client)):
        for _ in range(2):
            with pytest.raises(LockBackendUnavailable, match=match):
                acquire_lock("1234collectPayment", backend=ALIAS)
        assert told(deployed=False) == []
        assert told(deployed=True) == []


def by(**options: Any) -> dict[str, Any]:
    """Return a DISTLOCK whose backend has these OPTIONS."""
    return {ALIAS: {"BACKEND": REDIS_BACKEND, "OPTIONS": options}}


NEITHER = (
    r"give either cache, an alias of CACHES that django-redis or Django's RedisCache serves, or "
    r"client, the dotted path of a callable that returns a redis-py client\."
)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({}, NEITHER),
        ({"cache": "default", "client": f"{__name__}.no_client"}, NEITHER),
        (
            {"client": f"{__name__}.nowhere"},
            (
                rf"client '{__name__}\.nowhere' is no callable that returns a redis-py client: "
                r"ImportError\("
            ),
        ),
        ({"client": "nowhere"}, r"client 'nowhere' is no callable that .*: ImportError\("),
        ({"client": f"{__name__}.NOT_CALLABLE"}, r"client '.*' is no callable that .*: TypeError"),
        (
            {"client": f"{__name__}.broken_client"},
            (
                r"client '.*\.broken_client' is no callable that returns a redis-py client: "
                r"ValueError\('no such setting'\)"
            ),
        ),
        (
            {"client": f"{__name__}.async_client"},
            (
                r"a redis\.asyncio\.client\.Redis was given, but a redis\.Redis or "
                r"redis\.RedisCluster "
                r"is needed, for async code, too\."
            ),
        ),
        ({"client": f"{__name__}.no_client"}, r"a builtins\.dict was given, but a redis\.Redis"),
        ({"cache": "default"}, r"cache 'default' is a LocMemCache, which is another one in each"),
        ({"cache": "memcached"}, r"cache 'memcached' is a PyMemcacheCache: use BACKEND '"),
        ({"cache": "nowhere"}, r"cache 'nowhere' is no alias of CACHES, which has 'default'"),
        (
            {"client": f"{__name__}.no_client", "store_timeout": 0},
            r"store_timeout is 0, but must",
        ),
    ],
)
def test_settings_that_lead_to_no_servers_are_refused(options: dict[str, Any], reason: str) -> None:
    """By the checks as at use, with the reason; the deployment check repeats nothing."""
    caches = {
        "default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
        "memcached": {
            "BACKEND": "django.core.cache.backends.memcached.PyMemcacheCache",
            "LOCATION": f"{HOST}:1",
        },
    }
    with override_settings(CACHES=caches, DISTLOCK=by(**options)):
        check_refusal(reason)


def check_refusal(reason: str) -> None:
    """Expect that the lock backend can't be made, for this reason."""
    with pytest.raises(InvalidLockBackend, match=rf"^DISTLOCK\['{ALIAS}'\]: {reason}") as caught:
        lock_backends[ALIAS]
    [message] = told(deployed=False)
    assert (message.id, message.msg) == ("distlock.E001", str(caught.value))
    assert told(deployed=True) == []


UNSUITED = [
    ("sharded.ShardClient", r"which spreads keys over servers by itself: when the list of these"),
    ("herd.HerdClient", r"which keeps entries beyond their ttl, which suits a cache, not locks\."),
]


@pytest.mark.parametrize(("path", "reason"), UNSUITED)
def test_clients_of_django_redis_that_are_no_place_for_locks_are_refused(
    path: str, reason: str
) -> None:
    """And so are subclasses of theirs."""
    name = f"django_redis.client.{path}"
    advice = r".*\. Use django-redis's DefaultClient or SentinelClient\.$"
    for client in (name, f"{__name__}.Own{path.partition('.')[2]}"):
        cache = {
            "BACKEND": DJANGO_REDIS,
            "LOCATION": [f"redis://{HOST}:1/0"],
            "OPTIONS": {"CLIENT_CLASS": client},
        }
        with override_settings(CACHES={ALIAS: cache}, DISTLOCK=by(cache=ALIAS)):
            check_refusal(rf"cache '{ALIAS}' has CLIENT_CLASS '{name}', {reason}")
            with pytest.raises(InvalidLockBackend, match=advice):
                lock_backends[ALIAS]


@pytest.mark.parametrize(
    ("cache", "reason"),
    [
        (
            {"BACKEND": f"{__name__}.OddCache"},
            r" makes no client: OSError\('no such file: /etc/redis\.crt'\)",
        ),
        ({"BACKEND": DJANGO_REDIS, "LOCATION": f"{HOST}:1"}, r": in LOCATION, a URL can't be read"),
    ],
)
def test_cache_that_makes_no_client_is_refused(cache: dict[str, Any], reason: str) -> None:
    """With its error."""
    entry = {"LOCATION": f"redis://{HOST}:1/0", **cache}
    with override_settings(CACHES={ALIAS: entry}, DISTLOCK=by(cache=ALIAS)):
        check_refusal(rf"cache '{ALIAS}'{reason}")


# What is warned of


@pytest.mark.needs("redis_cluster")
def test_store_of_a_client_has_nothing_to_say() -> None:
    """Only a cache may be somebody else's, too."""
    with locks_by(client="tests.app.backends.redis_cluster"):
        assert told(deployed=False) == []


def test_cache_of_its_own_has_nothing_to_say(redis_server: Server) -> None:
    """Whichever library it is of."""
    for library in (DJANGO, DJANGO_REDIS):
        with locks_of(redis_server, library=library):
            assert told(deployed=False) == []


@on_each_library
def test_place_that_is_shared_is_warned_of(redis_server: Server, library: str) -> None:
    """And where there are two reasons, of both."""
    location = f"redis://{HOST}:{place(redis_server)[1]}/0"
    entry = {"BACKEND": library, "LOCATION": location, "OPTIONS": {}}
    if library == DJANGO_REDIS:
        entry["OPTIONS"] = {"IGNORE_EXCEPTIONS": True}
    caches = {"default": {"BACKEND": DJANGO, "LOCATION": location}, "locks": entry}
    with override_settings(CACHES=caches, DISTLOCK=by(cache="locks")):
        found = told(deployed=False)
    assert [message.id for message in found] == ["distlock.W002", "distlock.W003"][
        : 2 if library == DJANGO_REDIS else 1
    ]
    assert "cache 'locks' is in the same place as 'default'" in found[0].msg


def protocol(library: str, version: int) -> dict[str, Any]:
    """Return the options of a cache whose client speaks this version of the protocol."""
    chosen = {"protocol": version} if VERSION >= (5,) else {}
    return {"CONNECTION_POOL_KWARGS": chosen} if library == DJANGO_REDIS else chosen


RESP3 = pytest.mark.skipif(VERSION < (5,), reason="redis-py speaks it from 5.0 on")
PROTOCOLS = [2, pytest.param(3, marks=RESP3)]


def warned(policy: str) -> str:
    """Return of which server the only warning is, which is of this policy."""
    [message] = told(deployed=True)
    assert (message.id, message.level) == ("distlock.W004", checks.WARNING)
    assert message.hint is not None
    assert "maxmemory-policy noeviction" in message.hint
    start, _, rest = message.msg.partition(" has maxmemory-policy ")
    assert rest == (
        f"'{policy}': where memory is short, it may evict a lock that is held, and grant it again."
    )
    return start.removeprefix(f"DISTLOCK[{ALIAS!r}]: ")


@on_each_library
@pytest.mark.parametrize("version", PROTOCOLS)
def test_server_that_may_evict_locks_is_warned_of(
    redis_server: Server, library: str, version: int
) -> None:
    """Whichever version of the protocol the cache speaks."""
    options = protocol(library, version)
    with locks_of(redis_server, library=library, options=options), connect(redis_server) as client:
        assert told(deployed=True) == []
        client.config_set("maxmemory-policy", "allkeys-lru")
        assert warned("allkeys-lru") == "Redis at {}:{}".format(*place(redis_server))
        client.config_set("maxmemory-policy", "noeviction")
        assert told(deployed=True) == []


@on_each_library
@pytest.mark.parametrize("version", PROTOCOLS)
def test_server_that_does_not_tell_is_warned_of(
    redis_server: Server, library: str, version: int
) -> None:
    """An operator may know that it evicts nothing, and silence this; locks can be had."""
    host, port = place(redis_server)
    location = f"redis://locks:secret@{host}:{port}/0"
    options = protocol(library, version)
    with connect(redis_server) as client:
        client.execute_command("ACL SETUSER locks on >secret ~* &* +@all -config")
        try:
            with locks_at(port, location=location, library=library, options=options):
                assert acquire(ALIAS).release()
                assert warned("unknown") == f"Redis at {host}:{port}"
        finally:
            client.acl_deluser("locks")


@on_each_library
def test_server_that_is_down_is_warned_of(library: str, unused_port: int) -> None:
    """It may evict, for all that is known; a client that connects at use fails nothing else."""
    with locks_at(unused_port, library=library):
        assert told(deployed=False) == []
        assert warned("unknown") == f"Redis at {HOST}:{unused_port}"


@pytest.mark.needs("redis_cluster")
def test_each_node_of_a_cluster_is_asked(redis_cluster: Cluster) -> None:
    """And only those are warned of that may evict."""
    node = redis_cluster.nodes[1]
    with locks_by(client="tests.app.backends.redis_cluster"), connect(node) as client:
        assert told(deployed=True) == []
        client.config_set("maxmemory-policy", "volatile-ttl")
        try:
            assert warned("volatile-ttl") == "Redis at {}:{}".format(*place(node))
        finally:
            client.config_set("maxmemory-policy", "noeviction")
