"""Waiters for locks in Redis, and users with restricted rights."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from django_distlock import distributed_lock
from django_distlock.records import LeaseClaim
from tests.support.ports import HOST
from tests.support.redis_servers import connect
from tests.support.redis_stores import ALIAS, waiting

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django_distlock.backends.redis import RedisBackend
    from django_distlock.backends.redis.places import QueuedPlace
    from tests.support.servers import Server


def waiters_queued(server: Server, number: int) -> bool:
    """Return whether so many wait."""
    return waiting(server) == number


def take(semaphore: str = "1234collectPayment", **arguments: Any) -> float:
    """Wait for the lock, as long as it takes, and release it; return the time of the grant."""
    with distributed_lock(semaphore, backend=ALIAS, **{"timeout": 100, **arguments}):
        return time.monotonic_ns()


def claim(semaphore: str, owner: str) -> LeaseClaim:
    """Return the claim of an owner that has no lease yet."""
    return LeaseClaim(semaphore, owner, 60)


def join(store: RedisBackend, semaphore: str, owner: str, wake: Any = print) -> QueuedPlace:
    """Join the queue of a lock."""
    place = store.join(semaphore, owner, "waiter's holder", wake)
    assert place is not None
    return cast("QueuedPlace", place)


@contextmanager
def user(server: Server, name: str, *rules: str) -> Iterator[str]:
    """Create a user with all rights except those that the rules remove; return its location."""
    rights = [">secret", "~*", "&*", "+@all", *rules]
    with connect(server) as client:
        client.execute_command("ACL SETUSER", name, "on", *rights)
        try:
            yield f"redis://{name}:secret@{HOST}:{server.port}/0"
        finally:
            client.acl_deluser(name)
