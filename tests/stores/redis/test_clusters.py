"""Clusters that keep locks: their nodes die, their slots move; and sentinels."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from redis import Redis, RedisCluster
from redis.exceptions import ClusterError, RedisClusterException, SlotNotCoveredError
from redis.exceptions import ConnectionError as RedisConnectionError

from django_distlock import (
    LockBackendUnavailable,
    aacquire_lock,
    acquire_lock,
    clocks,
    lock_backends,
)
from django_distlock.acquisitions import new_owner
from django_distlock.backends.pools import Pool
from django_distlock.backends.redis import servers as module
from django_distlock.backends.redis.connections import Moved, Node
from django_distlock.backends.redis.wire import RedisWire
from django_distlock.leases import Extension
from tests.support.concurrency import Interrupted, elsewhere, run, until
from tests.support.holders import acquire, due_now, renewed_since
from tests.support.ports import HOST
from tests.support.redis_servers import (
    SENTINEL_NAME,
    connect,
    place,
    start_cluster_replica,
    start_redis_cluster,
    start_sentinel,
)
from tests.support.redis_stores import (
    ALIAS,
    DJANGO,
    DJANGO_REDIS,
    commands,
    key_of,
    locks_at,
    locks_by,
    locks_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django_distlock import Lease
    from django_distlock.backends.redis import RedisBackend
    from tests.support.redis_servers import Cluster
    from tests.support.servers import Server

pytestmark = [pytest.mark.needs("redis", "redis_cluster"), pytest.mark.once]
PLACES: list[tuple[str, int]] = []
"""Where the clients of the clusters that tests start ask first."""


def client_of_nodes() -> RedisCluster:
    """Return a client that knows the last of the nodes; as a site would, without any options."""
    return RedisCluster(*PLACES[-1])


def client_of_node() -> Redis:
    """Return a client that knows nothing of clusters."""
    return Redis(*PLACES[-1])


@pytest.fixture(autouse=True)
def ways(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each test find its own way to the servers."""
    monkeypatch.setattr(module, "_found", {})


@contextmanager
def known(node: Server, client: str = "client_of_nodes", **store: Any) -> Iterator[RedisBackend]:
    """Let the locks of ALIAS be where a client of this node finds them."""
    PLACES.append(place(node))
    try:
        with locks_by(client=f"{__name__}.{client}", **store) as found:
            yield found
    finally:
        PLACES.pop()


@pytest.fixture
def store(redis_cluster: Cluster) -> Iterator[Any]:
    """Return a lock store in the cluster that all tests share."""
    with known(redis_cluster.nodes[0]) as found:
        yield found


def at(store: Any, node: Server, number: int) -> list[str]:
    """Return so many semaphores that the node has."""
    host, port = place(node)
    end = f"{host}:{port}"
    names = map(str, range(10_000))
    found = (name for name in names if str(store._servers.of(store._key(name))).endswith(end))
    return [next(found) for _ in range(number)]


# A node dies


def test_cluster_goes_on_when_one_of_its_nodes_dies(lost: dict[Lease, str]) -> None:
    """The others' leases are held all the while, and the replica that is promoted is found."""
    with start_redis_cluster() as cluster:
        healthy, _, victim = cluster.nodes
        replica = start_cluster_replica(cluster, victim)
        with known(healthy) as store, connect(replica) as promoted:
            *spared, there = [acquire(ALIAS, name, ttl=4) for name in at(store, healthy, 6)]
            inherited, forgotten, unused = at(store, victim, 3)
            heirs = acquire(ALIAS, inherited, ttl=60)
            forgets = acquire(ALIAS, forgotten, ttl=60, renew=False)
            ends = [lease.expires_at for lease in spared]
            with connect(victim) as client:
                assert client.wait(1, 10_000) == 1
            victim.kill()
            renewed = renewed_since(spared)
            due_now([*spared, heirs])
            until(renewed)
            assert not lost
            assert heirs.held
            assert there.release() is True
            for name in (inherited, unused):
                with pytest.raises(LockBackendUnavailable, match=f"Redis at {HOST}:"):
                    acquire_lock(name, backend=ALIAS)

            promoted.execute_command("CLUSTER FAILOVER TAKEOVER")
            taken_over = clocks.monotonic()
            until(lambda: not why_not(unused))
            assert clocks.monotonic() - taken_over < 20
            assert acquire_lock(inherited, backend=ALIAS) is None
            renewed = renewed_since([heirs])
            due_now([heirs])
            until(renewed)
            key = store._key(forgotten)
            promoted.delete(key, f"{key}:token")  # as if it had not heard of them
            successor = elsewhere(lambda: acquire(ALIAS, forgotten, renew=False))
            assert (successor.token or 0) > (forgets.token or 0)
            assert successor.release() is True
            until(lambda: all(after_end(*each) for each in zip(spared, ends, strict=True)))
            assert not lost
            assert [lease.release() for lease in (*spared, heirs)] == [True] * 6
            assert forgets.release() is False


def after_end(lease: Lease, end: Any) -> bool:
    """Tell whether it was renewed when its first end had passed; it must be held."""
    assert lease.held
    return (lease.expires_at - end).total_seconds() > (lease.ttl or 0)  # type: ignore[no-any-return]


def why_not(semaphore: str) -> str:
    """Return why there is no such lock now."""
    try:
        acquire(ALIAS, semaphore).release()
    except LockBackendUnavailable as error:
        return str(error)
    return ""


def test_cluster_that_is_down_is_unavailable(caplog: pytest.LogCaptureFixture) -> None:
    """The look-up in the background says so as well; when it is back, so are the locks."""
    with start_redis_cluster() as cluster, known(cluster.nodes[0]):
        assert acquire(ALIAS).release()
        for node in cluster.nodes:
            node.kill()
        with pytest.raises(LockBackendUnavailable, match=f"Redis at {HOST}:"):
            acquire_lock("a", backend=ALIAS)
        until(lambda: "A Redis Cluster doesn't tell which node has what: " in caplog.text)
        for node in cluster.nodes:
            node.start()
        until(lambda: not why_not("a"))


# What makes a process look nodes up


class Nodes:
    """What a client of redis-py knows of a cluster; it learns when the test lets it."""

    def __init__(self) -> None:
        self.nodes_manager = self
        self.asked: list[str] = []
        self.may_go_on = threading.Event()
        self.error: Exception | None = None

    def initialize(self) -> None:
        self.asked.append(threading.current_thread().name)
        assert self.may_go_on.wait(60)
        if self.error is not None:
            raise self.error


def test_dead_node_lets_a_cluster_be_looked_up_once_a_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In the background; not while that goes on, nor right after it."""
    now = [100.0]
    monkeypatch.setattr(clocks, "monotonic", lambda: now[0])
    nodes = Nodes()
    cluster = module.Cluster(nodes, 2)
    cluster.suspect()
    until(lambda: len(nodes.asked) == 1)
    now[0] += 5
    cluster.suspect()
    assert ended(cluster, nodes) == 1
    cluster.suspect()
    assert ended(cluster, nodes) == 2
    now[0] += 0.9
    cluster.suspect()
    assert ended(cluster, nodes) == 2
    now[0] += 0.2
    cluster.suspect()
    assert ended(cluster, nodes) == 3
    assert set(nodes.asked) == {"django_distlock looks up a cluster"}


def ended(cluster: module.Cluster, nodes: Nodes) -> int:
    """Let the look-up end; return how many there were."""
    nodes.may_go_on.set()
    assert cluster._looks_up is not None
    cluster._looks_up.join(60)
    return len(nodes.asked)


@pytest.mark.parametrize("error", [RedisConnectionError, RedisClusterException, OSError])
def test_look_up_that_fails_is_logged(
    error: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    """With what redis-py says; and it may be tried again."""
    nodes = Nodes()
    nodes.error = error("nobody is there")
    cluster = module.Cluster(nodes, 2)
    cluster.suspect()
    assert ended(cluster, nodes) == 1
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == (
        "A Redis Cluster doesn't tell which node has what: nobody is there"
    )


# A slot moves


class Slot:
    """A slot that a test has moved from one node of the cluster to another."""

    def __init__(self, cluster: Cluster, store: Any, semaphore: str) -> None:
        self.cluster = cluster
        self.number = store._servers.slot(store._key(semaphore))
        nodes = {place(node): node for node in cluster.nodes}
        with RedisCluster(*place(cluster.nodes[0])) as client:
            found = client.get_node_from_key(store._key(semaphore))
        self.home = nodes.pop((found.host, found.port))
        self.other = next(iter(nodes.values()))

    @contextmanager
    def moving(self, source: Server, target: Server) -> Iterator[None]:
        """Let it be on its way: the source refers those to the target whose keys it hasn't got."""
        tell(target, "SETSLOT", self.number, "IMPORTING", name_of(source))
        tell(source, "SETSLOT", self.number, "MIGRATING", name_of(target))
        try:
            yield
        finally:
            for node in (source, target):
                tell(node, "SETSLOT", self.number, "STABLE")

    def move(self, source: Server, target: Server) -> None:
        """Move it with its keys."""
        with self.moving(source, target), connect(source) as client:
            keys = tell(source, "GETKEYSINSLOT", self.number, 100)
            client.migrate(*place(target), keys, 0, 10_000)
            for node in (target, source, *self.cluster.nodes):
                tell(node, "SETSLOT", self.number, "NODE", name_of(target))

    @contextmanager
    def moved(self) -> Iterator[None]:
        """Have it elsewhere in the block."""
        self.move(self.home, self.other)
        try:
            yield
        finally:
            self.move(self.other, self.home)


def tell(node: Server, command: str, *arguments: Any) -> Any:
    """Tell the node something about its cluster."""
    with connect(node) as client:
        return client.execute_command(f"CLUSTER {command}", *arguments)


def name_of(node: Server) -> str:
    """Return what its cluster calls it."""
    return str(tell(node, "MYID"))


def test_lock_is_found_where_its_slot_has_moved(redis_cluster: Cluster, store: Any) -> None:
    """It is renewed, seen and released there, and there is the next one."""
    slot = Slot(redis_cluster, store, "a")
    lease = acquire(ALIAS)
    with slot.moved():
        assert lease.held
        lease.renew()
        assert str(store._servers.of(store._key("a"))) == str_of(slot.other)
    assert acquire_lock("a", backend=ALIAS) is None  # it has moved back
    with slot.moved():
        assert lease.release() is True
    with slot.moved():
        successor = acquire(ALIAS)
        assert (successor.token or 0) > (lease.token or 0)
    due_now_and_renewed(successor)
    assert successor.release() is True


def due_now_and_renewed(lease: Lease) -> None:
    """Wait until the background has renewed it."""
    renewed = renewed_since([lease])
    due_now([lease])
    until(renewed)


def str_of(node: Server) -> str:
    """Return what the store calls it."""
    host, port = place(node)
    return f"Redis at {host}:{port}"


def test_async_code_finds_where_a_slot_has_moved(redis_cluster: Cluster, store: Any) -> None:
    """Likewise."""
    slot = Slot(redis_cluster, store, "a")

    async def main() -> None:
        lease = acquire_elsewhere()
        with slot.moved():
            await lease.arenew()
        with slot.moved():
            assert await lease.arelease() is True

    def acquire_elsewhere() -> Lease:
        return elsewhere(lambda: acquire(ALIAS))

    run(main())


def test_slot_that_is_on_its_way_is_unavailable(redis_cluster: Cluster, store: Any) -> None:
    """For sync and for async code; not for ever."""
    new, used = f"new {new_owner()}", f"used {new_owner()}"
    assert acquire(ALIAS, used).release()  # its token stays
    for semaphore, match in (
        (new, rf"^Redis Cluster keeps moving 'distlock:\{{{new}\}}'\.$"),
        (used, "answered: TRYAGAIN"),
    ):
        slot = Slot(redis_cluster, store, semaphore)
        with slot.moving(slot.home, slot.other):
            with pytest.raises(LockBackendUnavailable, match=match):
                acquire_lock(semaphore, backend=ALIAS)
            with pytest.raises(LockBackendUnavailable, match=match):
                run(store.aacquire(semaphore, new_owner(), 1, "", budget=store.new_budget()))
        assert acquire(ALIAS, semaphore).release()


def test_call_follows_a_slot_a_few_times(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """And looks it up each time."""
    looked_up: list[Future[None]] = []

    def look_up() -> Future[None]:
        known: Future[None] = Future()
        known.set_result(None)
        looked_up.append(known)
        return known

    monkeypatch.setattr(store._servers, "look_up", look_up)
    later = clocks.monotonic() + 60
    asked: list[Any] = []

    def ask(node: Any) -> str:
        asked.append(node)
        if len(asked) <= module.MOVES:
            raise Moved
        return "found"

    async def aask(node: Any) -> str:
        return ask(node)

    assert module.at_node(store._servers, "a", later, ask) == "found"
    assert (len(asked), len(looked_up)) == (module.MOVES + 1, module.MOVES)
    asked.clear()
    assert run(module.aat_node(store._servers, "a", later, aask)) == "found"
    assert (len(asked), len(looked_up)) == (module.MOVES + 1, 2 * module.MOVES)


def test_errors_of_redis_py_mean_that_the_cluster_is_unavailable(
    store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of a client that knows of no node for a slot, and of one that finds no node."""
    client, slot = store._servers._client, store._servers.slot(store._key("a"))
    lease = acquire(ALIAS, "b")
    with monkeypatch.context() as patch:
        patch.delitem(client.nodes_manager.slots_cache, slot)
        with pytest.raises(SlotNotCoveredError):
            client.get_node_from_key(store._key("a"))
        with pytest.raises(LockBackendUnavailable, match=r"^Redis Cluster: Slot .*not covered"):
            acquire_lock("a", backend=ALIAS)
        with pytest.raises(LockBackendUnavailable, match=r"^Redis Cluster: Slot .*not covered"):
            run(store.aacquire("a", new_owner(), 1, "", budget=store.new_budget()))
    for error in (RedisClusterException, RedisConnectionError, ClusterError):
        with monkeypatch.context() as patch:
            patch.setattr(client.nodes_manager, "initialize", raises(error("nobody is there")))
            with pytest.raises(LockBackendUnavailable, match=r"^Redis Cluster: nobody is there$"):
                module.at_node(store._servers, "a", clocks.monotonic() + 60, raises(Moved()))
            with pytest.raises(LockBackendUnavailable, match=r"^Redis Cluster: nobody is there$"):
                run(module.aat_node(store._servers, "a", clocks.monotonic() + 60, amoved))
    assert lease.release() is True


async def amoved(*arguments: object) -> None:
    """Be another one's."""
    raise Moved


def test_call_waits_no_longer_than_it_may_for_a_cluster_to_tell_which_node_has_what(
    redis_cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """redis-py asks one node after the other, as long as the client's own settings say."""
    asked: list[None] = []
    may_go_on = threading.Event()

    def hang() -> None:
        asked.append(None)
        may_go_on.wait(10)

    with known(redis_cluster.nodes[0], store_timeout=0.3) as store:
        servers: Any = store._servers
        with monkeypatch.context() as patch:
            patch.setattr(servers._client.nodes_manager, "initialize", hang)
            patch.setattr(Node, "run", raises(Moved()))
            patch.setattr(Node, "arun", amoved)
            try:
                calls: list[Any] = [
                    lambda: acquire_lock("a", backend=ALIAS),
                    lambda: run(aacquire_lock("a", backend=ALIAS)),
                ]
                for call in calls:
                    began = clocks.monotonic()
                    with pytest.raises(LockBackendUnavailable, match="isn't known in time"):
                        call()
                    assert clocks.monotonic() - began < 5
                assert len(asked) == 1
            finally:
                may_go_on.set()
        servers._looks_up.join(60)
        assert acquire(ALIAS).release()


def raises(error: BaseException) -> Any:
    """Return what raises the error."""

    def fail(*arguments: Any) -> None:
        raise error

    return fail


# A client that knows nothing of clusters


def elsewhere_in(cluster: Cluster, node: Server) -> str:
    """Return a semaphore that another node has."""
    with RedisCluster(*place(cluster.nodes[0])) as client:
        places = {
            name: client.get_node_from_key(f"distlock:{{{name}}}") for name in map(str, range(50))
        }
    return next(name for name, at in places.items() if (at.host, at.port) != place(node))


@pytest.mark.parametrize("library", [DJANGO, DJANGO_REDIS, None])
def test_plain_client_of_a_node_is_told_how_to_find_the_others(
    redis_cluster: Cluster, library: str | None
) -> None:
    """When it asks for what the node hasn't got."""
    [node, *_] = redis_cluster.nodes
    semaphore = elsewhere_in(redis_cluster, node)
    place_in_cluster: Any = (
        locks_at(place(node)[1], library=library, KEY_PREFIX="")
        if library
        else known(node, "client_of_node")
    )
    match = (
        rf"^{str_of(node)} is in a Redis Cluster: give client, a callable that returns a "
        r"redis\.RedisCluster\.$"
    )
    with place_in_cluster as store:
        with pytest.raises(LockBackendUnavailable, match=match):
            acquire_lock(semaphore, backend=ALIAS)
        with pytest.raises(LockBackendUnavailable, match=match):
            acquire_lock(semaphore, backend=ALIAS, timeout=5)
        with pytest.raises(LockBackendUnavailable, match=match):
            store.force_release(semaphore, 1)
        with pytest.raises(LockBackendUnavailable, match=match):
            store.renew([Extension(semaphore, new_owner(), 1)])
        with pytest.raises(LockBackendUnavailable, match=match):
            run(store.aacquire(semaphore, new_owner(), 1, "", budget=store.new_budget()))


# Renewals


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return how many commands are sent at once, each time."""
    sizes: list[int] = []
    send = RedisWire.send

    def count_and_send(wire: RedisWire, commands: Any) -> None:
        sizes.append(len(commands))
        send(wire, commands)

    monkeypatch.setattr(RedisWire, "send", count_and_send)
    return sizes


def claims(store: Any, names: Any, sent: list[int]) -> list[Extension]:
    """Return these leases, granted and renewed once by a store; nothing is sent since."""
    found = [Extension(name, new_owner(), 60) for name in names]
    for claim in found:
        assert store.acquire(claim.semaphore, claim.owner, 10, "")
    assert len(store.renew([claim._replace(ttl=10) for claim in found])) == len(found)
    sent.clear()
    return found


def test_many_leases_are_renewed_in_one_round_trip(redis_server: Server, sent: list[int]) -> None:
    """By a script for 500 of them, each for its own time; those that are gone are not renewed."""
    with locks_of(redis_server) as store, connect(redis_server) as client:
        leases = claims(store, map(str, range(1_200)), sent)
        assert client.delete(key_of("0"), key_of("1199")) == 2
        with commands(redis_server) as seen:
            renewals = store.renew(leases)
        assert sent == [3]
        assert (seen["evalsha"], seen["eval"]) == (3, 0)
        assert {*renewals} == {lease.owner for lease in leases[1:-1]}
        assert all(renewal.renewed and renewal.expires_at for renewal in renewals.values())
        assert all(50_000 < client.pttl(key_of(name)) <= 60_000 for name in ("1", "600", "1198"))


def test_server_that_forgot_the_script_renews_all_the_same(
    redis_server: Server, sent: list[int]
) -> None:
    """It is sent as a whole, once; what comes after that need not be."""
    with locks_of(redis_server) as store, connect(redis_server) as client:
        leases = claims(store, map(str, range(1_200)), sent)
        client.script_flush()
        with commands(redis_server) as seen:
            renewals = store.renew(leases)
        assert sent[0] == 3
        assert (seen["evalsha"], seen["eval"]) == (6, 1)
        assert [renewals[lease.owner].renewed for lease in leases] == [True] * 1_200
        assert store.renew([]) == {}


def test_each_node_renews_its_leases_in_one_round_trip(
    redis_cluster: Cluster, store: Any, sent: list[int]
) -> None:
    """With a script for each slot."""
    leases = claims(store, (f"{new_owner()}" for _ in range(60)), sent)
    slots = {store._servers.slot(store._key(lease.semaphore)) for lease in leases}
    renewals = store.renew(leases)
    assert len(sent) == len(redis_cluster.nodes)
    assert sum(sent) == len(slots)
    assert [renewals[lease.owner].renewed for lease in leases] == [True] * 60
    sent.clear()
    renewals = run(store.arenew(leases, budget=store.new_budget()))
    assert sum(sent) == len(slots)
    assert [renewals[lease.owner].renewed for lease in leases] == [True] * 60
    assert all(store.release(lease) for lease in leases)


def test_losses_are_told_though_another_node_cannot_be_asked(
    redis_cluster: Cluster, store: Any, sent: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a node that answers it is known what is held there, even if that is nothing."""
    leases = claims(store, (f"{new_owner()}" for _ in range(30)), sent)
    node = store._servers.of(store._key(leases[0].semaphore))
    there = {
        lease.owner for lease in leases if store._servers.of(store._key(lease.semaphore)) is node
    }
    assert all(store.release(lease) for lease in leases)
    monkeypatch.setattr(store._servers, "suspect", lambda: None)
    monkeypatch.setattr(node, "ask_all", raises(LockBackendUnavailable("it is down")))
    renewals = store.renew(leases)
    assert renewals.keys() == there
    assert not any(renewal.renewed for renewal in renewals.values())


def test_locks_are_listed_though_a_slot_moves_meanwhile(
    redis_cluster: Cluster, store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The nodes are asked again."""
    lease = acquire(ALIAS, "moves/1")
    described = type(store)._described
    moves = [Moved()]

    def describe(*arguments: Any) -> Any:
        if moves:
            raise moves.pop()
        return described(store, *arguments)

    monkeypatch.setattr(store, "_described", describe)
    assert [lock.semaphore for lock in store.held("moves/")] == ["moves/1"]
    assert not moves
    assert lease.release()


def test_node_that_cannot_be_asked_costs_the_others_no_renewal(
    redis_cluster: Cluster, store: Any, sent: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it has is not renewed, but not lost either; if no other has any, that is an error."""
    leases = claims(store, (f"{new_owner()}" for _ in range(30)), sent)
    node = store._servers.of(store._key(leases[0].semaphore))
    there = [lease for lease in leases if store._servers.of(store._key(lease.semaphore)) is node]
    suspected: list[None] = []
    monkeypatch.setattr(store._servers, "suspect", lambda: suspected.append(None))
    with monkeypatch.context() as patch:
        patch.setattr(node, "ask_all", raises(LockBackendUnavailable("it is down")))
        renewals = store.renew(leases)
        assert {owner for owner, renewal in renewals.items() if not renewal.renewed} == {
            lease.owner for lease in there
        }
        assert len(renewals) == 30
        assert len(suspected) == 1
        with pytest.raises(LockBackendUnavailable, match="it is down"):
            store.renew(there)
    assert all(store.release(lease) for lease in leases)


def test_silent_nodes_hold_up_the_renewals_of_others_once(
    redis_cluster: Cluster, store: Any, sent: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From then on they are asked last, and have one `store_timeout` together."""
    leases = claims(store, (f"{new_owner()}" for _ in range(30)), sent)
    nodes = [*store._batches_by_node(leases)]
    assert len(nodes) == 3
    *silent, healthy = nodes
    asked: list[tuple[Any, float]] = []

    def ask_all(node: Any, *arguments: Any) -> Any:
        asked.append((node, arguments[1] - clocks.monotonic()))
        if node in silent:
            raise LockBackendUnavailable("it says nothing")
        return Pool.ask_all(node, *arguments)

    monkeypatch.setattr(store._servers, "suspect", lambda: None)
    with monkeypatch.context() as patch:
        patch.setattr(type(healthy), "ask_all", ask_all)
        for order in (nodes, [healthy, *silent], [healthy, *silent]):
            renewals = store.renew(leases)
            assert [node for node, _ in asked] == order
            assert len(renewals) == 30
            assert {each.renewed for each in renewals.values()} == {True, False}
            times = [left for _, left in asked]
            asked.clear()
        assert times[0] > store.store_timeout / 2 >= max(times[1:])
    renewals = store.renew(leases)
    assert all(renewal.renewed for renewal in renewals.values())
    assert not any(node.silent for node in nodes)
    assert all(store.release(lease) for lease in leases)


# Sentinels


@contextmanager
def silent() -> Iterator[tuple[str, int]]:
    """Have a port whose server says nothing."""
    with socket.create_server((HOST, 0)) as listening:
        yield listening.getsockname()


def sentinels(*places: tuple[str, int]) -> dict[str, Any]:
    """Return the options of a django-redis cache at these sentinels."""
    return {
        "CLIENT_CLASS": "django_redis.client.SentinelClient",
        "CONNECTION_POOL_CLASS": "redis.sentinel.SentinelConnectionPool",
        "CONNECTION_FACTORY": "django_redis.pool.SentinelConnectionFactory",
        "SENTINELS": [*places],
    }


def test_silent_sentinel_does_not_hinder(redis_server: Server) -> None:
    """The next one is asked, in the same budget."""
    with silent() as first, start_sentinel(redis_server, down_after=60) as second:
        options = sentinels(first, place(second))
        # django-redis keeps a pool for each location: no other test may have this one.
        with locks_at("", location=f"redis://{SENTINEL_NAME}/5", options=options) as store:
            before = clocks.monotonic()
            lease = acquire(ALIAS)
            assert clocks.monotonic() - before < 4
            assert str(store._servers.all()[0]) == f"Redis, the master {SENTINEL_NAME!r}"
            assert lease.release()


def test_silent_sentinels_are_unavailable_in_time() -> None:
    """All of them together take no longer than a call may."""
    with ExitStack() as stack:
        places = [stack.enter_context(silent()) for _ in range(4)]
        options = sentinels(*places)
        location = f"redis://{SENTINEL_NAME}/6"
        with locks_at("", location=location, options=options, store={"store_timeout": 1}):
            before = clocks.monotonic()
            with pytest.raises(LockBackendUnavailable, match=r"^Redis, the master 'locks': "):
                acquire_lock("a", backend=ALIAS)
            assert clocks.monotonic() - before < 3


# How settings lead to servers


def test_stores_in_one_place_share_their_connections(redis_server: Server) -> None:
    """Those of a thread and of another, of a process; but not those with another time budget."""
    with locks_of(redis_server) as store:
        found = store._servers
        assert elsewhere(lambda: lock_backends[ALIAS]._servers) is found  # type: ignore[attr-defined]
    with locks_of(redis_server) as again:
        assert again._servers is found
    with locks_of(redis_server, store={"store_timeout": 1}) as other:
        assert other._servers is not found
    with locks_of(redis_server, TIMEOUT=5) as other:
        assert other._servers is not found
    with (
        known(redis_server, "client_of_node") as one,
        known(redis_server, "client_of_node") as another,
    ):
        assert one._servers is another._servers is not found


# Calls that fail


def test_async_call_that_gets_no_answer_is_unavailable(unused_port: int) -> None:
    """As a sync one is."""
    with locks_at(unused_port) as store, pytest.raises(LockBackendUnavailable) as caught:
        run(store.aacquire("a", new_owner(), 1, "", budget=store.new_budget()))
    assert str(caught.value).startswith(f"Redis at {HOST}:{unused_port}: ")
    assert not caught.value.reply_lost


def test_call_that_is_interrupted_leaves_no_connection_to_use(
    redis_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer that nobody has read would be taken for that to the next call."""
    with locks_of(redis_server) as store:
        [node] = store._servers.all()
        assert acquire(ALIAS).release()
        with monkeypatch.context() as patch:
            patch.setattr(RedisWire, "receive", raises(Interrupted()))
            with pytest.raises(Interrupted):
                store.acquire("a", "one", 60, "")
        assert not node._idle
        assert store.acquire("a", "other", 60, "") is None
        assert store.acquire("a", "one", 60, "")


def test_acquisition_that_cannot_be_undone_may_have_been_carried_out(
    redis_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its second try finds the grant: the undo could not be sent."""

    def close_and_time_out(wire: RedisWire, deadline: float) -> None:
        wire.close()
        wire._socket.close()
        raise TimeoutError

    with locks_of(redis_server) as store:
        assert store.acquire("b", "one", 60, "")  # a connection is there, and the script
        with monkeypatch.context() as patch:
            patch.setattr(RedisWire, "receive", close_and_time_out)
            with pytest.raises(LockBackendUnavailable, match=r"no answer in 2 seconds") as caught:
                store.acquire("a", "one", 60, "")
        assert caught.value.reply_lost
        until(lambda: store.acquire("a", "other", 60, "") is None)
        assert store.acquire("a", "one", 60, "")


def test_lock_that_ends_while_locks_are_listed_is_not(
    redis_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its key was found, but its value is gone."""
    with locks_of(redis_server) as store, connect(redis_server) as client:
        leases = [acquire(ALIAS, name) for name in "abc"]
        [node] = store._servers.all()
        ask_all = node.ask_all

        def delete_and_ask(questions: Any, *arguments: Any) -> Any:
            if questions[0][0] == "GET":
                client.delete(key_of("b"))
            return ask_all(questions, *arguments)

        monkeypatch.setattr(node, "ask_all", delete_and_ask)
        assert [lock.semaphore for lock in store.held()] == ["a", "c"]
        assert [lease.release() for lease in leases] == [True, False, True]


def test_release_by_a_task_that_is_cancelled_is_carried_out(
    redis_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was sent, and there is nothing to undo."""
    receive = RedisWire.areceive

    async def main() -> None:
        waits = asyncio.Event()

        async def tell_and_receive(wire: RedisWire) -> Any:
            waits.set()
            return await receive(wire)

        monkeypatch.setattr(RedisWire, "areceive", tell_and_receive)
        with redis_server.paused():
            releasing = asyncio.create_task(store.arelease(claim, budget=store.new_budget()))
            await asyncio.wait_for(waits.wait(), 60)
            releasing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await releasing

    with locks_of(redis_server) as store, connect(redis_server) as client:
        assert acquire(ALIAS).release()  # the server knows the script
        claim = Extension("a", new_owner(), 60)
        assert store.acquire(claim.semaphore, claim.owner, 60, "")
        asyncio.run(main())
        until(lambda: not client.exists(key_of()))
