"""Connections to a store for locks alone, with a time budget, for sync and async code together.

A call ends by its deadline, with an answer or with LockBackendUnavailable.
"""

import asyncio
import atexit
import math
import os
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from functools import cache, partial
from typing import Any, ClassVar, Final, Generic, NoReturn, Self, TypeVar
from weakref import WeakKeyDictionary, WeakSet

from django_distlock import clocks
from django_distlock.concurrency.executors import detach
from django_distlock.exceptions import LockBackendUnavailable

from .daemons import NoThread
from .wires import Wire

AT_ONCE: Final = 8
"""How many connections the tasks of an event loop have at once."""

T = TypeVar("T")
W = TypeVar("W", bound=Wire)


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


class Pool(ABC, Generic[W]):
    """A server, whose name for people str() tells, with connections of our own."""

    failures: ClassVar[tuple[type[BaseException], ...]] = (OSError,)
    """What means that the server can't be asked."""

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self._idle: list[W] = []
        self._answered = -math.inf
        """When a task was answered last, by the local monotonic clock."""
        self._turns: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = (
            WeakKeyDictionary()
        )
        _pools.add(self)

    @abstractmethod
    def __str__(self) -> str: ...

    @abstractmethod
    def connect(self, seconds: float) -> W:
        """Return a new connection, made within so many seconds."""

    def ask_all(self, requests: Sequence[Any], deadline: float, undo: Any = None) -> list[Any]:
        """Send all requests at once and return their answers, a ServerError among others.

        If these don't come in time, the request `undo` is sent after them, whose answer nobody
        waits for.
        """
        wire = None
        try:
            left = self._left(deadline)
            wire = self._take_idle()
            if wire is None:
                wire = self.connect(left)
                left = self._left(deadline)
            wire.limit(left)
            wire.send(requests)
            # Of several, each answer that has come shows that the server lives.
            rest = deadline if len(requests) == 1 else math.inf
            answers = [wire.receive(rest) for _ in requests]
        except BaseException as error:  # noqa: BLE001 - raised again, as what it means
            undone = isinstance(error, TimeoutError) and _send_only(wire, undo)
            self._fail(wire, error, undone=undone)
        self._idle.append(wire)
        return answers

    async def aask_all(
        self, requests: Sequence[Any], deadline: float, undo: Any = None
    ) -> list[Any]:
        """See ask_all(). `undo` is also sent if the task is cancelled."""
        wire = None
        try:
            async with self._turn(deadline) as deadline, asyncio.timeout(seconds_until(deadline)):
                wire = self._take_idle() or await self._aconnect(seconds_until(deadline))
                wire.send(requests)
                answers = [await wire.areceive() for _ in requests]
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

    async def _undo(self, wire: W, undo: Any) -> None:
        """Undo what was asked for a task that is cancelled, on the same connection: in this order.

        It is closed when all has been answered: an answer that nobody reads would make the server
        drop what it hasn't read yet.
        """
        with suppress(Exception):
            async with asyncio.timeout(self.timeout):
                if undo is not None:
                    wire.send([undo])
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
            left = seconds_until(deadline)
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await turns.acquire()
                return max(deadline, self._answered + self.timeout)
            deadline = self._answered + self.timeout

    def _take_idle(self) -> W | None:
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
        left = seconds_until(deadline)
        return self.timeout if left > 0.9 * self.timeout else left

    def _fail(self, wire: W | None, error: BaseException, *, undone: bool) -> NoReturn:
        """Close the connection, and all others if they may be broken, too; raise what it means.

        What is undone, sooner or later, must not be asked again: that would be undone, too.
        """
        _close(wire)
        if not isinstance(error, self.failures):
            raise error
        self.close()
        lost = wire is not None and not undone
        what = str(error) or f"no answer in {self.timeout} seconds"
        raise LockBackendUnavailable(f"{self}: {what}", reply_lost=lost) from error

    async def _aconnect(self, seconds: float) -> W:
        """See connect(): in a thread that no other work of the site keeps busy."""
        connecting: Future[W] = Future()
        try:
            _connecting().submit(_settle, connecting, partial(self.connect, seconds))
        except RuntimeError as error:
            connecting.cancel()  # what can't be begun now may be later
            raise NoThread(f"{self}: a thread is needed to connect, but {error}") from error
        try:
            return await asyncio.wrap_future(connecting)
        except BaseException:
            connecting.add_done_callback(_close_unused)
            raise

    def close(self) -> None:
        """Close the connections that nobody uses."""
        while self._idle:
            with suppress(IndexError):
                _close(self._idle.pop())

    def forget(self) -> None:
        """Let go of the parent's connections, in its child: they stay open in the parent."""
        self.close()


def seconds_until(deadline: float) -> float:
    """Return how many seconds are left; TimeoutError if none."""
    left = deadline - clocks.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _send_only(wire: Wire | None, request: Any) -> bool:
    """Tell whether it could be sent; nobody waits for an answer."""
    if wire is None or request is None:
        return False
    try:
        wire.send([request])
    except OSError:
        return False
    return True


def _close(wire: Wire | None) -> None:
    if wire is not None:
        with suppress(Exception):
            wire.close()


def _settle(outcome: Future[T], call: Callable[[], T]) -> None:
    """Call that in a thread, unless nobody wants it any more."""
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
def _connecting() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(AT_ONCE, thread_name_prefix="django_distlock connects")


_pools: WeakSet[Pool[Any]] = WeakSet()


def close_idle() -> None:
    """Close the connections of this process that nobody uses."""
    for pool in list(_pools):
        pool.close()


def _forget_all() -> None:
    _connecting.cache_clear()
    for pool in list(_pools):
        pool.forget()


os.register_at_fork(after_in_child=_forget_all)
atexit.register(close_idle)
