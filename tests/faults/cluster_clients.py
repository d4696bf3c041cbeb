"""The workers' clients of a Redis Cluster. Their processes import no more than this."""

from __future__ import annotations

import json
import os
from typing import Any

from redis import RedisCluster
from redis.cluster import ClusterNode

from tests.support.ports import HOST

PORTS = "DISTLOCK_FAULTS_CLUSTER"
"""The variable that has, for each node's port, that of the proxy before it."""
TIMEOUT = 2
"""Seconds, as for the store's own calls."""


def direct() -> RedisCluster:
    """Return a client that reaches the nodes themselves."""
    return _client(lambda address: address)


def proxied() -> RedisCluster:
    """Return a client that reaches the nodes through proxies."""
    ports = _ports()
    return _client(lambda address: (address[0], ports.get(address[1], address[1])))


def _ports() -> dict[int, int]:
    return {int(port): proxy for port, proxy in json.loads(os.environ[PORTS]).items()}


def _client(remap: Any) -> RedisCluster:
    nodes = [ClusterNode(HOST, port) for port in _ports()]  # type: ignore[no-untyped-call]
    options: dict[str, Any] = {"socket_timeout": TIMEOUT, "socket_connect_timeout": TIMEOUT}
    return RedisCluster(startup_nodes=nodes, address_remap=remap, **options)
