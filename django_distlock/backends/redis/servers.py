"""Which Redis server has a lock: the only one, or a node of a cluster."""

import math
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from threading import Thread
from typing import Any, Final, Protocol, TypeVar

from redis.crc import key_slot
from redis.exceptions import RedisClusterException, RedisError

from django_distlock import clocks
from django_distlock.backends.sockets.calls import Calls, running_future
from django_distlock.exceptions import LockBackendUnavailable
from django_distlock.logs import room_logger
from django_distlock.threads import NoThread, start_daemon

from .nodes import Moved, Node
from .scripts import Call

T = TypeVar("T")

logger = room_logger("redis")

BETWEEN_LOOK_UPS: Final = 1.0
"""Seconds, at least, between two attempts to learn the slots of a cluster's nodes."""
MOVES: Final = 5
"""How often a call follows a slot that a cluster is moving about."""


class Servers(Protocol):
    """The servers with the locks: one server, or the nodes of a cluster."""

    def of(self, key: str) -> Node:
        """Return the node that has this key."""
        ...

    def all(self) -> list[Node]:
        """Return all nodes with keys."""
        ...

    def slot(self, key: str) -> int:
        """Return the key's slot: one script may only be given keys of the same slot."""
        ...

    def group_by_slot(self) -> None:
        """Distinguish slots from now on: the server has refused keys of several in one script."""
        ...

    @property
    def have_slots(self) -> bool:
        """Whether slots are distinguished."""
        ...

    def look_up(self) -> Future[None]:
        """Start to look up which node has which slots; return what is set at the end.

        NoThread if no thread can be started.
        """
        ...

    def suspect(self) -> None:
        """Look up the slots, as a node can't be asked: another one may have its slots by now."""
        ...


class OneServer:
    """One server, or the one that sentinels say is the master."""

    def __init__(self, pool: Any, timeout: float) -> None:
        self._node = Node(pool, timeout)

    def of(self, key: str) -> Node:
        """Return the only one."""
        return self._node

    def all(self) -> list[Node]:
        """Return the only one."""
        return [self._node]

    def slot(self, key: str) -> int:
        """Return 0, unless there turned out to be a cluster behind the address."""
        return key_slot(key.encode()) if self.have_slots else 0

    def group_by_slot(self) -> None:
        """Distinguish slots: the server may be a proxy before a cluster."""
        self._node.has_slots = True

    @property
    def have_slots(self) -> bool:
        """Whether the server has refused keys of several slots in one script."""
        return self._node.has_slots

    def look_up(self) -> Future[None]:
        """Raise LockBackendUnavailable: only a cluster's node answers that it has other slots."""
        raise LockBackendUnavailable(
            f"{self._node} is in a Redis Cluster: give client, a callable that returns a "
            "redis.RedisCluster."
        )

    def suspect(self) -> None:
        """Do nothing: there is no other server."""


class Cluster:
    """The nodes of a cluster, each of which has some of the slots."""

    def __init__(self, client: Any, timeout: float) -> None:
        self._client = client
        self._timeout = timeout
        self._nodes: dict[str, Node] = {}
        self._thread: Thread | None = None
        self._known: Future[None] = running_future()
        """Set when the slots have been looked up."""
        self._looked_up = -math.inf

    def of(self, key: str) -> Node:
        """Return the one that has the key's slot."""
        return self._node(self._client.get_node_from_key(key))

    def all(self) -> list[Node]:
        """Return the primaries."""
        return [self._node(each) for each in self._client.get_primaries()]

    def slot(self, key: str) -> int:
        """Return the key's slot."""
        slot: int = self._client.keyslot(key)
        return slot

    def group_by_slot(self) -> None:
        """Do nothing: slots are always distinguished."""

    @property
    def have_slots(self) -> bool:
        """Return True."""
        return True

    def look_up(self) -> Future[None]:
        """Look up the slots in a thread, unless that is being done; see Servers.look_up().

        Not in the caller's: redis-py asks one node after the other, each with its own timeout.
        """
        if self._thread is None or not self._thread.is_alive():
            known: Future[None] = running_future()
            name = "django_distlock looks up a cluster"
            self._thread = Thread(target=self._look_up, args=[known], name=name)
            start_daemon(self._thread)
            self._known = known
        return self._known

    def suspect(self) -> None:
        """See Servers.suspect(); at most once a second."""
        if self._thread is not None and self._thread.is_alive():
            return
        if clocks.monotonic() - self._looked_up < BETWEEN_LOOK_UPS:
            return
        self._looked_up = clocks.monotonic()
        try:
            self.look_up().add_done_callback(_log_failure)
        except NoThread as error:
            logger.warning(
                "The slots of a Redis Cluster can't be looked up: %s",
                error,
                extra={"reason": str(error)},
            )

    def _look_up(self, known: Future[None]) -> None:
        try:
            self._client.nodes_manager.initialize()
        except Exception as error:  # noqa: BLE001 - raised where it is waited for
            known.set_exception(error)
        else:
            known.set_result(None)

    def _node(self, found: Any) -> Node:
        node = self._nodes.get(found.name)
        if node is None:
            pool = self._client.get_redis_connection(found).connection_pool
            node = self._nodes.setdefault(found.name, Node(pool, self._timeout, has_slots=True))
        return node


def _log_failure(known: Future[None]) -> None:
    if error := known.exception():
        logger.warning(
            "Looking up the slots of a Redis Cluster failed: %s",
            error,
            extra={"reason": str(error)},
        )


async def at_node(
    calls: Calls, servers: Servers, key: str, deadline: float, ask: Callable[[Node], Awaitable[T]]
) -> T:
    """Ask the node that has the key, wherever a cluster may just have moved it."""
    try:
        for _ in range(MOVES):
            try:
                return await ask(servers.of(key))
            except Moved:
                known = servers.look_up()
                await calls.wait(known, deadline - clocks.monotonic())
                if not known.done():
                    raise LockBackendUnavailable(
                        "Redis Cluster: looking up its slots takes too long."
                    ) from None
                known.result()
        return await ask(servers.of(key))
    except LockBackendUnavailable:
        servers.suspect()
        raise
    except FAILURES as error:
        raise _unavailable(error, key) from error


async def call_at_node(
    calls: Calls, servers: Servers, call: Call, deadline: float, undo: Call | None = None
) -> Any:
    """Run a script at the node that has its keys. See Node.run()."""
    return await at_node(
        calls,
        servers,
        call.keys[0],
        deadline,
        lambda node: node.run(calls, call, deadline, undo),
    )


FAILURES: Final = (Moved, RedisError, RedisClusterException, OSError)
"""The exceptions of looking for a cluster's node."""


def _unavailable(error: Exception, key: str) -> LockBackendUnavailable:
    if isinstance(error, Moved):
        return LockBackendUnavailable(
            f"Redis Cluster keeps moving {key!r}: wait until it is stable."
        )
    return LockBackendUnavailable(f"Redis Cluster: {error}")
