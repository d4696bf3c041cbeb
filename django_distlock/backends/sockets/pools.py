"""Pools of connections that are used for locks alone, by sync and async code together.

A call ends by its deadline, with an answer or with LockBackendUnavailable.
"""

import asyncio
import atexit
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import cache, partial
from typing import Any, ClassVar, Generic, NoReturn, TypeVar
from weakref import WeakSet

from django_distlock.exceptions import LockBackendUnavailable
from django_distlock.threads import NoThread

from .connections import Connection
from .turns import AT_ONCE, Turns, seconds_until

T = TypeVar("T")
C = TypeVar("C", bound=Connection)


class Pool(ABC, Generic[C]):
    """A server, whose name for people is its str(), and this process's connections to it."""

    failures: ClassVar[tuple[type[BaseException], ...]] = (OSError,)
    """The exceptions that mean that the server can't be asked."""

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self._idle: list[C] = []
        self._turns = Turns(timeout)
        _pools.add(self)

    @abstractmethod
    def __str__(self) -> str: ...

    @abstractmethod
    def connect(self, seconds: float) -> C:
        """Return a new connection, made within so many seconds."""

    def ask_all(self, requests: Sequence[Any], deadline: float, undo: Any = None) -> list[Any]:
        """Send all requests together and return their answers, a ServerError for an error.

        If these don't come in time, the request `undo` is sent after them; its answer is ignored.
        """
        connection = None
        try:
            left = self._left(deadline)
            connection = self._take_idle()
            if connection is None:
                connection = self.connect(left)
                left = self._left(deadline)
            connection.set_timeout(left)
            connection.send(requests)
            # Of several, each answer that arrives shows that the server lives.
            rest = deadline if len(requests) == 1 else math.inf
            answers = [connection.receive(rest) for _ in requests]
        except BaseException as error:  # noqa: BLE001 - raised again, as what it means
            undone = isinstance(error, TimeoutError) and _send_only(connection, undo)
            self._fail(connection, error, undone=undone)
        self._idle.append(connection)
        return answers

    async def aask_all(
        self, requests: Sequence[Any], deadline: float, undo: Any = None
    ) -> list[Any]:
        """See ask_all(). `undo` is also sent if the task is cancelled."""
        connection = None
        try:
            async with (
                self._turns.take(deadline) as deadline,
                asyncio.timeout(seconds_until(deadline)),
            ):
                connection = self._take_idle() or await self._aconnect(seconds_until(deadline))
                connection.send(requests)
                answers = [await connection.areceive() for _ in requests]
            self._turns.answered()
        except asyncio.CancelledError:
            if connection is not None:
                await asyncio.shield(_start(self._undo(connection, undo)))
            raise
        except BaseException as error:  # noqa: BLE001 - raised again, as what it means
            undone = isinstance(error, TimeoutError) and _send_only(connection, undo)
            self._fail(connection, error, undone=undone)
        self._idle.append(connection)
        return answers

    async def _undo(self, connection: C, undo: Any) -> None:
        """Undo a cancelled task's requests, on the same connection so that the order is kept.

        It is closed once all has been answered: with an answer left unread, closing would make the
        server discard what it hasn't read yet.
        """
        with suppress(Exception):
            async with asyncio.timeout(self.timeout):
                if undo is not None:
                    connection.send([undo])
                while connection.outstanding:
                    await connection.areceive()
        _close(connection)

    def _take_idle(self) -> C | None:
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return None
            if not connection.has_ended():
                return connection
            _close(connection)

    def _left(self, deadline: float) -> float:
        """Return the seconds left; the full timeout while most of it is.

        Then the timeout that is set on a connection rarely changes, which is a system call.
        """
        left = seconds_until(deadline)
        return self.timeout if left > 0.9 * self.timeout else left

    def _fail(self, connection: C | None, error: BaseException, *, undone: bool) -> NoReturn:
        """Close the connection, and all others if they may be broken too; raise what it means.

        A request that is undone must not be sent again: the new one might be undone instead.
        """
        _close(connection)
        if not isinstance(error, self.failures):
            raise error
        self.close()
        lost = connection is not None and not undone
        reason = str(error) or f"no answer in {self.timeout} seconds"
        raise LockBackendUnavailable(f"{self}: {reason}", reply_lost=lost) from error

    async def _aconnect(self, seconds: float) -> C:
        """See connect(). It runs in a thread that no other work of the site keeps busy."""
        connecting: Future[C] = Future()
        try:
            connecting_threads().submit(_call_into, connecting, partial(self.connect, seconds))
        except RuntimeError as error:
            connecting.cancel()  # or it would be done later, when a thread can be started
            raise NoThread(f"{self}: a thread is needed to connect, but {error}") from error
        try:
            return await asyncio.wrap_future(connecting)
        except BaseException:
            connecting.add_done_callback(_close_unused)
            raise

    def close(self) -> None:
        """Close the connections that are not in use."""
        while self._idle:
            with suppress(IndexError):
                _close(self._idle.pop())

    def close_after_fork(self) -> None:
        """Close a forked child's copies of the connections: they stay open in its parent."""
        self.close()


def _send_only(connection: Connection | None, request: Any) -> bool:
    """Send a request whose answer is ignored; return whether that was possible."""
    if connection is None or request is None:
        return False
    try:
        connection.send([request])
    except OSError:
        return False
    return True


def _close(connection: Connection | None) -> None:
    if connection is not None:
        with suppress(Exception):
            connection.close()


_tasks: set[asyncio.Task[None]] = set()
"""The event loop refers to them weakly only."""


def _start(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """Return a task that ends even if it is not awaited."""
    task = asyncio.get_running_loop().create_task(work)
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)
    return task


def _call_into(outcome: Future[T], call: Callable[[], T]) -> None:
    """Call, and put the result into the future, unless that was cancelled."""
    if not outcome.set_running_or_notify_cancel():
        return
    try:
        outcome.set_result(call())
    except BaseException as error:  # noqa: BLE001 - raised where the outcome is awaited
        outcome.set_exception(error)


def _close_unused(connecting: Future[Any]) -> None:
    if not connecting.cancelled() and not connecting.exception():
        _close(connecting.result())


@cache
def connecting_threads() -> ThreadPoolExecutor:
    """Return the threads in which connections are made for tasks."""
    return ThreadPoolExecutor(AT_ONCE, thread_name_prefix="django_distlock connects")


_pools: WeakSet[Pool[Any]] = WeakSet()


def close_idle() -> None:
    """Close the connections of this process that are not in use."""
    for pool in list(_pools):
        pool.close()


def _close_after_fork() -> None:
    connecting_threads.cache_clear()
    for pool in list(_pools):
        pool.close_after_fork()


os.register_at_fork(after_in_child=_close_after_fork)
atexit.register(close_idle)
