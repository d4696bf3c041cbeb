"""Stores with queues in their servers, behind one interface for tests."""

from __future__ import annotations

import json
import threading
import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from django_distlock import distributed_lock, lock_backends
from django_distlock.backends.redis import places as redis_places
from django_distlock.backends.server import places as server_places
from tests.support import holders, lock_servers, redis_stores
from tests.support.ports import HOST
from tests.support.processes import Workers
from tests.support.redis_servers import connect

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from types import ModuleType

    from django_distlock import Lease
    from django_distlock.records import Place
    from tests.support.servers import Server


JOB = "nightly report"
"""The lock that is waited for, where it is one only."""


class QueuedStore(ABC):
    """A server with locks, and its view of the waiters."""

    alias: ClassVar[str]
    places: ClassVar[ModuleType]
    """The module with the waiters' places, whose SAFETY tests change."""
    knows_no_end: ClassVar[bool]
    """Whether a lease may last until it is released."""

    def __init__(self, server: Server) -> None:
        self.server = server

    @abstractmethod
    def locks(self, **options: Any) -> AbstractContextManager[Any]:
        """Make the lock backend `alias` use the server, with these OPTIONS."""

    @property
    def store(self) -> Any:
        """Return the lock backend `alias`, as it is at the moment."""
        return lock_backends[self.alias]

    @abstractmethod
    def environment(self) -> dict[str, str]:
        """Return the environment in which a process's lock backend `alias` uses the server."""

    def workers(self, *command: str) -> Workers:
        """Start such processes."""
        return Workers(1, *command, **self.environment())

    @abstractmethod
    def waiting(self) -> int:
        """Return how many wait, for any lock."""

    @abstractmethod
    def connections(self) -> int:
        """Return how many connections are open to the server."""

    @abstractmethod
    def processes(self) -> int:
        """Return how many processes listen for offers."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Return the server's name for people."""

    def listeners(self) -> int:
        """Return how many threads of this process listen to the server."""
        name = f"django_distlock listener: {self.name}"
        return sum(thread.name == name for thread in threading.enumerate())

    def is_unused(self) -> bool:
        """Return whether nobody holds a lock or waits for one."""
        return not self.waiting() and not [*self.store.held()]

    def is_waited_for_by(self, number: int) -> bool:
        """Return whether so many wait."""
        return self.waiting() == number

    def join(self, semaphore: str, owner: str, wake: Callable[[], object] = lambda: None) -> Place:
        """Join the queue of a lock."""
        place: Place = self.store.join(semaphore, owner, "", wake)
        return place


class QueuedRedis(QueuedStore):
    """Redis, through the cache that worker processes have, too."""

    alias: ClassVar[str] = redis_stores.ALIAS
    places: ClassVar[ModuleType] = redis_places
    knows_no_end = True

    def __init__(self, server: Server, *, lasting: bool) -> None:
        super().__init__(server)
        self._offers = {"DISTLOCK_TEST_LASTING_OFFERS": "1"} if lasting else {}

    def locks(self, **options: Any) -> AbstractContextManager[Any]:
        port = self.server.settings["PORT"]
        return redis_stores.locks_at("", location=f"redis://{HOST}:{port}/1", store=options)

    def environment(self) -> dict[str, str]:
        place = {name: self.server.settings[name] for name in ("HOST", "PORT")}
        return {"DISTLOCK_TEST_REDIS": json.dumps(place)} | self._offers

    def waiting(self) -> int:
        with connect(self.server, 1) as client:
            queues = client.scan_iter(f"{redis_stores.key_of('*')}:queue")
            return sum(map(client.zcard, queues))

    def connections(self) -> int:
        with connect(self.server, 1) as client:
            return len(client.client_list()) - 1

    def processes(self) -> int:
        with connect(self.server, 1) as client:
            return len(client.pubsub_channels("distlock:*"))

    @property
    def name(self) -> str:
        return f"Redis at {HOST}:{self.server.settings['PORT']}"


class QueuedLockServer(QueuedStore):
    """A lock server that no other test uses."""

    alias: ClassVar[str] = lock_servers.ALIAS
    places: ClassVar[ModuleType] = server_places
    knows_no_end = False

    def locks(self, **options: Any) -> AbstractContextManager[Any]:
        return lock_servers.locks_of(self.server, **options)

    def environment(self) -> dict[str, str]:
        return lock_servers.environment_at(self.server)

    def waiting(self) -> int:
        return lock_servers.waiting(self.store)

    def connections(self) -> int:
        return int(self.store.status()["connections"])

    def processes(self) -> int:
        return int(self.store.status()["processes"])

    @property
    def name(self) -> str:
        return str(self.store.server)

    def is_unused(self) -> bool:
        return lock_servers.is_unused(self.store)  # and the table has no entry either


def acquire(store: QueuedStore, semaphore: str = JOB, **arguments: Any) -> Lease:
    """Acquire a lock that is free, or will be."""
    return holders.acquire(store.alias, semaphore, **arguments)


def take(store: QueuedStore, semaphore: str = JOB, **arguments: Any) -> float:
    """Wait for the lock, and release it at once; return the time of the grant."""
    with distributed_lock(semaphore, backend=store.alias, **{"timeout": 30, **arguments}):
        return time.monotonic_ns()


async def take_in_task(store: QueuedStore, **arguments: Any) -> int | None:
    """Do so in a task; return the token."""
    async with distributed_lock(JOB, backend=store.alias, **{"timeout": 30, **arguments}) as lease:
        return lease.token
