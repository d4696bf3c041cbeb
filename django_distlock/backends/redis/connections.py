"""Connections to Redis for locks alone, made as the cache's are, but with a time budget.

A cache may wait for an answer without end, or try again for minutes. Here a call ends by its
deadline, with an answer or with LockBackendUnavailable.
"""

import asyncio
import math
import os
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import cache
from threading import Timer
from typing import Any, Final, NoReturn, Self
from weakref import WeakKeyDictionary, WeakSet

from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from ... import clocks
from ...exceptions import LockBackendUnavailable
from ...threads import detach
from .scripts import Call
from .wire import Command, ServerError, Wire

ELSEWHERE: Final = {"MOVED", "ASK"}
"""What a cluster's node answers that hasn't got the key."""
NOT_NOW: Final = {"READONLY", "LOADING", "MASTERDOWN"}
"""What a server answers that isn't the master, or not yet: another may be by now."""

AT_ONCE: Final = 8
"""How many connections the tasks of an event loop have at once."""


class Moved(Exception):
    """Another node of the cluster has this key."""


class Budget:
    """The seconds that a call to the store has; in a `with` block all calls have them together.

    A block within one has its own: a receiver of a signal may use the store while another call is
    under way.
    """

    __slots__ = ("_deadlines", "seconds")

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._deadlines: list[float] = []

    def __enter__(self) -> Self:
        self._deadlines.append(clocks.monotonic() + self.seconds)
        return self

    def __exit__(self, *exception: object) -> None:
        self._deadlines.pop()

    def deadline(self) -> float:
        """Return when it is used up, by the local monotonic clock."""
        return self._deadlines[-1] if self._deadlines else clocks.monotonic() + self.seconds


class Node:
    """A Redis server, as a connection pool leads to it, with connections of our own."""

    def __init__(self, pool: Any, timeout: float) -> None:
        self.pool = pool
        self.timeout = timeout
        self._idle: list[Wire] = []
        self._answered = -math.inf
        """When a task was answered last, by the local monotonic clock."""
        self._turns: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = (
            WeakKeyDictionary()
        )
        _nodes.add(self)

    def __str__(self) -> str:
        if service := getattr(self.pool, "service_name", None):
            return f"Redis, the master {service!r}"
        kwargs = self.pool.connection_kwargs
        address = f"{kwargs.get('host', 'localhost')}:{kwargs.get('port', 6379)}"
        return f"Redis at {kwargs.get('path') or address}"

    def run(self, call: Call, deadline: float, undo: Call | None = None) -> Any:
        """Run a script and return its answer.

        If none comes in time, `undo` is sent after it, whose answer nobody waits for.
        """
        [answer] = self.ask_all([call.command()], deadline, undo)
        if isinstance(answer, ServerError):
            if answer.code == "NOSCRIPT":
                [answer] = self.ask_all([call.command(whole=True)], deadline, undo)
            self.raise_for(answer)
        return answer

    async def arun(self, call: Call, deadline: float, undo: Call | None = None) -> Any:
        """See run(). `undo` is also sent if the task is cancelled."""
        [answer] = await self.aask_all([call.command()], deadline, undo)
        if isinstance(answer, ServerError):
            if answer.code == "NOSCRIPT":
                deadline = clocks.monotonic() + self.timeout  # the turn may have taken all of it
                [answer] = await self.aask_all([call.command(whole=True)], deadline, undo)
            self.raise_for(answer)
        return answer

    def ask_all(
        self, commands: Sequence[Command], deadline: float, undo: Call | None = None
    ) -> list[Any]:
        """Send all commands at once and return their answers, a ServerError among others."""
        wire = None
        try:
            left = self._left(deadline)
            wire = self._take_idle()
            if wire is None:
                wire = Wire(self.connect(left))
                left = self._left(deadline)
            wire.limit(left)
            wire.send(commands)
            answers = [wire.receive() for _ in commands]
        except BaseException as error:  # noqa: BLE001 - raised again, as what it means
            undone = isinstance(error, TimeoutError) and _send_only(wire, undo)
            self._fail(wire, error, undone=undone)
        self._idle.append(wire)
        return answers

    async def aask_all(
        self, commands: Sequence[Command], deadline: float, undo: Call | None = None
    ) -> list[Any]:
        """See ask_all()."""
        wire = None
        try:
            async with self._turn(deadline) as deadline, asyncio.timeout(_until(deadline)):
                wire = self._take_idle() or await self._aconnect(_until(deadline))
                wire.send(commands)
                answers = [await wire.areceive() for _ in commands]
            self._answered = clocks.monotonic()
        except asyncio.CancelledError:
            if wire is not None:
                await asyncio.shield(detach(self._undo(wire, undo)))
            raise
        except BaseException as error:  # noqa: BLE001 - raised again, as what it means
            undone = isinstance(error, TimeoutError) and _send_only(wire, undo)
            self._fail(wire, error, undone=undone)
        self._idle.append(wire)
        return answers

    async def _undo(self, wire: Wire, undo: Call | None) -> None:
        """Undo what was asked for a task that is cancelled, on the same connection: in this order.

        It is closed when all has been answered: an answer that nobody reads would make the server
        drop what it hasn't read yet.
        """
        with suppress(Exception):
            async with asyncio.timeout(self.timeout):
                if undo is not None:
                    wire.send([undo.command(whole=True)])
                while wire.outstanding:
                    await wire.areceive()
        _close(wire)

    @asynccontextmanager
    async def _turn(self, deadline: float) -> AsyncIterator[float]:
        """Let no more than so many tasks of this loop have a connection each; yield the deadline.

        That is later for who had to wait while the server answered others.
        """
        loop = asyncio.get_running_loop()
        turns = self._turns.get(loop)
        if turns is None:
            turns = self._turns[loop] = asyncio.Semaphore(AT_ONCE)
        if turns.locked():
            deadline = await self._line_up(turns, deadline)
        else:
            await turns.acquire()
        try:
            yield deadline
        finally:
            turns.release()

    async def _line_up(self, turns: asyncio.Semaphore, deadline: float) -> float:
        """Wait for a turn until the server has answered nobody for as long as a call may take."""
        while True:
            left = _until(deadline)
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await turns.acquire()
                return max(deadline, self._answered + self.timeout)
            deadline = self._answered + self.timeout

    def raise_for(self, answer: Any, asked: str = "") -> None:
        """Raise what the answer means, if it is an error."""
        if not isinstance(answer, ServerError):
            return
        if answer.code in ELSEWHERE:
            raise Moved from answer
        if answer.code in NOT_NOW:
            self.close()
        raise LockBackendUnavailable(f"{self} answered{asked}: {answer}") from answer

    def _take_idle(self) -> Wire | None:
        while True:
            try:
                wire = self._idle.pop()
            except IndexError:
                return None
            if not wire.has_ended():
                return wire
            _close(wire)

    def _left(self, deadline: float) -> float:
        """Return what is left of the time; to the first to ask, all of it, as to those before."""
        left = _until(deadline)
        return self.timeout if left > 0.9 * self.timeout else left

    def _fail(self, wire: Wire | None, error: BaseException, *, undone: bool) -> NoReturn:
        """Close the connection, and all others if they may be broken, too; raise what it means.

        What is undone, sooner or later, must not be asked again: that would be undone, too.
        """
        _close(wire)
        if not isinstance(error, RedisError | OSError):
            raise error
        self.close()
        lost = wire is not None and not undone
        what = str(error) or f"no answer in {self.timeout} seconds"
        raise LockBackendUnavailable(f"{self}: {what}", reply_lost=lost) from error

    def connect(self, seconds: float) -> Any:
        """Return a new connection of redis-py's, made within so many seconds.

        A handshake of TLS may take as long again, since each of its steps may.
        """
        # Not make_connection(), which would have it count against the cache's own limit for ever.
        connection = self.pool.connection_class(**self.pool.connection_kwargs)
        connection.socket_timeout = connection.socket_connect_timeout = seconds
        connection.retry = Retry(NoBackoff(), 0)
        with _cut_after(seconds, connection):
            connection.connect()
        return connection

    async def _aconnect(self, seconds: float) -> Wire:
        """See connect(): in a thread that no other work of the site keeps busy."""
        loop = asyncio.get_running_loop()
        return Wire(await loop.run_in_executor(_connecting(), self.connect, seconds))

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

    def close(self) -> None:
        """Close the connections that nobody uses."""
        while self._idle:
            with suppress(IndexError):
                _close(self._idle.pop())

    def forget(self) -> None:
        """Let go of the parent's connections, in its child."""
        self._idle = []


def _until(deadline: float) -> float:
    """Return how many seconds are left; TimeoutError if none."""
    left = deadline - clocks.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


@contextmanager
def _cut_after(seconds: float, connection: Any) -> Iterator[None]:
    """Raise TimeoutError if the block takes longer: redis-py gives each of its steps that time."""
    ends = clocks.monotonic() + seconds
    timer = Timer(seconds, _cut, [connection])
    timer.daemon = True
    timer.start()
    try:
        yield
    except RedisError as error:
        if clocks.monotonic() >= ends:
            raise TimeoutError from error
        raise
    finally:
        timer.cancel()


def _cut(connection: Any) -> None:
    with suppress(OSError, AttributeError):  # it isn't connected yet, or not any more
        connection._sock.shutdown(socket.SHUT_RDWR)


def _send_only(wire: Wire | None, call: Call | None) -> bool:
    """Tell whether it could be sent; nobody waits for an answer."""
    if wire is None or call is None:
        return False
    try:
        wire.send([call.command(whole=True)])
    except OSError:
        return False
    return True


def _close(wire: Wire | None) -> None:
    if wire is not None:
        with suppress(Exception):
            wire.close()


@cache
def _connecting() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(AT_ONCE, thread_name_prefix="django_distlock connects")


_nodes: WeakSet[Node] = WeakSet()


def _forget_all() -> None:
    _connecting.cache_clear()
    for node in list(_nodes):
        node.forget()


os.register_at_fork(after_in_child=_forget_all)
