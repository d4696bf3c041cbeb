"""Run the store calls of async code in threads, so that they don't block its event loop.

Each store has a pool of its own. In the thread of asgiref, a call would wait for all sync code of
the process; in the event loop's default pool, for whatever blocks there; and in a pool of all
stores, for one that is down.
"""

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar
from weakref import WeakSet

from asgiref.sync import sync_to_async
from django.db import connections

from django_distlock.backends.base import TransactionalStore
from django_distlock.conf import lock_backends
from django_distlock.exceptions import LockBackendUnavailable
from django_distlock.logs import room_logger
from django_distlock.runtime import sync_thread

from .callers import continue_in_task, current_caller
from .sync_transactions import has_open_transaction

T = TypeVar("T")

logger = room_logger("locks")

executors: dict[str, ThreadPoolExecutor] = {}
"""The thread pool of each store, by its alias."""
# A forked child has none of its parent's threads.
os.register_at_fork(after_in_child=executors.clear)
_pool_threads: WeakSet[threading.Thread] = WeakSet()
_detached: set[asyncio.Task[Any]] = set()
"""The event loop refers to its tasks weakly: without this, one could be lost before its end."""


async def in_thread(
    backend: str, call: Callable[[], T], undo: Callable[[T], object] | None = None
) -> T:
    """Make a call to this store in a thread, and return its result.

    It is one of the store's pool. But a call that may be part of the task's transaction, or that
    uses its database connection, is made in the thread in which asgiref runs the task's sync code.

    If the task is cancelled meanwhile, `undo` is called with the result; without `undo`, the call
    is made all the same. The task ends after that, or when it is cancelled again.
    """
    work = Work(call, undo)
    try:
        await _run(backend, work)
    except asyncio.CancelledError:
        await _finish_cancelled(backend, work)
        raise
    except RuntimeError as error:
        if work.outcome.cancel():  # else it would run later, once a thread can be started
            raise LockBackendUnavailable(
                f"DISTLOCK[{backend!r}]: a thread is needed, but {error}"
            ) from error
        raise
    try:
        return work.outcome.result()
    finally:
        vars(work).clear()  # the frames of an error's traceback refer to it: break that cycle


def detach(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Run the coroutine in a task of its own, for the same caller, awaited or not."""
    task = continue_in_task(work)
    task.add_done_callback(_detached.discard)
    _detached.add(task)
    return task


class Work(Generic[T]):
    """A call in a thread, made for a task that may be cancelled meanwhile."""

    def __init__(self, call: Callable[[], T], undo: Callable[[T], object] | None) -> None:
        self.call = call
        self.undo = undo
        self.outcome: Future[T] = Future()
        self._undecided = [True]

    def run(self) -> None:
        """Make the call. If the task was cancelled during it, undo it."""
        if not self.outcome.set_running_or_notify_cancel():
            return
        try:
            result = self.call()
            if not self.decide() and self.undo is not None:
                self.undo(result)
        except BaseException as error:  # noqa: BLE001 - raised by outcome.result()
            self.outcome.set_exception(error)
        else:
            self.outcome.set_result(result)

    def run_in_pool(self) -> None:
        """Make the call, and close connections that receivers of signals may have opened."""
        try:
            self.run()
        finally:
            connections.close_all()

    def decide(self) -> bool:
        """Claim the right to keep the result, in the thread, or to undo it, in the task.

        Return False if the other side has that right already.
        """
        try:
            return self._undecided.pop()
        except IndexError:
            return False


async def _run(backend: str, work: Work[Any]) -> None:
    current_caller()  # or else the thread could not tell this task from its parent
    store = lock_backends[backend]
    on_callers_connection = isinstance(store, TransactionalStore) and store.caller() is not None
    if on_callers_connection or await has_open_transaction():
        await sync_to_async(work.run)()
        return
    executor: ThreadPoolExecutor | None = _executor(backend)
    caller_thread = sync_thread()
    if caller_thread is None or caller_thread.thread in _pool_threads:
        # A thread of a pool may be waiting for this task, a receiver of signals: if all of them
        # did, none would be left for this call.
        executor = None
    await sync_to_async(work.run_in_pool, thread_sensitive=False, executor=executor)()


async def _finish_cancelled(backend: str, work: Work[T]) -> None:
    """Undo the call of a cancelled task, or finish it if it can't be undone."""
    call, undo = work.call, work.undo
    try:
        if work.outcome.cancel():  # it has not begun
            if undo is None:
                await asyncio.shield(detach(in_thread(backend, call)))
        elif work.decide() or undo is None:  # it is under way
            await asyncio.shield(asyncio.wrap_future(work.outcome))
        else:
            result = work.outcome.result()
            await asyncio.shield(detach(in_thread(backend, lambda: undo(result))))
    except Exception as error:
        logger.exception(
            "A task was cancelled; what it asked a lock's store for failed.",
            extra={"backend": backend, "reason": str(error)},
        )


def _executor(backend: str) -> ThreadPoolExecutor:
    found = executors.get(backend)
    if found is None:
        size = lock_backends[backend].threads
        name = f"django_distlock {backend} async"
        made = ThreadPoolExecutor(size, name, lambda: _pool_threads.add(threading.current_thread()))
        found = executors.setdefault(backend, made)
    return found
