"""Call a store from a policy that is written once, for sync and async code.

A policy is a coroutine function that takes StoreCalls. In sync code, ask() runs it to its end in
this thread: no call of SyncCalls suspends, so an exception passes through the policy as through any
function. In async code, aask() awaits it in the event loop, or runs it in a thread by ask().
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol, TypeVar

from django_distlock import signals
from django_distlock.backends.base import AsyncStore, BaseLockBackend, QueueingStore
from django_distlock.backends.sync_driver import run_sync
from django_distlock.conf import lock_backends
from django_distlock.logs import room_logger
from django_distlock.records import Claim, Grant, Place, Refusal, Released, Renewal
from django_distlock.redaction.tracebacks import ClearedVariables
from django_distlock.transactions import open_transactions

from .background import background
from .executors import detach, in_thread
from .sync_transactions import has_open_transaction

logger = room_logger("locks")

T = TypeVar("T")

SIGNALS = (
    signals.lock_acquired,
    signals.lock_released,
    signals.lock_lost,
)


class StoreCalls(Protocol):
    """The calls that a policy may make. See BaseLockBackend for each."""

    async def acquire(
        self, semaphore: str, owner: str, ttl: float | None, holder: str
    ) -> Grant | Refusal: ...
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
    ) -> Grant | Refusal:
        with ClearedVariables():
            return self._store.acquire(semaphore, owner, ttl, holder)

    async def join(
        self, semaphore: str, owner: str, holder: str, wake: Callable[[], object]
    ) -> Place | None:
        if not isinstance(self._store, QueueingStore):
            return None
        with ClearedVariables():
            return self._store.join(semaphore, owner, holder, wake)

    async def leave(self, place: Place, granted: bool) -> None:
        if isinstance(self._store, QueueingStore):
            with ClearedVariables():
                self._store.leave(place, granted)

    async def renew(self, leases: Sequence[Claim]) -> dict[str, Renewal]:
        with ClearedVariables():
            return self._store.renew(leases)

    async def release(self, lease: Claim, keep: float = 0) -> Released:
        with ClearedVariables():
            return self._store.release(lease, keep)


class AsyncCalls:
    """Awaits the store in this event loop. All calls share one deadline.

    After the task was cancelled, the policy only undoes what it did. These calls run to their end
    even if the task is cancelled again.
    """

    __slots__ = ("_cancelled", "_deadline", "_store")

    def __init__(self, store: AsyncStore) -> None:
        self._store = store
        self._deadline = store.new_deadline()
        self._cancelled = False

    async def acquire(
        self, semaphore: str, owner: str, ttl: float | None, holder: str
    ) -> Grant | Refusal:
        return await self._finish(
            self._store.aacquire(semaphore, owner, ttl, holder, deadline=self._deadline)
        )

    async def join(
        self, semaphore: str, owner: str, holder: str, wake: Callable[[], object]
    ) -> Place | None:
        return await self._finish(
            self._store.ajoin(semaphore, owner, holder, wake, deadline=self._deadline)
        )

    async def leave(self, place: Place, granted: bool) -> None:
        await self._finish(self._store.aleave(place, granted, deadline=self._deadline))

    async def renew(self, leases: Sequence[Claim]) -> dict[str, Renewal]:
        return await self._finish(self._store.arenew(leases, deadline=self._deadline))

    async def release(self, lease: Claim, keep: float = 0) -> Released:
        return await self._finish(self._store.arelease(lease, keep, deadline=self._deadline))

    async def _finish(self, call: Coroutine[Any, Any, T]) -> T:
        with ClearedVariables():
            try:
                return await (asyncio.shield(detach(call)) if self._cancelled else call)
            except asyncio.CancelledError:
                self._cancelled = True
                raise


def ask(store: BaseLockBackend, policy: Policy[T]) -> T:
    """Run the policy in this thread; all its calls share the store's time budget."""
    if store.keeps_open:
        background(store.alias).close_when_idle()
    with store.time_budget():
        return run_sync(policy(SyncCalls(store)))


async def aask(backend: str, policy: Policy[T], undo: Callable[[T], object] | None = None) -> T:
    """Run the policy in the event loop if that is possible, else in a thread.

    If the task is cancelled meanwhile, CancelledError is raised in the policy, whose further calls
    are still made; in a thread, its result is passed to `undo`. Without `undo` the policy runs to
    its end. The task ends after that.
    """
    store = await _awaitable_store(backend)
    if store is None:
        return await in_thread(backend, lambda: ask(lock_backends[backend], policy), undo)
    if undo is not None:
        return await _run_async(store, policy)
    running = detach(_run_async(store, policy))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        if error := running.exception():
            logger.error(
                "A task was cancelled; what it asked a lock's store for failed: %s",
                error,
                extra={"backend": backend, "reason": str(error)},
            )
        raise


async def _awaitable_store(backend: str) -> AsyncStore | None:
    """Return the store; None if it, a receiver of signals, or a transaction needs a thread."""
    store = lock_backends[backend]
    if not isinstance(store, AsyncStore) or any(signal.receivers for signal in SIGNALS):
        return None
    return None if open_transactions() or await has_open_transaction() else store


async def _run_async(store: AsyncStore, policy: Policy[T]) -> T:
    if store.keeps_open:
        background(store.alias).close_when_idle()
    return await policy(AsyncCalls(store))
