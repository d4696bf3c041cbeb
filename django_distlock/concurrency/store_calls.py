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
from django_distlock.backends.base import AsyncStore, BaseLockBackend, QueueingStore
from django_distlock.conf import lock_backends
from django_distlock.records import Claim, Grant, Place, Released, Renewal
from django_distlock.redaction.tracebacks import call_store, clear_variables
from django_distlock.transactions import open_transactions

from .background import background
from .executors import detach, in_thread
from .sync_transactions import has_open_transaction

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
    async def release(self, lease: Claim, keep: float = 0) -> Released: ...


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
        if isinstance(self._store, QueueingStore):
            return call_store(self._store.join, semaphore, owner, holder, wake)
        return None

    async def leave(self, place: Place, granted: bool) -> None:
        if isinstance(self._store, QueueingStore):
            call_store(self._store.leave, place, granted)

    async def renew(self, leases: Sequence[Claim]) -> dict[str, Renewal]:
        return call_store(self._store.renew, leases)

    async def release(self, lease: Claim, keep: float = 0) -> Released:
        return call_store(self._store.release, lease, keep)


class AsyncCalls:
    """Awaits an AsyncStore in this event loop.

    What is asked after the task was cancelled undoes something: that is asked to the end, even if
    the task is cancelled once more.
    """

    __slots__ = ("_cancelled", "_deadline", "_store")

    def __init__(self, store: AsyncStore) -> None:
        self._store = store
        self._deadline = store.new_deadline()
        self._cancelled = False

    async def acquire(
        self, semaphore: str, owner: str, ttl: float | None, holder: str
    ) -> Grant | None:
        return await self._answer(
            self._store.aacquire(semaphore, owner, ttl, holder, deadline=self._deadline)
        )

    async def join(
        self, semaphore: str, owner: str, holder: str, wake: Callable[[], object]
    ) -> Place | None:
        return await self._answer(
            self._store.ajoin(semaphore, owner, holder, wake, deadline=self._deadline)
        )

    async def leave(self, place: Place, granted: bool) -> None:
        await self._answer(self._store.aleave(place, granted, deadline=self._deadline))

    async def renew(self, leases: Sequence[Claim]) -> dict[str, Renewal]:
        return await self._answer(self._store.arenew(leases, deadline=self._deadline))

    async def release(self, lease: Claim, keep: float = 0) -> Released:
        return await self._answer(self._store.arelease(lease, keep, deadline=self._deadline))

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
    with store.time_budget():
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
    store = await _awaitable_store(backend)
    if store is None:
        return await in_thread(backend, lambda: ask(lock_backends[backend], policy), undo)
    if undo is not None:
        return await _run_async(store, policy)
    asking = detach(_run_async(store, policy))
    try:
        return await asyncio.shield(asking)
    except asyncio.CancelledError:
        await asyncio.wait([asking])
        if error := asking.exception():
            logger.error("A task was cancelled; what it asked a lock's store for failed: %s", error)
        raise


async def _awaitable_store(backend: str) -> AsyncStore | None:
    """Return the store; None if it, a receiver of signals, or a transaction needs a thread."""
    store = lock_backends[backend]
    if not isinstance(store, AsyncStore) or any(signal.receivers for signal in SIGNALS):
        return None
    return None if open_transactions() or await has_open_transaction() else store


async def _run_async(store: AsyncStore, policy: Policy[T]) -> T:
    """Run the policy in the event loop; all its calls share one deadline."""
    if store.keeps_open:
        background(store.alias).close_when_idle()
    return await policy(AsyncCalls(store))
