"""Redis servers, asked by connections that are made as the cache's are, but have a time budget.

A cache may wait for an answer without end, or retry for minutes. Here a call ends by its deadline,
with an answer or with LockBackendUnavailable.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Final

from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from django_distlock import clocks
from django_distlock.backends.sockets.calls import Calls
from django_distlock.backends.sockets.connections import ServerError
from django_distlock.backends.sockets.pools import Pool
from django_distlock.exceptions import LockBackendUnavailable

from .protocol import RedisConnection, socket_of
from .scripts import Call

ELSEWHERE: Final = {"MOVED", "ASK"}
"""The errors of a cluster's node that doesn't have the key."""
NOT_NOW: Final = {"READONLY", "LOADING", "MASTERDOWN", "NOREPLICAS"}
"""The errors of a server that isn't the master, not yet or not any more: another may be by now."""


class Moved(Exception):
    """Another node of the cluster has this key."""


class Node(Pool[RedisConnection]):
    """A Redis server, found by a connection pool of redis-py, with connections of our own."""

    failures: ClassVar[tuple[type[BaseException], ...]] = (OSError, RedisError)

    def __init__(self, pool: Any, timeout: float, *, has_slots: bool = False) -> None:
        super().__init__(timeout)
        self.pool = pool
        self.silent = False
        """Whether it didn't answer the last renewal."""
        self.has_slots = has_slots
        """Whether it may refuse a script that is given keys of several slots."""

    def __str__(self) -> str:
        if service := self._service():
            return f"Redis, the master {service!r}"
        kwargs = self.pool.connection_kwargs
        host = os.fsdecode(kwargs.get("host", "localhost"))  # a cluster's: bytes, before 4.4
        address = f"{host}:{kwargs.get('port', 6379)}"
        return f"Redis at {kwargs.get('path') or address}"

    def _service(self) -> str | None:
        """Return the name by which sentinels know the server, if they are used."""
        found: str | None = getattr(self.pool, "service_name", None)
        return found

    async def run(self, calls: Calls, call: Call, deadline: float, undo: Call | None = None) -> Any:
        """Run a script and return its answer.

        If none comes in time, or the task is cancelled, `undo` is sent after it; its answer is
        ignored.
        """
        undoing = undo and self.command(undo, whole=True)
        [answer] = await calls.ask_all(self, [self.command(call)], deadline, undoing)
        if isinstance(answer, ServerError):
            if answer.code == "CROSSSLOT" and not self.has_slots and call.script.reads_pauses:
                self.has_slots = True
                return await self.run(calls, call, deadline, undo)
            if answer.code == "NOSCRIPT":
                if calls.takes_turns:
                    deadline = clocks.monotonic() + self.timeout
                whole = self.command(call, whole=True)
                [answer] = await calls.ask_all(self, [whole], deadline, undoing)
            self.raise_for(answer)
        return answer

    def command(self, call: Call, *, whole: bool = False) -> tuple[Any, ...]:
        """Return the command that runs a script here. See Call.command()."""
        return call.command(whole=whole, in_one_slot=self.has_slots)

    def run_all(self, calls: Sequence[Call], deadline: float) -> list[Any]:
        """Run the same script several times, and return the answers. See ask_all()."""
        answers = self.ask_all([self.command(call) for call in calls], deadline)
        if any(getattr(answer, "code", None) == "NOSCRIPT" for answer in answers):
            first, *rest = calls
            commands = [self.command(first, whole=True), *map(self.command, rest)]
            answers = self.ask_all(commands, deadline)
        return answers

    def raise_for(self, answer: Any, asked: str = "") -> None:
        """Raise Moved or LockBackendUnavailable if the answer is an error."""
        if not isinstance(answer, ServerError):
            return
        if answer.code in ELSEWHERE:
            raise Moved from answer
        if answer.code in NOT_NOW:
            self.close()
        raise LockBackendUnavailable(f"{self} answered{asked}: {answer}") from answer

    def connect(self, seconds: float) -> RedisConnection:
        """Return a new connection, made by redis-py within so many seconds.

        A TLS handshake may take as long again.
        """
        # Not make_connection(): it would count against the cache's own limit for ever.
        connection = self.pool.connection_class(**self.pool.connection_kwargs)
        connection.socket_timeout = seconds
        # Asking sentinels may have taken the other half.
        connection.socket_connect_timeout = seconds / 2 if self._service() else seconds
        connection.retry = Retry(NoBackoff(), 0)
        with _in_time(connection, seconds):
            connection.connect()
        return RedisConnection(connection)

    def eviction_policy(self) -> str | None:
        """Return the server's maxmemory-policy; None if it can't be asked or doesn't say."""
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
    """Raise TimeoutError if the block takes longer: redis-py gives each of its steps so long."""
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
