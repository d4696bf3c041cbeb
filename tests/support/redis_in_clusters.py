"""Keys in Redis Clusters, and calls that tests make there."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

from django_distlock.leases.request import new_owner
from tests.support.concurrency import until
from tests.support.holders import due_now, renewed_since
from tests.support.redis_servers import (
    node_of,
    place,
)
from tests.support.redis_stores import (
    key_of,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis import RedisCluster

    from django_distlock import Lease
    from django_distlock.backends.redis import RedisBackend
    from tests.support.servers import Server


def key_in_cluster(semaphore: str = "1234collectPayment") -> str:
    """Return the key of a lock in the cluster."""
    return key_of(semaphore, prefix="")


def at(client: RedisCluster, node: Server, number: int) -> list[str]:
    """Return so many semaphores whose slots are at the node."""
    names = map(str, range(10_000))
    found = (name for name in names if node_of(client, key_in_cluster(name)) == place(node))
    return [*islice(found, number)]


def be_renewed(leases: Sequence[Lease], due: Sequence[Lease] | None = None) -> None:
    """Wait until the background has renewed these, once all `due` leases are due."""
    renewed = renewed_since(leases)
    due_now(due or leases)
    until(renewed)


async def acquire_async(store: RedisBackend, semaphore: str) -> Any:
    """Try once to acquire, at the store itself."""
    return await store.aacquire(semaphore, new_owner(), 1, "", deadline=store.new_deadline())
