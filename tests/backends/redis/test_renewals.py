"""How leases are renewed in Redis: many at a time, and at each node of a cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from redis.crc import key_slot

from django_distlock import LockBackendUnavailable, clocks
from django_distlock.backends.redis import servers
from django_distlock.backends.redis.nodes import Node
from django_distlock.leases.request import new_owner
from django_distlock.records import LOST, LeaseClaim, RenewalOutcome
from tests.support.concurrency import run
from tests.support.redis_servers import connect, node_of
from tests.support.redis_stores import commands, key_of

if TYPE_CHECKING:
    from redis import RedisCluster

    from django_distlock.backends.redis import RedisBackend
    from tests.support.moved_clock import MovedClock
    from tests.support.redis_servers import Cluster
    from tests.support.servers import Server

pytestmark = [pytest.mark.needs("redis", "redis_cluster"), pytest.mark.once]


def claims(store: Any, names: Any, sent: list[int]) -> list[LeaseClaim]:
    """Return these leases, granted and renewed once, before the test counts requests."""
    found = [LeaseClaim(name, new_owner(), 60) for name in names]
    for claim in found:
        assert store.acquire(claim.semaphore, claim.owner, 10, "")
    assert len(store.renew([claim._replace(ttl=10) for claim in found])) == len(found)
    sent.clear()
    return found


# One server


def test_many_leases_are_renewed_in_one_round_trip(
    redis_server: Server, redis_store: RedisBackend, sent: list[int]
) -> None:
    """One script renews 500 of them, each for its own ttl; those that are gone are not renewed."""
    with connect(redis_server) as client:
        leases = claims(redis_store, map(str, range(1_200)), sent)
        assert client.delete(key_of("0"), key_of("1199")) == 2
        with commands(redis_server) as seen:
            renewals = redis_store.renew(leases)
        assert sent == [3]
        assert (seen["evalsha"], seen["eval"]) == (3, 0)
        kept = [renewals.pop(lease.owner) for lease in leases[1:-1]]
        assert all(renewal.renewed and renewal.expires_at for renewal in kept)
        assert [*renewals.values()] == [LOST] * 2
        assert all(50_000 < client.pttl(key_of(name)) <= 60_000 for name in ("1", "600", "1198"))


def test_server_that_forgot_the_script_renews_all_the_same(
    redis_server: Server, redis_store: RedisBackend, sent: list[int]
) -> None:
    """The script's source is sent once; later requests use its digest again."""
    with connect(redis_server) as client:
        leases = claims(redis_store, map(str, range(1_200)), sent)
        client.script_flush()
        with commands(redis_server) as seen:
            renewals = redis_store.renew(leases)
        assert sent[0] == 3
        assert (seen["evalsha"], seen["eval"]) == (6, 1)
        assert [renewals[lease.owner].renewed for lease in leases] == [True] * 1_200
        assert redis_store.renew([]) == {}


# A cluster


def name_of(client: RedisCluster, lease: LeaseClaim) -> str:
    """Return the store's name for the node that has the lock."""
    host, port = node_of(client, key_of(lease.semaphore, prefix=""))
    return f"Redis at {host}:{port}"


def some_claims(store: RedisBackend, sent: list[int], number: int = 30) -> list[LeaseClaim]:
    """Return leases on new semaphores, at all nodes."""
    return claims(store, (f"{new_owner()}" for _ in range(number)), sent)


def test_each_node_renews_its_leases_in_one_round_trip(
    redis_cluster: Cluster, cluster_store: RedisBackend, sent: list[int]
) -> None:
    """With a script for each slot."""
    leases = some_claims(cluster_store, sent, 60)
    slots = {key_slot(key_of(lease.semaphore, prefix="").encode()) for lease in leases}
    renewals = cluster_store.renew(leases)
    assert len(sent) == len(redis_cluster.nodes)
    assert sum(sent) == len(slots)
    assert [renewals[lease.owner].renewed for lease in leases] == [True] * 60
    sent.clear()
    renewals = run(cluster_store.arenew(leases, deadline=cluster_store.new_deadline()))
    assert sum(sent) == len(slots)
    assert [renewals[lease.owner].renewed for lease in leases] == [True] * 60
    assert all(cluster_store.release(lease) for lease in leases)


@pytest.fixture
def suspicions(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """Collect the requests to look the cluster up, instead of doing that."""
    found: list[None] = []
    monkeypatch.setattr(servers.Cluster, "suspect", lambda cluster: found.append(None))
    return found


def take_down(patch: pytest.MonkeyPatch, name: str) -> None:
    """Make the node of this name unavailable."""
    ask_all = Node.ask_all

    def refuse_or_ask(node: Node, *arguments: Any) -> list[Any]:
        if str(node) == name:
            raise LockBackendUnavailable("it is down")
        return ask_all(node, *arguments)

    patch.setattr(Node, "ask_all", refuse_or_ask)


def test_losses_are_reported_though_another_node_cannot_be_asked(
    cluster_client: RedisCluster,
    cluster_store: RedisBackend,
    sent: list[int],
    suspicions: list[None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A node that answers says which leases are held, even if none is."""
    leases = some_claims(cluster_store, sent)
    down = name_of(cluster_client, leases[0])
    there = {lease.owner for lease in leases if name_of(cluster_client, lease) == down}
    assert all(cluster_store.release(lease) for lease in leases)
    take_down(monkeypatch, down)
    renewals = cluster_store.renew(leases)
    assert {owner for owner in renewals if not renewals[owner].lost} == there
    assert not any(renewal.renewed for renewal in renewals.values())


def test_unavailable_node_does_not_keep_others_from_renewing(
    cluster_client: RedisCluster,
    cluster_store: RedisBackend,
    sent: list[int],
    suspicions: list[None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its leases are not renewed, but not lost either; without other leases that is an error."""
    leases = some_claims(cluster_store, sent)
    down = name_of(cluster_client, leases[0])
    there = [lease for lease in leases if name_of(cluster_client, lease) == down]
    with monkeypatch.context() as patch:
        take_down(patch, down)
        renewals = cluster_store.renew(leases)
        held = [owner for owner in renewals if renewals[owner].outcome is RenewalOutcome.HELD]
        assert {*held} == {lease.owner for lease in there}
        assert not any(renewal.lost for renewal in renewals.values())
        assert len(renewals) == 30
        assert len(suspicions) == 1
        with pytest.raises(LockBackendUnavailable, match="it is down"):
            cluster_store.renew(there)
    assert all(cluster_store.release(lease) for lease in leases)


@pytest.mark.usefixtures("suspicions")
def test_silent_nodes_hold_up_the_renewals_of_others_once(
    cluster_client: RedisCluster,
    cluster_store: RedisBackend,
    sent: list[int],
    moved_clock: MovedClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """From then on they are asked last, and share one `store_timeout`."""
    leases = some_claims(cluster_store, sent)
    names = [*dict.fromkeys(name_of(cluster_client, lease) for lease in leases)]
    assert len(names) == 3
    *silent, healthy = names
    full = cluster_store.store_timeout
    asked: list[tuple[Node, float]] = []
    ask_all = Node.ask_all

    def refuse_or_ask(node: Node, requests: Any, deadline: float, undo: Any = None) -> list[Any]:
        asked.append((node, deadline - clocks.monotonic()))
        if str(node) in silent:
            raise LockBackendUnavailable("it says nothing")
        return ask_all(node, requests, deadline, undo)

    nodes = set[Node]()
    moved_clock.stop()
    with monkeypatch.context() as patch:
        patch.setattr(Node, "ask_all", refuse_or_ask)
        for order, times in (
            (names, [full] * 3),
            ([healthy, *silent], [full, full / 2, full / 2]),
            ([healthy, *silent], [full, full / 2, full / 2]),
        ):
            renewals = cluster_store.renew(leases)
            assert [str(node) for node, _ in asked] == order
            assert [left for _, left in asked] == pytest.approx(times)
            assert len(renewals) == 30
            outcomes = {each.outcome for each in renewals.values()}
            assert outcomes == {RenewalOutcome.RENEWED, RenewalOutcome.HELD}
            nodes |= {node for node, _ in asked}
            asked.clear()
    renewals = cluster_store.renew(leases)
    assert all(renewal.renewed for renewal in renewals.values())
    assert not any(node.silent for node in nodes)
    assert all(cluster_store.release(lease) for lease in leases)
