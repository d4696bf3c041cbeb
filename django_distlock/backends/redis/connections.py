"""Connections to Redis for locks alone, made as the cache's are, but with a time budget.

A cache may wait for an answer without end, or try again for minutes. Here a call ends by its
deadline, with an answer or with LockBackendUnavailable.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Final

from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from django_distlock import clocks
from django_distlock.backends.sockets.pools import Pool
from django_distlock.backends.sockets.wires import ServerError
from django_distlock.exceptions import LockBackendUnavailable

from .scripts import Call
from .wire import RedisWire, socket_of

ELSEWHERE: Final = {"MOVED", "ASK"}
"""What a cluster's node answers that hasn't got the key."""
NOT_NOW: Final = {"READONLY", "LOADING", "MASTERDOWN", "NOREPLICAS"}
"""What a server answers that isn't the master, not yet, or not any more: another may be by now."""


class Moved(Exception):
    """Another node of the cluster has this key."""


class Node(Pool[RedisWire]):
    """A Redis server, as a connection pool leads to it, with connections of our own."""

    failures: ClassVar[tuple[type[BaseException], ...]] = (OSError, RedisError)

    def __init__(self, pool: Any, timeout: float) -> None:
        super().__init__(timeout)
        self.pool = pool
        self.silent = False
        """Whether it didn't answer when leases were to be renewed last."""

    def __str__(self) -> str:
        if service := self._service():
            return f"Redis, the master {service!r}"
        kwargs = self.pool.connection_kwargs
        host = os.fsdecode(kwargs.get("host", "localhost"))  # a cluster's: bytes, before 4.4
        address = f"{host}:{kwargs.get('port', 6379)}"
        return f"Redis at {kwargs.get('path') or address}"

    def _service(self) -> str | None:
        """Return the name by which sentinels know the server, if they are asked for it."""
        found: str | None = getattr(self.pool, "service_name", None)
        return found

    def run(self, call: Call, deadline: float, undo: Call | None = None) -> Any:
        """Run a script and return its answer.

        If none comes in time, `undo` is sent after it, whose answer nobody waits for.
        """
        undoing = undo and undo.command(whole=True)
        [answer] = self.ask_all([call.command()], deadline, undoing)
        if isinstance(answer, ServerError):
            if answer.code == "NOSCRIPT":
                [answer] = self.ask_all([call.command(whole=True)], deadline, undoing)
            self.raise_for(answer)
        return answer

    async def arun(self, call: Call, deadline: float, undo: Call | None = None) -> Any:
        """See run(). `undo` is also sent if the task is cancelled."""
        undoing = undo and undo.command(whole=True)
        [answer] = await self.aask_all([call.command()], deadline, undoing)
        if isinstance(answer, ServerError):
            if answer.code == "NOSCRIPT":
                deadline = clocks.monotonic() + self.timeout  # the turn may have taken all of it
                [answer] = await self.aask_all([call.command(whole=True)], deadline, undoing)
            self.raise_for(answer)
        return answer

    def raise_for(self, answer: Any, asked: str = "") -> None:
        """Raise what the answer means, if it is an error."""
        if not isinstance(answer, ServerError):
            return
        if answer.code in ELSEWHERE:
            raise Moved from answer
        if answer.code in NOT_NOW:
            self.close()
        raise LockBackendUnavailable(f"{self} answered{asked}: {answer}") from answer

    def connect(self, seconds: float) -> RedisWire:
        """Return a new connection, which redis-py makes within so many seconds.

        A handshake of TLS may take as long again, since each of its steps may.
        """
        # Not make_connection(), which would have it count against the cache's own limit for ever.
        connection = self.pool.connection_class(**self.pool.connection_kwargs)
        connection.socket_timeout = seconds
        # Sentinels may have had the other half.
        connection.socket_connect_timeout = seconds / 2 if self._service() else seconds
        connection.retry = Retry(NoBackoff(), 0)
        with _in_time(connection, seconds):
            connection.connect()
        return RedisWire(connection)

    def eviction_policy(self) -> str | None:
        """Return the server's maxmemory-policy; None if it can't be asked, or won't tell."""
        command = "CONFIG", "GET", "maxmemory-policy"
        try:
            [answer] = self.ask_all([command], clocks.monotonic() + self.timeout)
        except LockBackendUnavailable:
            return None
        if isinstance(answer, ServerError) or not answer:
            return None
        policy: bytes = answer[1]
        return policy.decode()


@contextmanager
def _in_time(connection: Any, seconds: float) -> Iterator[None]:
    """Raise TimeoutError if the block takes longer: redis-py gives each of its steps that time."""
    ends = clocks.monotonic() + seconds
    read = connection.read_response

    def read_in_time(*args: Any, **kwargs: Any) -> Any:
        socket_of(connection).settimeout(max(ends - clocks.monotonic(), 0.001))
        return read(*args, **kwargs)

    connection.read_response = read_in_time
    try:
        yield
    except RedisError as error:
        if clocks.monotonic() >= ends:
            raise TimeoutError from error
        raise
    finally:
        del connection.read_response
