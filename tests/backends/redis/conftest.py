"""Fixtures for what is particular to Redis."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from redis import RedisCluster

from django_distlock.backends.redis import places
from django_distlock.backends.redis.nodes import Node
from tests.settings import STORE_TIMEOUT
from tests.support.redis_servers import place
from tests.support.redis_stores import client_path, count_sent, locks_by, locks_of, name_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django_distlock.backends.redis import RedisBackend
    from tests.support.redis_servers import Cluster
    from tests.support.servers import Server


@pytest.fixture
def redis_store(redis_server: Server) -> Iterator[RedisBackend]:
    """Keep the locks in a server that the test may pause and kill."""
    with locks_of(redis_server) as store:
        yield store


@pytest.fixture
def cluster_client(redis_cluster: Cluster) -> Iterator[RedisCluster]:
    """Return the client by which `cluster_store` finds the nodes, made as by a site."""
    with RedisCluster(*place(redis_cluster.nodes[0])) as client:
        yield client


@pytest.fixture
def cluster_store(cluster_client: RedisCluster) -> Iterator[RedisBackend]:
    """Keep the locks in the cluster that all tests share."""
    path = client_path(lambda: cluster_client)
    with locks_by(client=path, store_timeout=STORE_TIMEOUT) as store:
        yield store


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Collect the requests to Redis: a script's digest, or a command's name."""
    found: list[Any] = []
    ask_all = Node.ask_all

    def note_and_ask(node: Node, requests: Any, *arguments: Any) -> list[Any]:
        answers = ask_all(node, requests, *arguments)
        found.extend(name_of(request) for request in requests)
        return answers

    monkeypatch.setattr(Node, "ask_all", note_and_ask)
    return found


@pytest.fixture
def only_when_notified(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep waiters from polling: they get the lock only if they are notified."""
    monkeypatch.setattr(places, "SAFETY", 1_000)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Collect how many commands are sent at once, each time."""
    return count_sent(monkeypatch)
