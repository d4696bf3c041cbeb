"""What docs/how-to/use-redis.md shows works."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import partial
from threading import Event
from typing import TYPE_CHECKING, Any

import pytest
from django.core.cache import caches
from django.test import override_settings
from redis import VERSION

from django_distlock import InvalidLockBackend, acquire_lock, distributed_lock, lock_backends
from django_distlock.backends.base import QueueingStore
from django_distlock.backends.operations import ListingStore
from django_distlock.records import LockQuery
from tests.support.children import tied
from tests.support.documentation import DOCUMENTS, example
from tests.support.paths import ROOT
from tests.support.redis_servers import Cluster, connect, place, start_sentinel

if TYPE_CHECKING:
    from tests.support.servers import Server

SEMAPHORE = "1234collectPayment"
RIGHTS = re.compile(r"^~distlock:\* .*$", re.MULTILINE)
CACHES = [
    pytest.param("django_redis.cache.RedisCache", id="django-redis"),
    pytest.param("django.core.cache.backends.redis.RedisCache", id="Django"),
]


def moved(configured: dict[str, Any], server: Server) -> dict[str, Any]:
    """Return the documented caches, at the tests' server."""
    here = "{}:{}".format(*place(server))
    caches = {
        alias: cache | {"LOCATION": re.sub(r"10\.0\.0\.[45]:6379", here, cache["LOCATION"])}
        for alias, cache in configured.items()
    }
    assert all(here in cache["LOCATION"] for cache in caches.values())
    return caches


def use_every_action() -> None:
    """Use every action of the store, with a waiter that is woken."""
    store = lock_backends["default"]
    assert isinstance(store, QueueingStore)
    lease = acquire_lock(SEMAPHORE)
    assert lease is not None
    woken = Event()
    queued = store.join(SEMAPHORE, "owner", "holder", woken.set)
    assert queued is not None
    lease.renew()
    lease.release()
    assert woken.wait(60)
    grant = store.acquire(SEMAPHORE, "owner", 60, "holder")
    store.leave(queued, True)
    assert grant
    assert grant.token is not None
    assert lease.token is not None
    assert grant.token > lease.token
    assert [(lock.semaphore, lock.token) for lock in store.held("1234")] == [
        (SEMAPHORE, grant.token)
    ]
    assert isinstance(store, ListingStore)
    found = store.find(SEMAPHORE)
    assert found is not None
    assert [lock.token for lock in store.page(LockQuery(search="PAY")).locks] == [found.token]
    assert not store.waiters(SEMAPHORE)
    assert store.force_release(SEMAPHORE, grant.token)
    if store.supports_pausing:
        pause = store.pause("1234", reason="deployment", by="ann")
        assert store.pauses() == [pause]
        assert acquire_lock(SEMAPHORE) is None
        assert store.resume("1234")
    with distributed_lock(SEMAPHORE, min_hold=60):
        pass
    assert acquire_lock(SEMAPHORE) is None


@pytest.mark.needs("redis")
@pytest.mark.parametrize("cache", CACHES)
def test_locks_in_a_database_of_their_own(cache: str, redis_server: Server) -> None:
    """Clearing the other database keeps the locks."""
    shown = example("how-to/use-redis.md", "Configure the store")
    of_django = {alias: each | {"BACKEND": cache} for alias, each in shown.CACHES.items()}
    configured = moved(of_django, redis_server)
    with override_settings(CACHES=configured, DISTLOCK=shown.DISTLOCK):
        use_every_action()
        lease = acquire_lock("other")
        assert lease is not None
        caches["default"].clear()
        lease.renew()
        caches["locks"].clear()
        assert [*lock_backends["default"].held()] == []


@pytest.mark.parametrize("cache", CACHES)
def test_tests_may_use_fakeredis(cache: str) -> None:
    """With its server, as documented, every action of the store works."""
    pytest.importorskip("fakeredis", reason="fakeredis needs redis-py 4.3")
    shown = example("how-to/use-redis.md", "Test with fakeredis")
    shown.CACHES["locks"]["BACKEND"] = cache
    with override_settings(CACHES=shown.CACHES, DISTLOCK=shown.DISTLOCK):
        use_every_action()
        lock_backends["default"].close()
    shown.server.shutdown()
    shown.server.server_close()


FAKE_SITE = """
from django.conf import settings
from tests.support.documentation import example
shown = example("how-to/use-redis.md", "Test with fakeredis")
settings.configure(CACHES=shown.CACHES, DISTLOCK=shown.DISTLOCK)
from django_distlock import acquire_lock
assert acquire_lock("1234collectPayment").release()
"""


def test_process_with_fakeredis_ends() -> None:
    """Though its server is still connected."""
    pytest.importorskip("fakeredis", reason="fakeredis needs redis-py 4.3")
    done = subprocess.run(
        tied([sys.executable, "-c", FAKE_SITE]),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("cache", "options"),
    [
        ("django_redis.cache.RedisCache", "CONNECTION_POOL_KWARGS"),
        ("django.core.cache.backends.redis.RedisCache", None),
    ],
)
def test_connections_of_fakeredis_are_refused(cache: str, options: str | None) -> None:
    """They have no socket."""
    fakeredis = pytest.importorskip("fakeredis", reason="fakeredis needs redis-py 4.3")
    shown = example("how-to/use-redis.md", "Configure the store")
    entry = shown.CACHES["locks"] | {"BACKEND": cache}
    kwargs = {"connection_class": fakeredis.FakeConnection}
    entry["OPTIONS"] = {options: kwargs} if options else kwargs
    with override_settings(CACHES={"locks": entry}, DISTLOCK=shown.DISTLOCK):
        with pytest.raises(InvalidLockBackend, match="Start its TcpFakeServer"):
            acquire_lock(SEMAPHORE)


def test_tests_need_no_redis() -> None:
    """Locks in memory do the same."""
    shown = example("how-to/use-redis.md", "Test without Redis")
    with override_settings(DISTLOCK=shown.DISTLOCK):
        use_every_action()
        store: Any = lock_backends["default"]
        assert acquire_lock("other")
        store.clear()
        assert [*store.held()] == []


@pytest.mark.needs("redis")
def test_sentinels_lead_to_the_locks(redis_server: Server) -> None:
    """They are configured per cache, so another cache may use a single server."""
    configured = example("how-to/use-redis.md", "Use sentinels").CACHES
    with start_sentinel(redis_server) as sentinel:
        configured["locks"]["LOCATION"] = "redis://locks/1"
        configured["locks"]["OPTIONS"]["SENTINELS"] = [place(sentinel)]
        distlock = example("how-to/use-redis.md", "Configure the store").DISTLOCK
        with override_settings(CACHES=configured, DISTLOCK=distlock):
            use_every_action()


@pytest.mark.needs("redis_cluster")
def test_cluster_is_found_by_a_callable(
    redis_cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its user needs only the documented rights."""
    shown = example("how-to/use-redis.md", "Use a cluster")
    user = {"username": "locks", "password": "secret"}
    monkeypatch.setitem(sys.modules, "shop.locks", shown)
    host, port = place(redis_cluster.nodes[0])
    here = partial(shown.RedisCluster, **user)
    monkeypatch.setattr(shown, "RedisCluster", lambda **_: here(host=host, port=port))
    rights = f"{documented_rights()} +cluster|slots {'+info' if VERSION < (5, 1) else ''}"
    with override_settings(DISTLOCK=shown.DISTLOCK):
        for node in redis_cluster.nodes:
            add_user(node, rights)
        use_every_action()
        for node in redis_cluster.nodes:
            remove_user_and_keys(node)


@pytest.mark.needs("redis")
def test_user_needs_no_other_rights(redis_server: Server) -> None:
    """Only the documented ones: nothing is refused."""
    shown = example("how-to/use-redis.md", "Configure the store")
    configured = moved(shown.CACHES, redis_server)
    configured["locks"]["LOCATION"] = configured["locks"]["LOCATION"].replace(
        "redis://", "redis://locks:secret@"
    )
    add_user(redis_server, documented_rights())
    with override_settings(CACHES=configured, DISTLOCK=shown.DISTLOCK):
        use_every_action()
    with connect(redis_server) as client:
        assert client.acl_log() == []
    remove_user_and_keys(redis_server)


def documented_rights() -> str:
    """Return the documented line of rights."""
    [rights] = RIGHTS.findall((DOCUMENTS / "how-to/use-redis.md").read_text(encoding="utf-8"))
    return str(rights)


def add_user(server: Server, rights: str) -> None:
    """Create a user who has these rights and no others."""
    with connect(server) as client:
        client.acl_log_reset()
        client.execute_command("ACL SETUSER locks reset on >secret " + rights)


def remove_user_and_keys(server: Server) -> None:
    """Restore the server."""
    with connect(server) as client:
        client.acl_deluser("locks")
        client.flushall()


@pytest.mark.needs("redis")
def test_keys_are_the_documented_ones(redis_server: Server) -> None:
    """Those of a held lock, and those of its queue."""
    shown = example("how-to/use-redis.md", "Configure the store")
    text = (DOCUMENTS / "how-to/use-redis.md").read_text(encoding="utf-8")
    configured = moved(shown.CACHES, redis_server)
    with (
        override_settings(CACHES=configured, DISTLOCK=shown.DISTLOCK),
        connect(redis_server, 1) as client,
    ):
        with distributed_lock("{50%}"):
            store = lock_backends["default"]
            assert isinstance(store, QueueingStore)
            queued = store.join("{50%}", "owner", "holder", Event().set)
            assert queued is not None
            documented = re.findall(r"^\| `(distlock:\{<semaphore>\}\S*)` \|", text, re.MULTILINE)
            expected = [each.replace("<semaphore>", "%7B50%25%7D") for each in documented]
            assert sorted(client.keys()) == sorted(expected)
            channels = client.pubsub_channels()
            assert all(re.fullmatch(r"distlock:[0-9a-f]{24}", channel) for channel in channels)
            assert channels
            store.leave(queued, False)


@pytest.mark.needs("redis")
def test_locks_are_listed_in_a_shell(
    redis_server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the documented lines."""
    shown = example("how-to/use-redis.md", "Configure the store")
    configured = moved(shown.CACHES, redis_server)
    with override_settings(CACHES=configured, DISTLOCK=shown.DISTLOCK):
        with distributed_lock(SEMAPHORE) as lease:
            example("how-to/use-redis.md", "See what is in Redis")
    assert capsys.readouterr().out.startswith(f"{SEMAPHORE} ")
    assert str(lease.token)
