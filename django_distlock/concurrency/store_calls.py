"""The policy asks a store through StoreCalls: it is written once, as coroutines.

Sync code runs a policy by ask(), whose calls to the store return at once, so that nothing ever
suspends: an exception, wherever it strikes, passes through the policy as through any function.
Async code awaits it, and what it asks, in its event loop or in a thread.
"""

import asyncio
import logging
import sys
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol, TypeVar

from django_distlock import signals
from django_distlock.backends.base import BaseLockBackend
from django_distlock.conf import lock_backends
from django_distlock.records import Claim, Grant, Place, Renewal
from django_distlock.redaction.tracebacks import call_store, clear_variables
from django_distlock.transactions import open_transactions

from .background import background
from .executors import detach, in_thread, may_concern_transactions

logger = logging.getLogger("django_distlock")

T = TypeVar("T")

SIGNALS = (
    signals.lock_acquired,
    signals.lock_released,
    signals.lock_lost,
)


class StoreCalls(Protocol):
    """What a policy may ask of its store. See BaseLockBackend for each."""

    async def acquire(
        self, semaphore: str, owner: str, ttl: float | None, holder: str
    ) -> Grant | None: ...
    async def join(
        self, semaphore: str, owner: str, holder: str, wake: Callable[[], object]
    ) -> Place | None: ...
    async def leave(self, place: Place, granted: bool) -> None: ...
    async def renew(self, leases: Sequence[Claim]) -> dict[str, Renewal]: ...
    async def release(self, lease: Claim, keep: float = 0) -> bool: ...


Policy = Callable[[StoreCalls], Coroutine[Any, Any, T]]


class SyncCalls:
    """Calls the store in this thread. None of these coroutines suspends."""

    __slots__ = ("_store",)

    def __init__(self, store: BaseLockBackend) -> None:
        self._store = store

    async def acquire(
        self, semaphore: str, owner: str, ttl: float | None, holder: str
    ) -> Grant | None:
        return call_store(self._store.acquire, semaphore, owner, ttl, holder)

    async def join(
        self, semaphore: str, owner: str, holder: str, wake: Callable[[], object]
    ) -> Place | None:
        return call_store(self._store.join, semaphore, owner, holder, wake)

    async def leave(self, place: Place, granted: bool) -> None:
        call_store(self._store.leave, place, granted)

    async def renew(self, leases: Sequence[Claim]) -> dict[str, Renewal]:
        return call_store(self._store.renew, leases)

    async def release(self, lease: Claim, keep: float = 0) -> bool:
        return call_store(self._store.release, lease, keep)


class AsyncCalls:
    """Awaits a store that `is_async`, in this event loop.

    What is asked after the task was cancelled undoes something: that is asked to the end, even if
    the task is cancelled once more.
    """

    __slots__ = ("_budget", "_cancelled", "_store")

    def __init__(self, store: Any, budget: object) -> None:
        self._store = store
        self._budget = budget
        self._cancelled = False

    async def acquire(
        self, semaphore: str, owner: str, ttl: float | None, holder: str
    ) -> Grant | None:
        return await self._answer(
            self._store.aacquire(semaphore, owner, ttl, holder, budget=self._budget)
        )

    async def join(
        self, semaphore: str, owner: str, holder: str, wake: Callable[[], object]
    ) -> Place | None:
        return await self._answer(
            self._store.ajoin(semaphore, owner, holder, wake, budget=self._budget)
        )

    async def leave(self, place: Place, granted: bool) -> None:
        await self._answer(self._store.aleave(place, granted, budget=self._budget))

    async def renew(self, leases: Sequence[Claim]) -> dict[str, Renewal]:
        return await self._answer(self._store.arenew(leases, budget=self._budget))

    async def release(self, lease: Claim, keep: float = 0) -> bool:
        return await self._answer(self._store.arelease(lease, keep, budget=self._budget))

    async def _answer(self, question: Coroutine[Any, Any, T]) -> T:
        handled = sys.exception()
        try:
            return await (asyncio.shield(detach(question)) if self._cancelled else question)
        except BaseException as error:
            self._cancelled |= isinstance(error, asyncio.CancelledError)
            clear_variables(error, handled)
            raise


def ask(store: BaseLockBackend, policy: Policy[T]) -> T:
    """Run the policy in this thread, all that it asks in the store's one time budget."""
    if store.keeps_open:
        background(store.alias).close_when_idle()
    with store.in_time():
        return run_sync(policy(SyncCalls(store)))


def run_sync(coroutine: Coroutine[Any, Any, T]) -> T:
    """Return what the coroutine does, none of whose awaits suspends."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    finally:
        coroutine.close()
    raise RuntimeError("A coroutine for sync code awaited something.")


async def aask(backend: str, policy: Policy[T], undo: Callable[[T], object] | None = None) -> T:
    """Run the policy in the event loop if the store can be asked there, else in a thread.

    If the task is cancelled meanwhile, the policy is thrown that, and what it asks then is still
    asked. What can't be undone so, or by `undo` where a thread asks, is asked to the end all the
    same. The task ends after that.
    """
    if not _can_be_awaited(backend):
        return await in_thread(backend, lambda: ask(lock_backends[backend], policy), undo)
    if undo is not None:
        return await _run_async(lock_backends[backend], policy)
    asking = detach(_run_async(lock_backends[backend], policy))
    try:
        return await asyncio.shield(asking)
    except asyncio.CancelledError:
        await asyncio.wait([asking])
        if error := asking.exception():
            logger.error("A task was cancelled; what it asked a lock's store for failed: %s", error)
        raise


def _can_be_awaited(backend: str) -> bool:
    """Tell whether nothing needs a thread: the store, a receiver of signals, or a transaction."""
    store = lock_backends[backend]
    return (
        store.is_async
        and not any(signal.receivers for signal in SIGNALS)
        and not may_concern_transactions()
        and not open_transactions()
    )


async def _run_async(store: BaseLockBackend, policy: Policy[T]) -> T:
    """Run the policy in the event loop, all that it asks in the store's one time budget."""
    if store.keeps_open:
        background(store.alias).close_when_idle()
    with store.new_budget() as budget:
        return await policy(AsyncCalls(store, budget))
