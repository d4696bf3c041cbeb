"""The system checks of the Redis backend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from django.core import checks
from django.core.checks.registry import registry
from django.test import override_settings
from redis import VERSION

from django_distlock.checks import check_deployment
from tests.support.holders import acquire
from tests.support.ports import HOST
from tests.support.redis_servers import connect, place
from tests.support.redis_settings import by, messages_of_checks
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


def test_deployment_check_is_for_deployments_only() -> None:
    """It asks servers, which need not run when a site is built."""
    check: object = check_deployment
    assert check in registry.get_checks(include_deployment_checks=True)
    assert check not in registry.get_checks()


# What is warned of


@pytest.mark.needs("redis_cluster")
def test_store_of_a_client_has_nothing_to_say() -> None:
    """Only a cache may be shared with the site."""
    with locks_by(client="tests.app.backends.redis_cluster"):
        assert messages_of_checks(deployed=False) == []


def test_separate_cache_has_no_messages(redis_server: Server) -> None:
    """Of either library."""
    for library in (DJANGO, DJANGO_REDIS):
        with locks_of(redis_server, library=library):
            assert messages_of_checks(deployed=False) == []


@on_each_library
def test_place_that_is_shared_is_warned_of(redis_server: Server, library: str) -> None:
    """If there are two reasons, the warning has both."""
    location = f"redis://{HOST}:{place(redis_server)[1]}/0"
    entry = {"BACKEND": library, "LOCATION": location, "OPTIONS": {}}
    if library == DJANGO_REDIS:
        entry["OPTIONS"] = {"IGNORE_EXCEPTIONS": True}
    caches = {"default": {"BACKEND": DJANGO, "LOCATION": location}, "locks": entry}
    with override_settings(CACHES=caches, DISTLOCK=by(cache="locks")):
        found = messages_of_checks(deployed=False)
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
    """Check that the only warning is about this policy; return its server."""
    [message] = messages_of_checks(deployed=True)
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
        assert messages_of_checks(deployed=True) == []
        client.config_set("maxmemory-policy", "allkeys-lru")
        assert warned("allkeys-lru") == "Redis at {}:{}".format(*place(redis_server))
        client.config_set("maxmemory-policy", "noeviction")
        assert messages_of_checks(deployed=True) == []


@on_each_library
@pytest.mark.parametrize("version", PROTOCOLS)
def test_server_that_hides_its_policy_is_warned_of(
    redis_server: Server, library: str, version: int
) -> None:
    """An operator who knows that it evicts nothing can silence this; locks work."""
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
def test_server_that_is_down_is_an_error(library: str, unused_port: int) -> None:
    """Of the deployment check only. Its policy is unknown, and not asked for."""
    with locks_at(unused_port, library=library):
        assert messages_of_checks(deployed=False) == []
        (message,) = messages_of_checks(deployed=True)
    assert message.id == "distlock.E009"
    assert f"{HOST}:{unused_port}" in message.msg


@pytest.mark.needs("redis_cluster")
def test_each_node_of_a_cluster_is_asked(redis_cluster: Cluster) -> None:
    """Only nodes that may evict are warned of."""
    node = redis_cluster.nodes[1]
    with locks_by(client="tests.app.backends.redis_cluster"), connect(node) as client:
        assert messages_of_checks(deployed=True) == []
        client.config_set("maxmemory-policy", "volatile-ttl")
        try:
            assert warned("volatile-ttl") == "Redis at {}:{}".format(*place(node))
        finally:
            client.config_set("maxmemory-policy", "noeviction")
